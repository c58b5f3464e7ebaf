import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.errors import StoreError
from vivavoce.stores.objects import LocalAudio
from vivavoce.testing.stores import check_audio_files

ID = "0d4bbf1c-8f34-4c0e-9d3a-5f0f5a2d7c11"


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("fsync", [False, True])
def test_keeps_every_promise_of_the_protocol(tmp_path: Path, *, fsync: bool) -> None:
    """The shipped contract checker finds nothing."""
    check_audio_files(LocalAudio(tmp_path / "audio", fsync=fsync))


@pytest.mark.parametrize(
    "session_id",
    ["", "..", "../secret", f"../{ID}", f"{ID}/x", f"{ID}\x00", ID.upper(), f"{{{ID}}}", f"urn:uuid:{ID}", ID[:-1]],
)
def test_only_ids_name_files(tmp_path: Path, session_id: str) -> None:
    """No string but a UUID in its usual spelling reaches the file system, and the refusal does not repeat it."""
    (tmp_path / "secret.raw").write_bytes(b"secret")
    audio = LocalAudio(tmp_path / "audio")
    calls = (
        lambda: audio.append(session_id, b"x"),
        lambda: audio.read(session_id, 0, 10),
        lambda: audio.truncate(session_id, 0),
        lambda: audio.size(session_id),
        lambda: audio.delete(session_id),
    )
    for call in calls:
        with pytest.raises(StoreError) as caught:
            call()
        assert str(caught.value) == "audio is kept by session ids only"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["audio", "secret.raw"]


def test_audio_is_for_this_user_only(tmp_path: Path) -> None:
    """Nobody else can list or read the audio, whatever the umask."""
    before = os.umask(0)
    try:
        LocalAudio(tmp_path / "audio").append(ID, b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "audio").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "audio" / f"{ID}.raw").stat().st_mode) == 0o600


def test_appends_survive_kill_9(tmp_path: Path) -> None:
    """What `append` returned from is in the file after the process dies without a chance to close it."""
    done = run(f"""
import os, signal
from pathlib import Path
from vivavoce.stores.objects import LocalAudio
audio = LocalAudio(Path({str(tmp_path)!r}))
for number in range(100):
    audio.append("{ID}", bytes([number]) * 1000)
os.kill(os.getpid(), signal.SIGKILL)
""")
    assert done.returncode == -signal.SIGKILL
    assert LocalAudio(tmp_path).read(ID, 0, 200_000) == b"".join(bytes([number]) * 1000 for number in range(100))


def test_a_full_disk_leaves_whole_chunks(tmp_path: Path) -> None:
    """A chunk for which there is no room is refused and leaves no piece; one that fits is taken afterwards."""
    done = run(f"""
import resource
from pathlib import Path
from vivavoce.errors import StoreError
from vivavoce.stores.objects import LocalAudio
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
audio = LocalAudio(Path({str(tmp_path)!r}))
audio.append("{ID}", b"a" * 900)
try:
    audio.append("{ID}", b"b" * 200)
except StoreError as error:
    print(error, type(error.__cause__).__name__, audio.size("{ID}"))
audio.append("{ID}", b"c" * 100)
""")
    assert (done.stdout, done.stderr) == ("cannot append audio: File too large OSError 900\n", "")
    assert LocalAudio(tmp_path).read(ID, 0, 2000) == b"a" * 900 + b"c" * 100


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a chunk in pieces gets all the pieces."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    audio = LocalAudio(tmp_path)
    audio.append(ID, b"abcdefgh")
    assert audio.read(ID, 0, 100) == b"abcdefgh"


def test_a_torn_chunk_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the cut succeeds, the size tells whole chunks only and the next append makes up for the cut."""
    audio = LocalAudio(tmp_path, open_files=1)
    audio.append(ID, b"whole")
    write = os.write

    def write_a_piece(descriptor: int, data: bytes) -> int:
        if len(data) < 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:2])

    def refuse(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", write_a_piece)
        broken.setattr(os, "ftruncate", refuse)
        with pytest.raises(StoreError, match="No space left"):
            audio.append(ID, b"piece")
        assert (tmp_path / f"{ID}.raw").read_bytes() == b"wholepi"
        assert audio.size(ID) == 5
        with pytest.raises(StoreError, match="Input/output"):
            audio.append(ID, b"piece")
    audio.append(str(uuid4()), b"so that the file is closed in between")
    audio.append(ID, b"-next")
    assert (tmp_path / f"{ID}.raw").read_bytes() == b"whole-next"
    assert audio.size(ID) == 10


def test_fsync_comes_before_the_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fsync`, every append waits for the disk, and one that the disk fails is taken back."""
    synced: list[int] = []
    fsync = os.fsync

    def count(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    audio = LocalAudio(tmp_path, fsync=True)
    monkeypatch.setattr(os, "fsync", count)
    audio.append(ID, b"ab")
    audio.append(ID, b"cd")
    assert synced[-2:] == [2, 4]
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError):
        audio.append(ID, b"ef")
    assert audio.size(ID) == 4
    before = descriptors()
    with pytest.raises(StoreError):
        audio.append(str(uuid4()), b"in a new file, whose name cannot be made lasting")
    assert descriptors() == before


def test_open_files_are_bounded(tmp_path: Path) -> None:
    """Many sessions share few descriptors, and lose nothing when theirs is given to another."""
    before = descriptors()
    audio = LocalAudio(tmp_path, open_files=8)
    ids = [str(uuid4()) for _ in range(100)]
    for piece in (b"ab", b"cd", b"ef"):
        for session_id in ids:
            audio.append(session_id, piece)
        assert descriptors() - before <= 8
    assert {audio.read(session_id, 0, 10) for session_id in ids} == {b"abcdef"}
    for session_id in ids:
        audio.release(session_id)
    assert descriptors() == before


def test_release_closes_and_close_closes_all(tmp_path: Path) -> None:
    """Nothing stays open that nobody holds."""
    before = descriptors()
    audio = LocalAudio(tmp_path)
    ids = [str(uuid4()) for _ in range(3)]
    for session_id in ids:
        audio.append(session_id, b"x")
    assert descriptors() == before + 3
    audio.release(ids[0])
    audio.delete(ids[1])
    assert descriptors() == before + 1
    audio.close()
    assert descriptors() == before


def test_threads_append_at_once(tmp_path: Path) -> None:
    """Threads that append to sessions of their own, with fewer descriptors than threads, mix nothing up."""
    audio = LocalAudio(tmp_path, open_files=1)
    ids = [str(uuid4()) for _ in range(4)]
    together = threading.Barrier(len(ids))

    def speak(number: int) -> None:
        together.wait()
        for chunk in range(300):
            audio.append(ids[number], bytes([number, chunk % 256]) * 50)

    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(speak, range(len(ids))))
    for number, session_id in enumerate(ids):
        expected = b"".join(bytes([number, chunk % 256]) * 50 for chunk in range(300))
        assert audio.read(session_id, 0, 100_000) == expected


def test_threads_share_a_session(tmp_path: Path) -> None:
    """Chunks that several threads append to one session stay whole."""
    audio = LocalAudio(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: audio.append(ID, bytes([number]) * 100), range(200)))
    stored = audio.read(ID, 0, 100_000)
    chunks = [stored[start : start + 100] for start in range(0, len(stored), 100)]
    assert sorted(chunks) == [bytes([number]) * 100 for number in range(200)]


def test_a_file_in_use_is_not_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releasing a session while a thread appends to it closes the file when that thread is done, not under it."""
    audio = LocalAudio(tmp_path, open_files=1)
    audio.append(ID, b"ab")
    before = descriptors() - 1
    write = os.write
    writing, released = threading.Event(), threading.Event()

    def slow_write(descriptor: int, data: bytes) -> int:
        writing.set()
        assert released.wait(60)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", slow_write)
    with ThreadPoolExecutor(1) as pool:
        appending = pool.submit(audio.append, ID, b"cd")
        assert writing.wait(60)
        audio.release(ID)
        released.set()
        appending.result(10)
    assert audio.read(ID, 0, 10) == b"abcd"
    assert descriptors() == before


def test_cutting_never_lengthens(tmp_path: Path) -> None:
    """A file shorter than asked for stays as it is, and none is made."""
    audio = LocalAudio(tmp_path)
    audio.truncate(ID, 10)
    assert list(tmp_path.iterdir()) == []
    audio.append(ID, b"abc")
    audio.truncate(ID, 10)
    assert audio.read(ID, 0, 10) == b"abc"


def test_a_disk_that_fails_is_a_store_error(tmp_path: Path) -> None:
    """What the system refuses comes out as `StoreError` with the system's own error as its cause."""
    (tmp_path / f"{ID}.raw").mkdir()
    audio = LocalAudio(tmp_path)
    for call in (lambda: audio.append(ID, b"x"), lambda: audio.read(ID, 0, 1), lambda: audio.delete(ID)):
        with pytest.raises(StoreError) as caught:
            call()
        assert isinstance(caught.value.__cause__, OSError)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="make the audio directory"):
        LocalAudio(tmp_path / "file" / "audio")


@settings(max_examples=50, deadline=None)
@given(
    chunks=st.lists(st.binary(max_size=50), max_size=10),
    offset=st.integers(min_value=0, max_value=400),
    size=st.integers(min_value=0, max_value=400),
)
def test_reading_is_slicing(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], offset: int, size: int
) -> None:
    """However the bytes were cut into chunks, any stretch of them reads back."""
    audio = LocalAudio(tmp_path_factory.mktemp("audio"), open_files=1)
    for chunk in chunks:
        audio.append(ID, chunk)
    assert audio.read(ID, offset, size) == b"".join(chunks)[offset : offset + size]
    assert audio.size(ID) == len(b"".join(chunks))
    audio.close()
