"""WAV headers: the one we write before stored audio, and those that clients send before theirs.

A WAV file is `RIFF <size> WAVE` and then chunks of `<name> <size> <content>`, each padded to an even length; `fmt `
says how to read the samples, and `data` holds them. A client may send a whole file instead of bare samples, so
`audio_start` looks for the samples at the head of a stream. It reads chunk names and sizes only, answers as soon as the
bytes so far decide, and so gives one answer for every split of the same bytes.

The four letters at the front decide what kind of file it is: `RIFF`, or `RF64` and `BW64` for files beyond 4 GiB,
which differ in sizes nobody here needs. `RIFX`, the big-endian kind, is walked too, so that `header_mismatch` can say
that its samples would be misread. Sizes in `data` and what a file holds after it are not looked at: streams often
state a size they could not know, so everything from the first sample on is audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Literal

from vivavoce.model import AudioFormat

MAX_HEADER_BYTES = 64 * 1024
"""A header longer than this is none: the stream is taken as samples from its first byte."""

_TAGS = {"pcm": 1, "alaw": 6, "ulaw": 7}
_NAMES = {1: "PCM", 3: "floating-point PCM", 6: "A-law", 7: "µ-law"}
_EXTENSIBLE = 0xFFFE
_UNKNOWN_SIZE = 0xFFFFFFFF
_FORMS = (b"RIFF", b"RF64", b"BW64", b"RIFX")
_PREAMBLE = 12
_CHUNK_HEAD = 8
_FMT = Struct("<HHIIHH")


def wav_header(audio: AudioFormat, data_bytes: int) -> bytes:
    """Give the header for `data_bytes` of samples that follow it and end the file.

    A-law and µ-law get their tag, the extension field and the `fact` chunk that the format asks of them. Where the
    sizes pass 32 bits they are 0xFFFFFFFF, which readers take as "to the end of the file"; the header still begins with
    `RIFF`. No padding byte is counted after an odd number of bytes, for none is written.
    """
    tag, bits = _TAGS[audio.encoding], audio.sample_bytes * 8
    rate, frame = audio.sample_rate, audio.frame_bytes
    fmt = _FMT.pack(tag, audio.channels, rate, rate * frame, frame, bits)
    if audio.encoding == "pcm":
        chunks = _chunk(b"fmt ", fmt)
    else:
        chunks = _chunk(b"fmt ", fmt + bytes(2)) + _chunk(b"fact", _size(data_bytes // frame))
    total = len(b"WAVE") + len(chunks) + _CHUNK_HEAD + data_bytes
    # Capped together: beside a file size that does not fit, a data size that does would make some readers stop early.
    shown = data_bytes if total < _UNKNOWN_SIZE else _UNKNOWN_SIZE
    return b"RIFF" + _size(total) + b"WAVE" + chunks + b"data" + _size(shown)


def audio_start(head: bytes) -> int | None:
    """Give the length of the WAV header at the head of a stream, so the offset of its first sample.

    0 where the stream is bare samples; None while more bytes are needed to tell, which never happens beyond
    `MAX_HEADER_BYTES`. A stream that ends while the answer is None was too short to hold a header, or was nothing else.
    """
    if not any(form.startswith(head[:4]) for form in _FORMS) or not b"WAVE".startswith(head[8:_PREAMBLE]):
        return 0
    if len(head) < _PREAMBLE:
        return None
    end = _PREAMBLE
    for name, start, stop in _chunks(head):
        if start > MAX_HEADER_BYTES:
            return 0
        if name == b"data":
            return start
        end = stop
    return None if end + _CHUNK_HEAD <= MAX_HEADER_BYTES else 0


def header_mismatch(head: bytes, audio: AudioFormat) -> str | None:
    """Say in a sentence how the WAV header at the head of a stream contradicts the announced format.

    None where they agree, or where there is no header; `head` holds at least the whole header.
    """
    start = audio_start(head)
    if not start:
        return None
    if head[:4] == b"RIFX":
        return "the WAV header announces big-endian samples; send little-endian ones"
    fmt = next((head[at:stop] for name, at, stop in _chunks(head[:start]) if name == b"fmt "), b"")
    if len(fmt) < _FMT.size:
        return "the WAV header does not say what its samples are: its fmt chunk is missing or cut short"
    tag, channels, rate, _, _, bits = _FMT.unpack_from(fmt)
    if tag == _EXTENSIBLE and len(fmt) >= 26:  # noqa: PLR2004 - where the sub-format begins
        tag = int.from_bytes(fmt[24:26], "little")
    found = (tag, bits if tag == _TAGS["pcm"] else 8, rate, channels)
    wanted = (_TAGS[audio.encoding], audio.sample_bytes * 8, audio.sample_rate, audio.channels)
    if found == wanted:
        return None
    return f"the WAV header announces {_described(*found)}; the session was opened for {_described(*wanted)}"


def _chunks(head: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give name and bounds of the content, padding included, of each chunk whose own head is in `head`."""
    order: Literal["little", "big"] = "big" if head[:4] == b"RIFX" else "little"
    at = _PREAMBLE
    while at + _CHUNK_HEAD <= len(head):
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + _CHUNK_HEAD], order)
        start = at + _CHUNK_HEAD
        at = start + size + size % 2
        yield name, start, at


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + _size(len(content)) + content


def _size(size: int) -> bytes:
    return min(size, _UNKNOWN_SIZE).to_bytes(4, "little")


def _described(tag: int, bits: int, rate: int, channels: int) -> str:
    coding = _NAMES.get(tag, f"coding 0x{tag:04X}")
    depth = f"{bits} bit " if tag == _TAGS["pcm"] else ""
    return f"{depth}{coding} at {rate} Hz in {channels} channel{'s' if channels != 1 else ''}"
