"""Fetch models: from the Hugging Face hub, or from a URL with a checksum; what is not complete never looks complete.

Everything is fetched beside its place, into a name that ends in `.part`, and renamed when it is all there and right. A
download that was cut off is kept there and goes on when the command runs again; a wrong one is removed. The checksums
of what was fetched stay in the model's directory, in the form that `sha256sum -c` reads.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from vivavoce.errors import SetupError, VivavoceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx
    from rich.progress import Progress

SUMS = "SHA256SUMS"
TRIES = 5
"""Connections that one download may lose."""
TIMEOUT_S = 30.0

_OK, _PARTIAL, _NO_RANGE = 200, 206, 416


class Interrupted(VivavoceError):
    """A download was cut off; what came so far is kept for the next try."""


def fetch_from_hub(repository: str, files: Sequence[str], target: Path) -> None:
    """Fetch a repository's files, those that match the patterns if there are any, into a new directory.

    They come from the hub, or from the mirror that HF_ENDPOINT names, and the library shows its own progress. Large
    files have checksums there. Raises `Interrupted` where it cannot be had, or not whole, and `SetupError` where a file
    has another checksum.
    """
    from huggingface_hub import HfApi, snapshot_download

    part = part_of(target)
    try:
        about = HfApi().model_info(repository, files_metadata=True)
        snapshot_download(repository, revision=about.sha, allow_patterns=list(files) or None, local_dir=part)
    except Exception as error:
        _forget_if_empty(part)
        raise Interrupted(f"the hub does not give {repository} ({type(error).__name__})") from error
    shutil.rmtree(part / ".cache", ignore_errors=True)
    sums = {each.rfilename: each.lfs.sha256 for each in about.siblings or () if each.lfs is not None}
    wrong = [name for name, digest in sums.items() if (part / name).is_file() and not _is(part / name, digest)]
    if wrong:
        shutil.rmtree(part)
        raise SetupError(f"{repository}: {', '.join(wrong)} came with another checksum; nothing is kept, try again")
    _finish(part, target)


def fetch_from_url(url: str, sha256: str, target: Path) -> None:
    """Fetch a file, or an archive and what is in it, into a new directory.

    Raises `Interrupted` where it does not come whole, and `SetupError` where its checksum is another one.
    """
    name = unquote(Path(urlsplit(url).path).name) or "model"
    part = part_of(target)
    part.mkdir(parents=True, exist_ok=True)
    archive = part / f"{sha256[:16]}.download"
    try:
        _download(url, archive, name)
    except Interrupted:
        _forget_if_empty(part)
        raise
    found = sha256_of(archive)
    if found != sha256.lower():
        shutil.rmtree(part)
        raise SetupError(f"{name}: the checksum of what came is {found}, not the one given; nothing is kept")
    try:
        _unpack(archive, name, part)
    except BaseException:
        shutil.rmtree(part)
        raise
    _finish(part, target)


def part_of(target: Path) -> Path:
    """Give where a directory is put together."""
    return target.with_name(f"{target.name}.part")


def sha256_of(path: Path) -> str:
    """Give a file's checksum in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wrong_files(directory: Path) -> list[str] | None:
    """Name the files that are not as they were fetched, None where no checksums were kept."""
    try:
        lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    kept = [line.split("  ", 1) for line in lines if line]
    return [name for digest, name in kept if not _is(directory / name, digest)]


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest


def _finish(part: Path, target: Path) -> None:
    """Note the checksums and put the directory in its place."""
    files = sorted(path for path in part.rglob("*") if path.is_file() and path.name != SUMS)
    sums = "".join(f"{sha256_of(path)}  {path.relative_to(part).as_posix()}\n" for path in files)
    (part / SUMS).write_text(sums, encoding="utf-8")
    part.rename(target)


def _forget_if_empty(part: Path) -> None:
    """Remove what is no use to the next try: a directory without a single byte of the model."""
    files = [path for path in part.rglob("*") if path.is_file() and path.suffix not in {".lock", ".metadata"}]
    if not any(path.stat().st_size for path in files if path.name not in {".gitignore", "CACHEDIR.TAG"}):
        shutil.rmtree(part, ignore_errors=True)


def _download(url: str, path: Path, name: str) -> None:
    """Bring a file to its full length, over several connections if need be."""
    import httpx

    with _progress() as progress, httpx.Client(follow_redirects=True, timeout=TIMEOUT_S) as client:
        task = progress.add_task(name, total=None)
        for tries_left in reversed(range(TRIES)):
            before = path.stat().st_size if path.exists() else 0
            try:
                _continue(client, url, path, lambda done, total: progress.update(task, completed=done, total=total))
            except httpx.HTTPError as error:
                got_on = path.exists() and path.stat().st_size > before
                if isinstance(error, httpx.HTTPStatusError) or not (tries_left and got_on):
                    raise Interrupted(f"{name} does not come whole ({_why(error)})") from error
            else:
                return


def _why(error: httpx.HTTPError) -> str:
    response = getattr(error, "response", None)
    return f"HTTP {response.status_code}" if response is not None else type(error).__name__


def _continue(client: httpx.Client, url: str, path: Path, show: Callable[[int, int | None], None]) -> None:
    start = path.stat().st_size if path.exists() else 0
    headers = {"accept-encoding": "identity", **({"range": f"bytes={start}-"} if start else {})}
    with client.stream("GET", url, headers=headers) as response:
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


def _unpack(archive: Path, name: str, part: Path) -> None:
    """Put a file in the directory under its own name, or what is in an archive."""
    kind = next((kind for kind, ends, _ in shutil.get_unpack_formats() if name.endswith(tuple(ends))), None)
    if kind is None:
        archive.rename(part / name)
        return
    inside = part / "unpacking"
    try:
        # Nothing in the archive may point outside of it.
        shutil.unpack_archive(archive, inside, kind, filter=None if kind == "zip" else "data")
    except Exception as error:
        raise SetupError(f"{name} cannot be unpacked: {' '.join(str(error).split())}") from error
    archive.unlink()
    content = list(inside.iterdir())
    root = content[0] if len(content) == 1 and content[0].is_dir() else inside
    for path in list(root.iterdir()):
        path.rename(part / path.name)
    shutil.rmtree(inside)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    notes = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, TimeRemainingColumn(), console=notes, transient=True, disable=not notes.is_terminal)
