"""Large files fetched whole: resumed where a transfer broke off, also by another process, and checked by digest."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from utils.errors import CheckpointError, OutputExistsError
from utils.hub import OTHER_FRAMEWORKS, hub_errors

_NOT_NEEDED = (*OTHER_FRAMEWORKS, ".gitattributes")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file elsewhere, and what its content must be.

    Attributes:
        path: where it belongs, below a folder.
        url: of its content.
        size: in bytes.
        kind: `sha256`, or `git`, the SHA-1 that git gives a file that is not in LFS.
        digest: of its content, in hexadecimal digits.
        headers: of the request.
    """

    path: str
    url: str
    size: int
    kind: str
    digest: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def list_repository(name: str, revision: str | None) -> tuple[str, tuple[RemoteFile, ...]]:
    """The commit of a revision of a repository on the hub, and the files of it that this project could read.

    Raises:
        CheckpointError: if the hub cannot be read, or what it lists cannot be used.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    def unread(reason: str) -> CheckpointError:
        return CheckpointError(f"{name} could not be read on the hub: {reason}")

    with hub_errors(unread):
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
        headers = build_hf_headers()
    if not info.sha or not info.siblings:
        raise unread("it lists no files")
    files = []
    for sibling in info.siblings:
        path = sibling.rfilename
        if any(fnmatch.fnmatch(path, pattern) for pattern in _NOT_NEEDED):
            continue
        pure = PurePosixPath(path)
        kind, digest = ("sha256", sibling.lfs.sha256) if sibling.lfs else ("git", sibling.blob_id)
        if pure.is_absolute() or ".." in pure.parts or sibling.size is None or not digest:
            raise unread(f"it lists {path!r} without size and digest, or outside of its folder")
        url = hf_hub_url(name, path, revision=info.sha)
        files.append(RemoteFile(path=path, url=url, size=sibling.size, kind=kind, digest=digest, headers=headers))
    return info.sha, tuple(files)


def is_there(file: RemoteFile, folder: Path) -> bool:
    """Whether a file is in a folder already, with the content that it must have.

    Raises:
        OutputExistsError: if another file has its place.
    """
    path = folder / file.path
    if not path.exists():
        return False
    if path.is_file() and path.stat().st_size == file.size and _digest(path, file) == file.digest:
        return True
    raise OutputExistsError(
        f"{path} is there and is not the file of {file.url} ({file.kind} {file.digest}); move it away, nothing is "
        "overwritten"
    )


def bytes_left(file: RemoteFile, folder: Path) -> int:
    """Bytes of a file that are still to be fetched; what a broken transfer left is not fetched again."""
    part = _part(file, folder)
    have = part.stat().st_size if part.exists() else 0
    return file.size - have if have <= file.size else file.size


def _part(file: RemoteFile, folder: Path) -> Path:
    """Where a broken transfer leaves a file; the digest in its name keeps parts of other revisions apart."""
    path = folder / file.path
    return path.with_name(f".{path.name}.{file.digest[:16]}.part")


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Fetch a file that is not there. What a broken transfer left is kept beside it, and the next call goes on from it.

    Raises:
        CheckpointError: if it cannot be fetched, or has another digest than it must have; it is then not kept.
    """
    from huggingface_hub.file_download import http_get

    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(file, folder)
    have = part.stat().st_size if part.exists() else 0
    if have > file.size:
        part.unlink()
        have = 0

    def broken(reason: str) -> CheckpointError:
        return CheckpointError(
            f"{file.url} could not be fetched: {reason}; the same command goes on from where it broke"
        )

    with hub_errors(broken), part.open("ab") as opened:
        http_get(
            file.url,
            opened,
            resume_size=have,
            headers=dict(file.headers),
            expected_size=file.size,
            displayed_filename=file.path,
        )
    found = _digest(part, file)
    if found != file.digest:
        part.unlink()
        raise CheckpointError(
            f"{file.url} has the {file.kind} digest {found}, but {file.digest} is published; it was not kept: fetch it "
            "again, from another network if it happens again"
        )
    part.replace(path)
    return path


def _digest(path: Path, file: RemoteFile) -> str:
    total = hashlib.sha256() if file.kind == "sha256" else hashlib.sha1(f"blob {file.size}\0".encode())
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 22):
            total.update(chunk)
    return total.hexdigest()
