"""Where utterances begin and end: endpointing, forced cuts, stalled sockets, and nothing where nobody speaks."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from laws import check
from live import STOP, Heard, connected, is_final, open_session, pieces, transcribe
from recordings import TRANSCRIPTS, wheel_recording
from sound import bare, interleave, noises, pcm, share_of, silence
from vivavoce.model import SAMPLE_RATE

CHUNK = 3200
MUSIC = sorted(Path("/usr/share/asterisk/moh").glob("*.wav"))
PHRASE = slice(round(0.1 * SAMPLE_RATE), round(1.5 * SAMPLE_RATE))
"""The first two words of `beckett`, with the quiet around them."""

FRAME_S = 0.032


def phrase() -> np.ndarray:
    """Give one short utterance."""
    return wheel_recording("beckett")[PHRASE]


def spans(heard: Heard) -> list[tuple[float, float]]:
    """Give the stretches of speech that were announced, on one channel."""
    starts, ends = heard.of("speech_start"), heard.of("speech_end")
    return [(start["data"]["time"], end["data"]["time"]) for start, end in zip(starts, ends, strict=True)]


async def test_ids_are_channel_and_onset(server):
    """An utterance's id is its channel and the onset that `speech_start` told, in milliseconds."""
    tracks = [np.concatenate([silence(delay_s), wheel_recording("beckett")]) for delay_s in (0.0, 0.8)]
    heard = await transcribe(server, pieces(pcm(interleave(tracks)), CHUNK), channels=2)

    said = [start["data"] for start in heard.of("speech_start")]
    assert {f"{each['channel']:02}_{round(each['time'] * 1000):08}" for each in said} == {
        final["id"] for final in heard.finals
    }
    assert len(said) == 12


@pytest.mark.parametrize("chunk_s", [0.1, 0.25, 1.0])
async def test_speech_behind_digital_silence_does_not_wait_for_more(server, chunk_s):
    """A muted line that begins to speak is heard at once, however its bytes are cut and though nothing follows."""
    audio = pcm(np.concatenate([np.zeros(SAMPLE_RATE, np.float32), phrase()]))
    async with connected(open_session(server)) as socket:
        await socket.send(*pieces(audio, round(chunk_s * SAMPLE_RATE) * 2))
        await socket.until(is_final)
        await socket.send(STOP)
        assert await socket.ended() == 1000


@pytest.mark.parametrize(("gap_s", "count"), [(0.2, 1), (0.9, 2)])
async def test_a_pause_longer_than_endpointing_parts_two_utterances(server, gap_s, count):
    """At an `endpointing` of 1 s, 0.8 s between two phrases join them, and 1.5 s part them.

    The phrases bring 0.3 s of quiet at either end.
    """
    voice = np.concatenate([silence(0.5), phrase(), silence(gap_s), phrase(), silence(2)])
    heard = await transcribe(server, pieces(pcm(voice), CHUNK), endpointing=1.0)

    assert len(heard.finals) == count
    assert [word for word in bare(heard.text()) if word == "ever"] == ["ever", "ever"]


@pytest.mark.parametrize(("endpointing", "pause_s"), [(0.01, 0.25), (0.7, 0.7), (1, 1), (3, 3)])
async def test_an_utterance_holds_shorter_pauses_and_ends_at_longer_ones(server, endpointing, pause_s):
    """Utterances are parted by at least `endpointing` or 0.25 s of silence, whichever is longer, and lose no words."""
    heard = await transcribe(
        server,
        pieces(pcm(wheel_recording("beckett")), CHUNK),
        endpointing=endpointing,
        maximum_duration_without_endpointing=60,
    )

    for (_, end), (start, _) in pairwise(spans(heard)):
        assert start - end >= pause_s - FRAME_S
    assert len(heard.finals) == {0.25: 6, 0.7: 6, 1: 2, 3: 1}[pause_s]
    assert share_of(TRANSCRIPTS["beckett"], heard.text()) > 0.75


async def test_speech_end_tells_the_end_of_speech_and_not_of_the_decision(server):
    """Where the signal falls silent at once, `speech_end` names that moment, however long `endpointing` is."""
    said = phrase()[: round(1.1 * SAMPLE_RATE)]
    ends_s = [0.5 + 1.1, 0.5 + 1.1 + 4 + 1.1]
    voice = np.concatenate([silence(0.5), said, silence(4), said, silence(4)])
    for endpointing in (0.05, 3.0):
        heard = await transcribe(server, pieces(pcm(voice), CHUNK), endpointing=endpointing)

        assert [end for _, end in spans(heard)] == pytest.approx(ends_s, abs=0.1)


@pytest.mark.parametrize("maximum_s", [5, 7.5])
async def test_no_utterance_is_longer_than_the_maximum(server, maximum_s):
    """Speech that never pauses for `endpointing` is cut at the maximum, in gaps if there are any, and keeps words."""
    voice = wheel_recording("two_cities")[: 30 * SAMPLE_RATE]
    heard = await transcribe(
        server, pieces(pcm(voice), CHUNK), endpointing=10, maximum_duration_without_endpointing=maximum_s
    )

    assert max(end - start for start, end in spans(heard)) <= maximum_s + FRAME_S
    assert max(each["end"] - each["start"] for each in heard.utterances) <= maximum_s + 0.3
    assert len(heard.finals) <= -(-30 // (maximum_s * 0.7))
    assert share_of(" ".join(TRANSCRIPTS["two_cities"].split()[:78]), heard.text()) > 0.8


def _spoken_on(heard: Heard, names: list[str]) -> list[str]:
    """Say what was invented on which track."""
    return [
        f"{names[each['utterance']['channel']]}: {each['utterance']['text']!r} at {each['utterance']['start']} s, "
        f"confidence {each['utterance']['confidence']}, {'final' if each['is_final'] else 'partial'}"
        for each in heard.transcripts
    ]


@pytest.mark.parametrize("level", [0.3, 0.03, 0.003])
@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_invented_on_noise(server, level, seed):
    """Silence, noise of any colour, hum, clicks and telephone tones give neither finals nor partials."""
    tracks = list(noises(20, seed).items())
    invented = []
    for group in (tracks[:8], tracks[8:]):
        names = [name for name, _ in group]
        frames = pieces(pcm(interleave([noise * level for _, noise in group])), 64_000)
        heard = await transcribe(server, frames, channels=len(group))
        invented += _spoken_on(heard, names)
        assert heard.of("post_transcript")[0]["data"]["full_transcript"] == ""

    assert not invented


@pytest.mark.parametrize("name", ["white noise", "pink noise", "mains hum", "DTMF", "knocks", "digital silence"])
async def test_noise_after_speech_adds_no_words(server, name):
    """What follows a phrase, 20 dB below it, is neither part of it nor an utterance of its own."""
    noise = noises(6, 3)[name] * 0.01
    voice = np.concatenate([silence(0.5), phrase()])
    heard = await transcribe(server, pieces(pcm(np.concatenate([voice, noise])), CHUNK))

    assert bare(heard.text()) == ["ever", "tried"], _spoken_on(heard, [name])
    assert len(heard.finals) == 1
    assert heard.utterances[0]["end"] < 0.5 + len(phrase()) / SAMPLE_RATE


@pytest.mark.parametrize(
    ("seconds", "gain"),
    [(60, 1.0), pytest.param(600, 1.0, marks=pytest.mark.slow), pytest.param(600, 0.1, marks=pytest.mark.slow)],
)
async def test_nothing_is_invented_on_music(server, seconds, gain):
    """Music on hold, loud or soft, gives neither finals nor partials."""
    if not MUSIC:
        pytest.skip("no music: install Debian's asterisk-moh-opsound-wav")
    invented = []
    for path in MUSIC:
        with av.open(str(path)) as container:
            track = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
            rate = container.streams.audio[0].rate
        samples = (track[: seconds * rate] / 32768 * gain).astype(np.float32)
        heard = await transcribe(server, pieces(pcm(samples), 64_000), sample_rate=rate)
        invented += _spoken_on(heard, [path.name])

    assert not invented


async def test_a_stalled_socket_closes_its_utterance(server):
    """Where an open socket falls silent in mid-speech, the final comes after a second of wall clock, no sooner, and the
    socket stays open; the pause adds no audio time, so what is said afterwards stands where its samples stand.
    """
    voice = np.concatenate([silence(0.5), phrase()[: round(1.1 * SAMPLE_RATE)]])
    later = np.concatenate([silence(0.3), phrase(), silence(1)])
    async with connected(open_session(server)) as socket:
        began_at = time.monotonic()
        await socket.send(*pieces(pcm(voice), CHUNK))
        first = await socket.until(is_final)
        waited_s = time.monotonic() - began_at
        assert socket.code is None
        await socket.send(*pieces(pcm(later), CHUNK), STOP)
        assert await socket.ended() == 1000

    check(socket.messages)
    assert waited_s > 0.99
    assert bare(first["data"]["utterance"]["text"]) == ["ever", "tried"]
    assert [bare(each["text"]) for each in socket.utterances] == [["ever", "tried"]] * 2
    second = socket.utterances[1]
    whole = await transcribe(
        server, [pcm(np.concatenate([voice, silence(0.3)])), pcm(later[round(0.3 * SAMPLE_RATE) :])]
    )
    assert second["start"] == pytest.approx(whole.utterances[-1]["start"], abs=0.1)
    assert second["end"] == pytest.approx(whole.utterances[-1]["end"], abs=0.1)
    assert server.result(socket.session_id)["result"]["metadata"]["audio_duration"] == pytest.approx(
        (len(voice) + len(later)) / SAMPLE_RATE, abs=0.001
    )


async def test_a_stall_waits_for_a_longer_endpointing(server):
    """A socket that falls silent is given as long as `endpointing`, if that is more than a second."""
    async with connected(open_session(server, endpointing=2.0)) as socket:
        began_at = time.monotonic()
        await socket.send(*pieces(pcm(phrase()[: round(1.1 * SAMPLE_RATE)]), CHUNK))
        await socket.until(is_final)
        assert time.monotonic() - began_at > 1.99


async def test_audio_that_goes_on_slowly_is_not_cut(server):
    """A phrase delivered at half speed, with pauses of 0.4 s between its chunks, is one utterance."""
    data = pcm(np.concatenate([phrase(), silence(0.4)]))
    async with connected(open_session(server, endpointing=0.3)) as socket:
        await socket.play(data, 2 * SAMPLE_RATE, speed=0.5, chunk=6400)
        await socket.send(STOP)
        assert await socket.ended() == 1000

    assert [bare(each["text"]) for each in socket.utterances] == [["ever", "tried"]]
