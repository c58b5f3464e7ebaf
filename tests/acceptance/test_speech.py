"""Real speech through the real program: texts, channels, formats, and the same result however the bytes arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laws import check
from live import FLAGS, STOP, Heard, Json, base64_chunk, connected, open_session, pieces, transcribe
from recordings import TRANSCRIPTS, wheel_recording
from sound import bare, g711, interleave, pcm, recording_at, share_of, silence, with_wav_header
from vivavoce.model import SAMPLE_RATE

CHUNK = 3200
FORCED_CUT_S = 15
SHIFT_TOLERANCE_S = 0.05
"""How far a word may move beside its recording: voice activity looks back as far as it remembers, so that an onset may
fall on another frame, and the aligner's frames are 10 ms long.
"""

CLONE_TEST = "I do I think that America could do it very well"
TWO_CITIES_START = " ".join(TRANSCRIPTS["two_cities"].split()[:36])
"""What `excerpt()` says: up to the epoch of belief."""


def excerpt(start_s: float = 0.0, stop_s: float = 13.0, name: str = "two_cities") -> np.ndarray:
    """Give a piece of a recording at 16 kHz."""
    return wheel_recording(name)[round(start_s * SAMPLE_RATE) : round(stop_s * SAMPLE_RATE)]


def spoken(heard: Heard, channel: int = 0) -> list[dict[str, Any]]:
    """Give a channel's finals without the channel's number."""
    finals = [final for final in heard.finals if final["utterance"]["channel"] == channel]
    return [{**final, "id": final["id"][2:], "utterance": {**final["utterance"], "channel": None}} for final in finals]


async def test_three_voices_on_three_channels_come_back_apart(server):
    """Each channel's finals carry its number and are, to the last digit, those of its voice transcribed alone."""
    voices = [excerpt(), wheel_recording("beckett"), wheel_recording("clone-test")]
    together = interleave(voices)
    alone = [np.pad(voice, (0, len(together) // 3 - len(voice))) for voice in voices]

    heard, *each = await asyncio.gather(
        transcribe(server, pieces(pcm(together), CHUNK), channels=3),
        *(transcribe(server, pieces(pcm(voice), CHUNK)) for voice in alone),
    )

    assert {final["id"][:2] for final in heard.finals} == {"00", "01", "02"}
    for channel, single in enumerate(each):
        assert spoken(heard, channel) == spoken(single)
    assert share_of(TWO_CITIES_START, heard.text(0)) > 0.85
    assert share_of(TRANSCRIPTS["beckett"], heard.text(1)) > 0.75
    assert share_of(CLONE_TEST, heard.text(2)) > 0.85
    result = server.result(heard.session_id)["result"]
    assert result["metadata"]["number_of_distinct_channels"] == 3
    assert result["metadata"]["billing_time"] == pytest.approx(3 * result["metadata"]["audio_duration"], abs=0.01)


async def test_eight_channels_are_heard_alike(server):
    """The same voice on all of eight channels, and on each a little later, gives the same words eight times."""
    voice = excerpt(0, 4.8)
    tracks = [np.concatenate([silence(0.512 * i), voice]) for i in range(8)]

    heard = await transcribe(server, pieces(pcm(interleave(tracks)), CHUNK * 8), channels=8)

    texts = [bare(heard.text(channel)) for channel in range(8)]
    assert texts[1:] == texts[:-1]
    assert share_of("It was the best of times, it was the worst of times", heard.text(7)) > 0.85


@pytest.fixture(scope="module")
def heard_whole(server) -> dict[str, list[dict[str, Any]]]:
    """What is heard when each frame holds a tenth of a second, by telephone and in 16 kHz."""

    async def both() -> list[Heard]:
        return [await transcribe(server, pieces(data, CHUNK), **options) for data, options in SPLIT_ROADS.values()]

    return {name: heard.finals for name, heard in zip(SPLIT_ROADS, asyncio.run(both()), strict=True)}


SPLIT_ROADS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "16 kHz": (pcm(excerpt(0, 8, "endgame_nagg_nell")), {}),
    "telephone": (
        g711(recording_at("beckett", 8000), "mulaw"),
        {"encoding": "wav/ulaw", "sample_rate": 8000, "endpointing": 0.5},
    ),
    "24 bit": (pcm(excerpt(0, 8), 24), {"bit_depth": 24, "maximum_duration_without_endpointing": FORCED_CUT_S}),
}

SIZES = st.lists(st.one_of(st.integers(0, 7), st.integers(8, 3000), st.integers(3000, 70_000)), max_size=60)


@pytest.mark.parametrize("road", SPLIT_ROADS)
@given(sizes=SIZES, rest=st.integers(400, 600_000), texts=st.integers(0, 3), partials=st.booleans())
@settings(
    max_examples=7,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_split_of_the_same_bytes_is_heard_alike(server, heard_whole, road, *, sizes, rest, texts, partials):
    """Ids, texts, words, times and confidences of finals do not depend on frames: their sizes, their kind (binary or
    base64), and whether partials are asked for.
    """
    data, options = SPLIT_ROADS[road]
    chunks, at = [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    chunks += pieces(data[at:], rest)
    frames = [base64_chunk(chunk) if texts and i % texts == 0 else chunk for i, chunk in enumerate(chunks)]
    flags = {**dict.fromkeys(FLAGS, True), "receive_partial_transcripts": partials}

    heard = asyncio.run(transcribe(server, frames, messages_config=flags, **options))

    assert heard.finals == heard_whole[road]
    assert len(heard.finals) > 2
    assert server.file(heard.session_id).endswith(data)


async def test_depth_encoding_and_header_do_not_change_what_is_heard(server):
    """16, 24 and 32 bit, binary, base64 and mixed, raw and with a WAV header: finals are equal to the last digit."""
    voice = excerpt(0, 8)
    roads = []
    for bits in (16, 24, 32):
        data = pcm(voice, bits)
        headed = with_wav_header(data, bits=bits)
        binary = pieces(data, CHUNK)
        roads += [
            transcribe(server, binary, bit_depth=bits),
            transcribe(server, [base64_chunk(chunk) for chunk in pieces(headed, 4000)], bit_depth=bits),
            transcribe(
                server,
                [base64_chunk(chunk) if i % 2 else chunk for i, chunk in enumerate(pieces(headed, 5001))],
                bit_depth=bits,
            ),
        ]

    first, *others = await asyncio.gather(*roads)

    assert len(first.finals) >= 3
    for heard in others:
        assert heard.finals == first.finals
    for heard in [first, *others]:
        assert server.result(heard.session_id)["result"]["metadata"]["audio_duration"] == pytest.approx(8)


TELEPHONE = [
    ("wav/alaw", lambda samples: g711(samples, "alaw"), 8000, 16),
    ("wav/ulaw", lambda samples: g711(samples, "mulaw"), 8000, 16),
    ("wav/ulaw", lambda samples: g711(samples, "mulaw", 16_000), 16_000, 8),
    ("wav/pcm", lambda samples: pcm(samples, 16), 8000, 16),
    ("wav/pcm", lambda samples: pcm(samples * 3, 8), 16_000, 8),
    ("wav/pcm", lambda samples: pcm(samples, 16), 24_000, 16),
    ("wav/pcm", lambda samples: pcm(samples, 24), 32_000, 24),
    ("wav/pcm", lambda samples: pcm(samples, 16), 44_100, 16),
    ("wav/pcm", lambda samples: pcm(samples, 32), 48_000, 32),
]


@pytest.mark.parametrize(("encoding", "encode", "rate", "bits"), TELEPHONE)
async def test_every_encoding_and_rate_gives_sensible_text(server, encoding, encode, rate, bits):
    """What a format loses costs few words, and times stand where they stand at 16 kHz."""
    data = encode(recording_at("two_cities", rate)[: 13 * rate])

    heard, plain = await asyncio.gather(
        transcribe(server, pieces(data, 4001), encoding=encoding, sample_rate=rate, bit_depth=bits, endpointing=0.3),
        transcribe(server, pieces(pcm(excerpt()), CHUNK), endpointing=0.3),
    )

    assert share_of(TWO_CITIES_START, heard.text()) > 0.8
    starts = {utterance["words"][0]["start"] for utterance in plain.utterances}
    moved = [min(abs(each["words"][0]["start"] - start) for start in starts) for each in heard.utterances]
    assert sorted(moved)[len(moved) // 2] < 0.1, moved
    metadata = server.result(heard.session_id)["result"]["metadata"]
    assert metadata["audio_duration"] == pytest.approx(13, abs=0.001)


@pytest.mark.parametrize("frames", [16, 50, 100])
@pytest.mark.parametrize("name", ["beckett", "clone-test", "two_cities", "endgame_nagg_nell"])
async def test_silence_in_front_shifts_every_time_by_its_length(server, name, frames):
    """The words stay the same, and each of them moves by the silence and no more than a tolerance."""
    voice = excerpt(0, 14, name)
    shift_s = frames * 0.032

    plain, shifted = await asyncio.gather(
        transcribe(server, pieces(pcm(voice), CHUNK)),
        transcribe(server, pieces(pcm(np.concatenate([silence(shift_s), voice])), CHUNK)),
    )

    assert bare(shifted.text()) == bare(plain.text())
    for before, after in zip(plain.words, shifted.words, strict=True):
        assert after["start"] == pytest.approx(before["start"] + shift_s, abs=SHIFT_TOLERANCE_S)
        assert after["end"] == pytest.approx(before["end"] + shift_s, abs=SHIFT_TOLERANCE_S)


async def test_partials_are_rewritten_into_their_final(server):
    """Utterances of some length have partials under the id of their final, whose last one has most of its words."""
    data = pcm(excerpt())
    plain = await transcribe(server, pieces(data, CHUNK))
    sent = 0
    async with connected(open_session(server)) as heard:
        for final in plain.finals:
            # Most of what it says; what is said in one breath may be over before a slow machine has a partial.
            start, end = (round(final["utterance"][edge] * SAMPLE_RATE) * 2 for edge in ("start", "end"))
            amid = (start + 4 * end) // 5
            if end - start > 1.5 * SAMPLE_RATE * 2:
                await heard.speak(data[sent:end], at=amid - sent, came=lambda final=final: _drafts(heard, final))
                sent = end
        await heard.send(data[sent:], STOP)
        assert await heard.ended() == 1000

    check(heard.messages)
    assert len(heard.finals) >= 4
    for final in heard.finals:
        partials = [each for each in heard.partials if each["id"] == final["id"]]
        if final["utterance"]["end"] - final["utterance"]["start"] > 1.5:
            assert share_of(final["utterance"]["text"], partials[-1]["utterance"]["text"]) > 0.4
        for partial in partials:
            assert partial["utterance"]["start"] == pytest.approx(final["utterance"]["start"], abs=0.3)


def _drafts(heard: Heard, final: Json) -> list[Json]:
    """Give the partials so far that have a good part of what a final says."""
    said = final["utterance"]["text"]
    drafts = [each for each in heard.partials if each["id"] == final["id"]]
    return [each for each in drafts if share_of(said, each["utterance"]["text"]) > 0.4]


async def test_stored_transcript_is_what_the_socket_said(server):
    """REST gives the finals' utterances ordered by start, and their texts joined."""
    voices = interleave([wheel_recording("beckett"), excerpt(0, 9)])
    heard = await transcribe(server, pieces(pcm(voices), CHUNK), channels=2)

    stored = server.result(heard.session_id)["result"]

    assert stored["transcription"]["utterances"] == sorted(heard.utterances, key=lambda each: each["start"])
    assert (
        stored["transcription"]["full_transcript"]
        == "".join(each["text"] for each in stored["transcription"]["utterances"]).strip()
    )
    assert stored["transcription"]["languages"] == ["en"]
    assert heard.of("post_transcript")[0]["data"] == stored["transcription"]
    final = heard.of("post_final_transcript")[0]["data"]
    assert final == {key: value for key, value in stored.items() if key != "messages"}
