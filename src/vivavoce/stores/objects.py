"""The audio of sessions, in files on this machine."""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID

from vivavoce.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(slots=True, eq=False)
class _OpenFile:
    """A file that appends go to, and its length; `users` are the threads that work with it now."""

    descriptor: int
    size: int
    users: int = 0
    turn: Lock = field(default_factory=Lock)


class LocalAudio:
    """`vivavoce.plugins.AudioFiles` in a directory, one file `<id>.raw` a session; safe to call from many threads.

    Files that are appended to stay open, the last used `open_files` of them and those in use, so that thousands of
    sessions do not use up the process's descriptors. With `fsync`, what was appended survives a power cut too.
    Every method raises `StoreError` for an id that is not a UUID in its usual spelling, and where the disk fails.
    """

    def __init__(self, directory: Path, fsync: bool = False, *, open_files: int = 256) -> None:
        self._directory = directory
        self._fsync = fsync
        self._limit = open_files
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()
        # Lengths of files that end in a piece of a chunk because the disk refused even to cut it off.
        self._torn: dict[str, int] = {}
        self._lock = Lock()
        with _failing_as("make the audio directory"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def append(self, session_id: str, data: bytes) -> None:
        """Write at the end of the session's file, all of it or none; the bytes survive the death of the process."""
        with _failing_as("append audio"), self._appending(session_id) as file:
            torn = self._torn.get(session_id)
            if torn is not None:
                self._cut(session_id, file, torn)
            try:
                _write(file.descriptor, data)
                if self._fsync:
                    os.fsync(file.descriptor)
            except BaseException:
                self._torn[session_id] = file.size
                with suppress(OSError):
                    self._cut(session_id, file, file.size)
                raise
            file.size += len(data)

    def read(self, session_id: str, offset: int, size: int) -> bytes:
        """Give up to `size` bytes from `offset`; fewer at the end, none where there is no file."""
        with _failing_as("read audio"):
            try:
                descriptor = os.open(self._path(session_id), os.O_RDONLY)
            except FileNotFoundError:
                return b""
            try:
                return _read(descriptor, offset, size)
            finally:
                os.close(descriptor)

    def overwrite(self, session_id: str, offset: int, data: bytes) -> None:
        """Write over bytes that the file has; what would reach beyond its end is left out."""
        with _failing_as("overwrite audio"):
            left = memoryview(data)[: max(self.size(session_id) - offset, 0)]
            if not left:
                return
            # Not through the descriptor for appending, which writes at the end wherever it is told to.
            descriptor = os.open(self._path(session_id), os.O_WRONLY)
            try:
                while left:
                    written = os.pwrite(descriptor, left, offset)
                    left, offset = left[written:], offset + written
                if self._fsync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def truncate(self, session_id: str, size: int) -> None:
        """Cut the file back to `size` bytes; a shorter one, or none, stays as it is."""
        with _failing_as("cut audio"):
            if size >= self.size(session_id):
                return
            with self._appending(session_id) as file:
                self._cut(session_id, file, min(size, self._torn.get(session_id, size)))
                if self._fsync:
                    os.fsync(file.descriptor)

    def size(self, session_id: str) -> int:
        """Give the length of the file's whole chunks in bytes, 0 where there is none."""
        file = self._open.get(session_id)
        if file is not None:
            # Known without asking the system, which under many sessions costs more than the answer.
            return self._torn.get(session_id, file.size)
        with _failing_as("measure audio"):
            try:
                size = self._path(session_id).stat().st_size
            except FileNotFoundError:
                return 0
            return min(size, self._torn.get(session_id, size))

    def release(self, session_id: str) -> None:
        """Close what is held open for a session, once its last user is done."""
        with _failing_as("close audio"), self._lock:
            file = self._open.pop(session_id, None)
            if file is not None and file.users == 0:
                os.close(file.descriptor)

    def delete(self, session_id: str) -> None:
        """Remove the file; none is fine."""
        with _failing_as("delete audio"):
            path = self._path(session_id)
            self.release(session_id)
            path.unlink(missing_ok=True)
            self._torn.pop(session_id, None)

    def close(self) -> None:
        """Close everything held open; the object stays usable."""
        for session_id in list(self._open):
            self.release(session_id)

    def _path(self, session_id: str) -> Path:
        try:
            known = str(UUID(session_id)) == session_id
        except ValueError:
            known = False
        if not known:
            raise StoreError("audio is kept by session ids only")
        return self._directory / f"{session_id}.raw"

    @contextmanager
    def _appending(self, session_id: str) -> Iterator[_OpenFile]:
        """Give a session's file, to one thread at a time."""
        with self._lock:
            file = self._open.get(session_id)
            if file is None:
                descriptor = self._create(self._path(session_id))
                file = self._open[session_id] = _OpenFile(descriptor, os.fstat(descriptor).st_size)
            self._open.move_to_end(session_id)
            file.users += 1
        try:
            with file.turn:
                yield file
        finally:
            with self._lock:
                file.users -= 1
                if file.users == 0 and self._open.get(session_id) is not file:
                    os.close(file.descriptor)
                self._close_oldest()

    def _create(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if self._fsync:
                _sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _close_oldest(self) -> None:
        surplus = len(self._open) - self._limit
        if surplus > 0:
            idle = [session_id for session_id, file in self._open.items() if file.users == 0]
            for session_id in idle[:surplus]:
                os.close(self._open.pop(session_id).descriptor)

    def _cut(self, session_id: str, file: _OpenFile, size: int) -> None:
        os.ftruncate(file.descriptor, size)
        file.size = size
        self._torn.pop(session_id, None)


@contextmanager
def _failing_as(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {action}: {error.strerror}") from error


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _read(descriptor: int, offset: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.pread(descriptor, size, offset)):
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
