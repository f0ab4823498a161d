# Sourced by the other scripts: the active virtual environment, or .venv in the project's root, with everything in it.
# A stamp of the requirements makes a second run skip the installation. ROOT is the project's root; paths that a user
# gives are meant from where the user stands.
HERE=$PWD
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
if [ -z "${VIRTUAL_ENV:-}" ]; then
  if [ ! -x .venv/bin/python ]; then
    PYTHON=""
    for candidate in python3.11 python3.12 python3.10 python3; do
      if command -v "$candidate" >/dev/null && "$candidate" -c \
        'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
        PYTHON=$candidate
        break
      fi
    done
    if [ -z "$PYTHON" ]; then
      echo "error: no python 3.10, 3.11 or 3.12 with venv was found; install one, for example python3.11-venv" >&2
      exit 2
    fi
    "$PYTHON" -m venv .venv
  fi
  . .venv/bin/activate
fi
stamp="$VIRTUAL_ENV/anchorseg-requirements"
if ! cat requirements.txt requirements-dev.txt | cmp -s - "$stamp"; then
  echo "installing requirements into $VIRTUAL_ENV"
  # torch first: its exact version must be there before another package asks for any.
  pip install -q "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)"
  pip install -q -r requirements-dev.txt
  cat requirements.txt requirements-dev.txt >"$stamp"
fi
cd "$HERE"
