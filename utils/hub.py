"""The Hugging Face hub: what is fetched from it is said beforehand, and what goes wrong is one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from utils.errors import UserError

OTHER_FRAMEWORKS = ("*.msgpack", "*.h5", "*.onnx", "*.ot")
"""Files of a repository that nothing here reads."""


def is_hub_name(name: str) -> bool:
    """Whether a text may name a repository of the hub, OWNER/NAME."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


@contextmanager
def hub_errors(fail: Callable[[str], Exception]) -> Iterator[None]:
    """Turn what a request to the hub raises into an error of this project.

    Args:
        fail: makes the error from the reason, a part of a sentence.
    """
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except UserError:
        raise
    except (HTTPError, OSError, ValueError) as error:
        raise fail(_reason(error)) from error


def _reason(error: Exception) -> str:
    from huggingface_hub import constants, errors

    known: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "its terms must be accepted on its page first, and HF_TOKEN be the token of who did"),
        (
            errors.RepositoryNotFoundError,
            "there is no such repository, or it is private and HF_TOKEN is not set for it",
        ),
        (errors.RevisionNotFoundError, "it has no such revision"),
        (errors.LocalTokenNotFoundError, "a token is needed: set HF_TOKEN, or `hf auth login`"),
    )
    for kind, reason in known:
        if isinstance(error, kind):
            return reason
    if constants.is_offline_mode():
        cached = isinstance(error, errors.LocalEntryNotFoundError)
        return f"HF_HUB_OFFLINE forbids the network{', and the cache does not hold it whole' if cached else ''}"
    words = " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())[:200]
    unanswered = isinstance(error, errors.HTTPError) and not isinstance(error, errors.HfHubHTTPError)
    return f"no answer from the network ({words})" if unanswered else words


def fetch_snapshot(name: str, *, revision: str | None = None, files: Sequence[str] | None = None) -> Path:
    """Fetch a repository into the hub's cache, after saying so on stderr once; what the cache holds is not fetched.

    Args:
        name: OWNER/NAME.
        revision: branch, tag or commit; None is the main branch.
        files: patterns of the files to fetch; None is all but those of other frameworks.

    Returns:
        The folder in the cache.

    Raises:
        HTTPError, OSError, ValueError: of huggingface_hub, see `hub_errors`.
    """
    from huggingface_hub import constants, snapshot_download

    _announce(name if revision is None else f"{name} at {revision}", constants.ENDPOINT, constants.HF_HUB_CACHE)
    return Path(
        snapshot_download(
            name,
            revision=revision,
            cache_dir=constants.HF_HUB_CACHE,
            allow_patterns=None if files is None else list(files),
            ignore_patterns=list(OTHER_FRAMEWORKS),
        )
    )


@cache
def _announce(what: str, endpoint: str, folder: str) -> None:
    from huggingface_hub import constants

    source = "read from" if constants.is_offline_mode() else f"fetched from {endpoint} where it is not yet in"
    print(f"{what}: {source} the cache {folder}", file=sys.stderr, flush=True)
