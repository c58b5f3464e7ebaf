"""What redaction hid is silenced in the stored audio, and nothing else is touched."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vivavoce.events import Final, Partial, UtteranceExamined
from vivavoce.model import AudioFormat, Feature, Finding, Utterance
from vivavoce.runtime.silencing import Span, findings_in, hidden_spans, silence
from vivavoce.speech.audio import AudioDecoder
from vivavoce.stores.objects import LocalAudio

FORMATS = [
    AudioFormat(sample_rate=8000, bit_depth=8),
    AudioFormat(sample_rate=16_000, bit_depth=16, channels=2),
    AudioFormat(sample_rate=8000, bit_depth=24, channels=3),
    AudioFormat(sample_rate=8000, bit_depth=32),
    AudioFormat(encoding="alaw", sample_rate=8000),
    AudioFormat(encoding="ulaw", sample_rate=8000, channels=2),
]


def final(name: str, channel: int, *hidden: tuple[float, float]) -> Final:
    utterance = Utterance(id=name, channel=channel, start=0.0, end=9.0, confidence=1.0, language="en", words=())
    return Final(utterance=utterance, hidden=hidden)


@pytest.mark.parametrize("audio", FORMATS, ids=lambda audio: f"{audio.encoding}-{audio.bit_depth}-{audio.channels}")
def test_silence_is_silent_in_every_format(audio):
    """What the decoder hears of a silent sample is nothing, but for the smallest step of A-law."""
    decoded = AudioDecoder(audio)
    heard = np.concatenate([decoded.feed(audio.silent_sample * audio.channels * 8000), decoded.flush()], axis=1)
    assert heard.size
    assert np.abs(heard).max() < 0.0005


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_only_the_spans_of_their_channels_are_changed(tmp_path, data):
    """Every byte outside stays, header and other channels included; every sample inside is silent; twice is once."""
    audio = data.draw(st.sampled_from(FORMATS))
    frames, header = data.draw(st.integers(0, 20_000)), data.draw(st.sampled_from([0, 44]))
    spans = data.draw(
        st.lists(
            st.builds(
                lambda channel, start, length: Span(channel=channel, start=start, end=start + length),
                st.integers(0, audio.channels - 1),
                st.floats(-0.5, 2.5),
                st.floats(0, 1.5),
            ),
            max_size=4,
        )
    )
    session_id, files = str(uuid4()), LocalAudio(tmp_path / "audio")
    before = bytes(i * 7 % 251 for i in range(header + frames * audio.frame_bytes))
    files.append(session_id, before)
    silence(files, session_id, audio, header, spans)
    after = files.read(session_id, 0, 1 << 30)
    silence(files, session_id, audio, header, spans)
    assert files.read(session_id, 0, 1 << 30) == after
    assert after[:header] == before[:header]
    old, new = (
        np.frombuffer(text[header:], np.uint8).reshape(-1, audio.channels, audio.sample_bytes)
        for text in (before, after)
    )
    hidden = np.zeros((frames, audio.channels), bool)
    for span in spans:
        first = max(int(np.floor(span.start * audio.sample_rate)), 0)
        last = max(int(np.ceil(span.end * audio.sample_rate)), 0)
        hidden[first:last, span.channel] = True
    assert (new[~hidden] == old[~hidden]).all()
    assert (new[hidden] == np.frombuffer(audio.silent_sample, np.uint8)).all()


def test_spans_survive_as_findings_without_text():
    """What a final hides comes back with the final's channel; other events and findings hide nothing."""
    one, other, plain = final("a", 2, (1.0, 2.5), (4.0, 4.5)), final("b", 0, (3.0, 3.5)), final("c", 1)
    stored = [
        *findings_in(one),
        *findings_in(other),
        *findings_in(plain),
        *findings_in(Partial(utterance=one.utterance)),
    ]
    assert [entity.text for finding in stored for entity in finding.found] == ["", "", ""]
    judged = Finding(feature=Feature.SENTIMENT_ANALYSIS, utterance_id="a", found=())
    assert findings_in(UtteranceExamined(utterance=one.utterance, finding=judged)) == (judged,)
    finals = [each.utterance for each in (one, other, plain)]
    assert hidden_spans(finals, [*stored, judged]) == [
        Span(channel=2, start=1.0, end=2.5),
        Span(channel=2, start=4.0, end=4.5),
        Span(channel=0, start=3.0, end=3.5),
    ]
