"""What a session must be after whatever befell it: the bytes that left the client, and the finals of a quiet run."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from faults.clients import Report
from faults.proxy import Link, Socket
from live import pieces, transcribe
from server import Server

QUIET_CHUNK = 3200

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the server keeps of a session: audio without its header, and finals with their ids."""

    status: str
    audio: bytes
    finals: list[tuple[str, Json]]

    @property
    def words(self) -> list[str]:
        """What was said, word by word."""
        return [word["word"].strip() for _, utterance in self.finals for word in utterance["words"]]


def stored(server: Server, session_id: str) -> Stored:
    """Read a finished session back over REST."""
    result = server.result(session_id)
    with wave.open(io.BytesIO(server.file(session_id))) as file:
        audio = file.readframes(file.getnframes())
    messages = [json.loads(each) if isinstance(each, str) else each for each in result["result"]["messages"]]
    finals = [
        (each["data"]["id"], each["data"]["utterance"])
        for each in messages
        if each["type"] == "transcript" and each["data"]["is_final"]
    ]
    utterances = result["result"]["transcription"]["utterances"]
    assert [utterance for _, utterance in finals] == utterances, "messages and transcript differ"
    return Stored(status=result["status"], audio=audio, finals=finals)


async def quiet_run(server: Server, audio: bytes, **options: Any) -> Stored:
    """Give what an undisturbed session yields for the same audio."""
    heard = await transcribe(server, pieces(audio, QUIET_CHUNK), **options)
    return stored(server, heard.session_id)


def sent_by_client(sockets: Sequence[Socket]) -> bytes:
    """Put together what left the client, less what it repeated.

    On each socket a client goes on from the end of an acknowledgment that it had received; which one is seen from the
    bytes, as no two stretches of a noisy recording are alike. The earliest that fits counts: a later one would make
    new audio of what is a repetition.
    """
    stream = b""
    for socket in sockets:
        audio = bytes(socket.audio)
        if not audio:
            continue
        start = next(
            ack for ack in [*sorted({0, *socket.acks_before}), None] if ack is None or _fits(stream, ack, audio)
        )
        assert start is not None, f"the client went on from none of its acknowledgments, at {stream.find(audio[:64])}"
        stream = stream[:start] + max(stream[start:], audio, key=len)
    return stream


def check(
    server: Server,
    link: Link,
    report: Report,
    audio: bytes,
    quiet: Stored,
    *,
    same_cuts: bool = True,
    crashed: bool = False,
) -> None:
    """Compare a session with what left its client and with the undisturbed run; raises `AssertionError`.

    Without `same_cuts` utterances may be cut elsewhere, and only what was said must be the same. A server that
    `crashed` may have forgotten the last proofs of what had arrived.
    """
    sent, kept = sent_by_client(link.sockets), stored(server, report.session_id)
    assert sent == audio, f"the client itself sent {_difference(audio, sent)}"
    assert kept.status == "done"
    assert kept.audio == sent, f"stored: {_difference(sent, kept.audio)}"
    if same_cuts:
        assert kept.finals == quiet.finals
    else:
        assert kept.words == quiet.words
    if not crashed:
        for number, socket in enumerate(link.sockets):
            later = [message for each in link.sockets[number + 1 :] for message in each.messages]
            assert not [message for message in socket.proven if message in later], "a message came twice"
    known = dict(kept.finals)
    # What was under way when a socket broke may come again, to the letter.
    ids = list(dict.fromkeys(final["id"] for final in report.finals))
    assert ids == list(known), "finals are missing or out of order"
    assert all(final["utterance"] == known[final["id"]] for final in report.finals)


def _fits(stream: bytes, start: int, audio: bytes) -> bool:
    """Tell whether `audio` repeats `stream` from `start` on, as far as both go."""
    return stream.startswith(audio[: len(stream) - start], start)


def _difference(wanted: bytes, got: bytes) -> str:
    """Say where and how two streams part, without their bytes."""
    at = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    tail = got[at : at + 64]
    again = wanted.find(tail) if tail else -1
    return f"{len(got)} bytes instead of {len(wanted)}; from {at} on they are those at {again}"
