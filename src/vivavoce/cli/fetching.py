"""Fetch models: from the Hugging Face hub, or from a URL with a checksum; what is not complete never looks complete.

Everything is fetched beside its place, into a directory that ends in `.part`, which one process at a time may use. A
file there ends in `.download` until all of it is there and its checksum is right; then it goes into the directory
`whole`, which is renamed once nothing is missing. A download that was cut off is kept and goes on when the command runs
again; a wrong file is removed. The checksums of what was fetched stay in the model's directory, in the form that
`sha256sum -c` reads.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from vivavoce.errors import SetupError, VivavoceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx
    from huggingface_hub.hf_api import ModelInfo
    from rich.progress import Progress

SUMS = "SHA256SUMS"
TRIES = 5
"""Connections that one download may lose."""
TIMEOUT_S = 30.0

_OK, _PARTIAL, _NO_RANGE = 200, 206, 416
_LOCK, _WHOLE = "lock", "whole"
_SUM = re.compile(rb"(?P<digest>[0-9a-fA-F]{64}) [ *](?P<name>.+)")


class Interrupted(VivavoceError):
    """A download was cut off; what came so far is kept for the next try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of a model: `sha256` is its checksum, or `git` its number in a repository, as far as these are known."""

    name: str
    url: str
    sha256: str | None = None
    git: str | None = None
    size: int | None = None

    def key(self) -> str:
        """Give a name that no other content has, as far as it is known what the content should be."""
        return (self.sha256 or self.git or hashlib.sha256(self.url.encode()).hexdigest())[:16]

    def is_at(self, path: Path) -> bool:
        """Whether all of it is at a path, and right; never, where nothing is known that would tell."""
        if not path.is_file():
            return False
        if self.sha256 is not None:
            return sha256_of(path) == self.sha256
        if self.git is not None:
            return _git_number(path) == self.git
        return path.stat().st_size == self.size

    def is_wrong_at(self, path: Path) -> bool:
        """Whether what is at a path cannot be all of it; never, where nothing is known that would tell."""
        told = (self.sha256, self.git, self.size) != (None, None, None)
        return told and not self.is_at(path)


def fetch_from_hub(repository: str, files: Sequence[str], target: Path) -> None:
    """Fetch a repository's files, those that match the patterns if there are any, into a new directory.

    They come from the hub, or from the mirror that HF_ENDPOINT names, which tell their checksums. Raises `Interrupted`
    where it cannot be had, or not whole, and `SetupError` where a file has another checksum or cannot be written.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not marked as such

    with _beside(target) as part:
        try:
            about = HfApi().model_info(repository, files_metadata=True, timeout=TIMEOUT_S)
        except Exception as error:
            raise Interrupted(f"the hub does not give {repository} ({type(error).__name__})") from error
        wanted = _wanted(about, repository, files)
        whole = part / _WHOLE
        # An earlier try may have been for an earlier state of the repository.
        _leave_only(whole, {whole / each.name for each in wanted})
        for each in wanted:
            _place(each, part, headers=build_hf_headers())
        _finish(whole, target)


def fetch_from_url(url: str, sha256: str, target: Path) -> None:
    """Fetch a file, or an archive and what is in it, into a new directory.

    Raises `Interrupted` where it does not come whole, and `SetupError` where its checksum is another one, or it cannot
    be unpacked or written.
    """
    name = Path(unquote(urlsplit(url).path)).name.strip(".") or "model"
    file = _File(name=name, url=url, sha256=sha256.lower())
    kind = next((kind for kind, ends, _ in shutil.get_unpack_formats() if name.endswith(tuple(ends))), None)
    with _beside(target) as part:
        whole = part / _WHOLE
        if kind is None:
            _leave_only(whole, {whole / name})
            _place(file, part)
            _finish(whole, target)
        else:
            _finish(_unpack(_fetch(file, part), kind, name, whole), target)


def part_of(target: Path) -> Path:
    """Give where a directory is put together."""
    return target.with_name(f"{target.name}.part")


def sha256_of(path: Path) -> str:
    """Give a file's checksum in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wrong_files(directory: Path) -> list[str] | None:
    """Name the files that are not as they were fetched, None where no checksums were kept.

    Raises `SetupError` where these are not in a form that `sha256sum` writes.
    """
    path = directory / SUMS
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = []
    for number, line in enumerate(lines, 1):
        kept = _SUM.fullmatch(line)
        if kept is None and line.strip():
            raise SetupError(f"{path}: line {number} is not as sha256sum writes it; write it again, or remove the file")
        if kept is not None and not _is(directory / os.fsdecode(kept["name"]), kept["digest"].decode().lower()):
            found.append(os.fsdecode(kept["name"]))
    return found


@contextmanager
def unused(target: Path) -> Iterator[None]:
    """Let no download of a model begin meanwhile where one was cut off; raises `SetupError` while there is one."""
    part = part_of(target)
    with _held(part) if part.exists() else nullcontext():
        yield


def forget(target: Path) -> None:
    """Remove a model's directory, and what a download of it left, while it is `unused`."""
    shutil.rmtree(part_of(target), ignore_errors=True)
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest


def _git_number(path: Path) -> str:
    """Give the number that git has for a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _wanted(about: ModelInfo, repository: str, patterns: Sequence[str]) -> list[_File]:
    """Give the files that match the patterns, if there are any; raises `SetupError` where there are none."""
    from huggingface_hub import hf_hub_url

    there = [
        each
        for each in about.siblings or ()
        if not patterns or any(fnmatchcase(each.rfilename, pattern) for pattern in patterns)
    ]
    if not there:
        listed = f" none of {', '.join(patterns)}" if patterns else " no files"
        raise SetupError(f"{repository} has{listed}")
    for each in there:
        if "\\" in each.rfilename or not _stays_inside(PurePosixPath(each.rfilename)):
            raise SetupError(f"{repository} has a file that would be written elsewhere, {each.rfilename}")
    return [
        _File(
            name=each.rfilename,
            url=hf_hub_url(repository, each.rfilename, revision=about.sha),
            sha256=each.lfs.sha256 if each.lfs is not None else None,
            git=each.blob_id if each.lfs is None else None,
            size=each.size,
        )
        for each in there
    ]


def _stays_inside(path: PurePosixPath) -> bool:
    return not path.is_absolute() and ".." not in path.parts


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Hold the directory in which a model is put together, for this process alone; it is gone when `target` is there.

    What came stays there for the next try where that fails, unless there is not a byte of it.
    """
    part = part_of(target)
    part.mkdir(parents=True, exist_ok=True)
    with _held(part):
        try:
            if target.exists():
                raise SetupError(f"{target} is there already: another vivavoce has downloaded it meanwhile")
            yield part
            shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            raise SetupError(
                f"{part}: {error.strerror or error}; what came is kept: make room there, and run the same command "
                "again to go on, or choose another place with --data-dir"
            ) from error
        finally:
            _forget_if_empty(part)


@contextmanager
def _held(part: Path) -> Iterator[None]:
    """Let no other process use the directory meanwhile; raises `SetupError` where one does."""
    from filelock import FileLock, Timeout

    lock = FileLock(part / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise SetupError(f"{part.stem} is being downloaded by another vivavoce; wait for that one") from None
    try:
        yield
    finally:
        lock.release()


def _place(file: _File, part: Path, headers: Mapping[str, str] | None = None) -> None:
    """Bring a file into what will be the model's directory, unless an earlier try did."""
    place = part / _WHOLE / file.name
    if file.is_at(place):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    _fetch(file, part, headers).replace(place)


def _fetch(file: _File, part: Path, headers: Mapping[str, str] | None = None) -> Path:
    """Bring a file, whole and right; raises `Interrupted`, and `SetupError` where its checksum is another one."""
    path = part / f"{file.key()}.download"
    if not file.is_at(path):
        _download(file, path, headers or {})
        if file.is_wrong_at(path):
            found = sha256_of(path)
            path.unlink()
            raise SetupError(
                f"{file.name} came with another checksum than it should have, {found}; it is not kept. If it comes so "
                "again, what gives it is not to be trusted"
            )
    return path


def _leave_only(directory: Path, wanted: set[Path]) -> None:
    """Remove all other files, and the directories that are empty then: one may be in the place of a file."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()
        elif path not in wanted:
            path.unlink()


def _finish(whole: Path, target: Path) -> None:
    """Note the checksums and put the directory in its place."""
    files = sorted(path for path in whole.rglob("*") if path.is_file() and path != whole / SUMS)
    sums = "".join(f"{sha256_of(path)}  {path.relative_to(whole).as_posix()}\n" for path in files)
    (whole / SUMS).write_text(sums, encoding="utf-8")
    whole.rename(target)


def _forget_if_empty(part: Path) -> None:
    """Remove what is no use to the next try: a directory without a single byte of the model."""
    if not any(path.stat().st_size for path in part.rglob("*") if path.is_file()):
        shutil.rmtree(part, ignore_errors=True)


def _download(file: _File, path: Path, headers: Mapping[str, str]) -> None:
    """Bring a file to its full length, over several connections if need be."""
    import httpx

    with (
        _progress() as progress,
        httpx.Client(headers=headers, follow_redirects=True, timeout=TIMEOUT_S) as client,
    ):
        task = progress.add_task(file.name, total=None)
        for tries_left in reversed(range(TRIES)):
            before = path.stat().st_size if path.exists() else 0
            try:
                _continue(client, file, path, lambda done, total: progress.update(task, completed=done, total=total))
            except httpx.HTTPError as error:
                got_on = path.exists() and path.stat().st_size > before
                if isinstance(error, httpx.HTTPStatusError) or not (tries_left and got_on):
                    raise Interrupted(f"{file.name} does not come whole ({_why(error)})") from error
            else:
                return


def _why(error: httpx.HTTPError) -> str:
    response = getattr(error, "response", None)
    return f"HTTP {response.status_code}" if response is not None else type(error).__name__


def _continue(client: httpx.Client, wanted: _File, path: Path, show: Callable[[int, int | None], None]) -> None:
    start = path.stat().st_size if path.exists() else 0
    headers = {"accept-encoding": "identity", **({"range": f"bytes={start}-"} if start else {})}
    with client.stream("GET", wanted.url, headers=headers) as response:
        if start and response.status_code == _NO_RANGE:
            # All of it is there, or it is another file now: the checksum will tell.
            return
        response.raise_for_status()
        if response.status_code != _PARTIAL:
            start = 0
        length = response.headers.get("content-length")
        total = start + int(length) if length else None
        with path.open("ab" if start else "wb") as file:
            for piece in response.iter_raw():
                file.write(piece)
                show(file.tell(), total)
                # The checksum tells that it is wrong, without all that may follow.
                if wanted.size is not None and file.tell() > wanted.size:
                    return


def _unpack(archive: Path, kind: str, name: str, inside: Path) -> Path:
    """Put what is in an archive into a directory; give that, or the one directory that is in it.

    One that is damaged is removed; raises `SetupError` then.
    """
    shutil.rmtree(inside, ignore_errors=True)
    try:
        # Nothing in the archive may point outside of it.
        shutil.unpack_archive(archive, inside, kind, filter=None if kind == "zip" else "data")
    except Exception as error:
        shutil.rmtree(inside, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None:
            # The disk is at fault, not the archive.
            raise
        archive.unlink()
        raise SetupError(f"{name} cannot be unpacked: {' '.join(str(error).split())}") from error
    content = list(inside.iterdir())
    return content[0] if len(content) == 1 and content[0].is_dir() else inside


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    notes = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, TimeRemainingColumn(), console=notes, transient=True, disable=not notes.is_terminal)
