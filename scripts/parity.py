"""Compare this installation with numbers of the published implementation; see `tests.parity`."""

import sys

from tests.parity.__main__ import main
from utils.errors import exit_on_error

if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main())
