"""WAV headers: ours are read by others, theirs are found whatever stands in them and however they arrive."""

import io
import wave
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recordings import recording_path
from vivavoce.model import AudioFormat
from vivavoce.wire.wav import MAX_HEADER_BYTES, audio_start, header_mismatch, wav_header

FORMATS = [
    AudioFormat(encoding="pcm", bit_depth=8, sample_rate=8000, channels=1),
    AudioFormat(encoding="pcm", bit_depth=16, sample_rate=16000, channels=1),
    AudioFormat(encoding="pcm", bit_depth=24, sample_rate=44100, channels=2),
    AudioFormat(encoding="pcm", bit_depth=32, sample_rate=48000, channels=8),
    AudioFormat(encoding="alaw", bit_depth=16, sample_rate=8000, channels=1),
    AudioFormat(encoding="ulaw", bit_depth=8, sample_rate=8000, channels=2),
]
LAW_CODECS = {"alaw": "pcm_alaw", "ulaw": "pcm_mulaw"}

formats = st.builds(
    AudioFormat,
    encoding=st.sampled_from(["pcm", "alaw", "ulaw"]),
    bit_depth=st.sampled_from([8, 16, 24, 32]),
    sample_rate=st.integers(8000, 48000),
    channels=st.integers(1, 8),
)


def chunk(name, content):
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def ramp(audio, frames):
    return bytes(i % 251 for i in range(frames * audio.frame_bytes))


@pytest.mark.parametrize("audio", [audio for audio in FORMATS if audio.encoding == "pcm"])
def test_the_standard_library_reads_our_pcm_files(audio):
    """Header plus samples is a WAV file with the announced parameters and exactly those samples."""
    samples = ramp(audio, 100)
    with wave.open(io.BytesIO(wav_header(audio, len(samples)) + samples)) as file:
        assert file.getparams()[:4] == (audio.channels, audio.bit_depth // 8, audio.sample_rate, 100)
        assert file.readframes(1000) == samples


@pytest.mark.parametrize("audio", FORMATS)
def test_ffmpeg_reads_our_files_of_every_encoding(audio):
    """FFmpeg finds the right codec, rate, channels and number of samples; A-law and µ-law carry their own tags."""
    samples = ramp(audio, 400)
    with av.open(io.BytesIO(wav_header(audio, len(samples)) + samples), format="wav") as container:
        stream = container.streams.audio[0]
        if audio.encoding != "pcm":
            assert stream.codec_context.name == LAW_CODECS[audio.encoding]
        assert stream.codec_context.sample_rate == audio.sample_rate
        assert stream.codec_context.channels == audio.channels
        assert sum(frame.samples for frame in container.decode(stream)) == 400


def test_only_compressed_encodings_have_an_extension_and_a_fact_chunk():
    """PCM keeps the 44 bytes every reader knows; the others add what the format asks of them."""
    pcm, ulaw = FORMATS[1], FORMATS[5]
    assert len(wav_header(pcm, 10)) == 44
    head = wav_header(ulaw, 600)
    assert head[12:20] == b"fmt \x12\x00\x00\x00"
    assert head[36:38] == b"\x00\x00"
    assert head[38:50] == b"fact" + (4).to_bytes(4, "little") + (300).to_bytes(4, "little")


@pytest.mark.parametrize("size", [2**32 - 37, 2**32 - 1, 2**32, 40 * 2**30])
def test_beyond_4_gib_both_sizes_say_until_the_end(size):
    """Where one size passes 32 bits, both are the largest number, and the file still begins with RIFF."""
    head = wav_header(FORMATS[3], size)
    assert head[:4] == b"RIFF"
    assert head[4:8] == head[40:44] == b"\xff\xff\xff\xff"


def test_just_below_4_gib_both_sizes_are_exact():
    """The largest file whose sizes fit states them."""
    head = wav_header(FORMATS[3], 2**32 - 38)
    assert int.from_bytes(head[4:8], "little") == 2**32 - 2
    assert int.from_bytes(head[40:44], "little") == 2**32 - 38


@given(audio=formats, size=st.integers(0, 2**40))
def test_our_own_headers_are_found_and_agree(audio, size):
    """What we write before stored audio is recognised when it comes back as a stream."""
    head = wav_header(audio, size)
    assert audio_start(head) == len(head)
    assert audio_start(head + b"\x01\x02") == len(head)
    assert header_mismatch(head, audio) is None


def test_a_real_recording_starts_where_its_samples_do():
    """The offset in a real WAV file leaves exactly the bytes that another reader gives as its samples."""
    path = recording_path("beckett")
    with wave.open(str(path)) as file:
        samples, parameters = file.readframes(file.getnframes()), file.getparams()
    content = path.read_bytes()
    start = audio_start(content)
    assert content[start : start + len(samples)] == samples
    announced = AudioFormat(
        bit_depth=parameters.sampwidth * 8, sample_rate=parameters.framerate, channels=parameters.nchannels
    )
    assert header_mismatch(content, announced) is None


@pytest.mark.parametrize(
    ("codec", "encoding", "bits"),
    [
        ("pcm_s16le", "pcm", 16),
        ("pcm_s24le", "pcm", 24),
        ("pcm_s32le", "pcm", 32),
        ("pcm_u8", "pcm", 8),
        ("pcm_alaw", "alaw", 16),
        ("pcm_mulaw", "ulaw", 16),
    ],
)
def test_headers_as_ffmpeg_writes_them_are_found_and_agree(codec, encoding, bits):
    """FFmpeg's files, with their LIST chunk and extensible headers, start at their samples and match their format."""
    target = io.BytesIO()
    with av.open(target, "w", format="wav") as container:
        container.metadata["title"] = "odd"
        stream = container.add_stream(codec, rate=16000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 16000
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="stereo", rate=16000)
        for piece in [*resampler.resample(frame), None]:
            container.mux(stream.encode(piece))
    content = target.getvalue()
    audio = AudioFormat(encoding=encoding, bit_depth=bits, sample_rate=16000, channels=2)
    assert b"LIST" in content[: audio_start(content)]
    assert len(content) - audio_start(content) == 800 * audio.frame_bytes
    assert header_mismatch(content, audio) is None


@pytest.mark.parametrize("form", [b"RIFF", b"RF64", b"BW64"])
def test_chunks_before_the_samples_are_stepped_over(form):
    """Odd-sized chunks are padded, unknown ones skipped, and a size nobody knew is no obstacle."""
    head = form + b"\xff" * 4 + b"WAVE" + chunk(b"JUNK", b"abc") + wav_header(FORMATS[1], 0)[12:36]
    head += chunk(b"bext", bytes(602)) + chunk(b"LIST", b"data....") + b"data" + b"\xff" * 4
    assert audio_start(head + b"samples") == len(head)
    assert header_mismatch(head, FORMATS[1]) is None


@pytest.mark.parametrize(
    "stream",
    [b"\x00", b"RI\x00", b"RIFFs are music", b"RIFF\x00\x00\x00\x00AVI LIST", b"riff\x00\x00\x00\x00WAVE", b"fLaC"],
)
def test_bare_samples_start_at_once(stream):
    """Whatever does not begin like a WAV file is samples from its first byte."""
    assert audio_start(stream) == 0
    assert header_mismatch(stream, FORMATS[0]) is None


@pytest.mark.parametrize("head", [b"", b"R", b"RIFF", b"RIFF\x00\x00\x00", b"RIFF\x24\x00\x00\x00WAV"])
def test_an_undecided_head_asks_for_more(head):
    """While the bytes so far could begin a header, nothing is decided."""
    assert audio_start(head) is None


def test_a_header_without_end_is_given_up():
    """The longest header that is waited for ends at the limit; one byte more and the stream is samples."""
    fixed = len(b"RIFF....WAVE") + len(b"JUNK....") + len(b"data....")

    def stream(padding):
        return b"RIFF\x00\x00\x00\x00WAVE" + chunk(b"JUNK", bytes(padding)) + b"data\x00\x00\x00\x00"

    longest = stream(MAX_HEADER_BYTES - fixed)
    assert audio_start(longest) == len(longest) == MAX_HEADER_BYTES
    assert audio_start(longest[:-1]) is None
    assert audio_start(stream(MAX_HEADER_BYTES - fixed + 2)) == 0
    assert audio_start(stream(MAX_HEADER_BYTES - fixed + 2)[:20]) == 0
    assert audio_start(b"RIFF\x00\x00\x00\x00WAVE" + chunk(b"note", b"") * 10_000) == 0


names = st.sampled_from([b"fmt ", b"LIST", b"JUNK", b"data", b"fact"])
chunks = st.builds(
    lambda name, content, size: name + (len(content) if size is None else size).to_bytes(4, "little") + content,
    names,
    st.binary(max_size=40),
    st.none() | st.integers(0, 2**32 - 1) | st.integers(MAX_HEADER_BYTES - 60, MAX_HEADER_BYTES + 60),
)
heads = st.builds(
    lambda form, kind, parts, rest: form + bytes(4) + kind + b"".join(parts) + rest,
    st.sampled_from([b"RIFF", b"RF64", b"RIFX", b"RIFE"]),
    st.sampled_from([b"WAVE", b"WAVS"]),
    st.lists(chunks, max_size=6),
    st.binary(max_size=8),
)


@given(head=heads | st.binary(max_size=30), audio=formats)
def test_every_split_of_a_stream_gives_one_answer(head, audio):
    """Growing prefixes answer "more" until they decide, and then never change their mind; nothing raises."""
    answers = [audio_start(head[:size]) for size in range(len(head) + 1)]
    for earlier, later in pairwise(answers):
        assert earlier is None or earlier == later
    assert answers[-1] is None or answers[-1] <= len(head)
    assert header_mismatch(head, audio) is None or answers[-1]


@given(header=formats, announced=formats)
def test_a_header_that_differs_is_described(header, announced):
    """Agreement is silent; any difference names both formats."""
    same = (header.encoding, header.sample_bytes, header.sample_rate, header.channels) == (
        announced.encoding,
        announced.sample_bytes,
        announced.sample_rate,
        announced.channels,
    )
    said = header_mismatch(wav_header(header, 0), announced)
    assert (said is None) == same
    if said:
        assert f"{header.sample_rate} Hz" in said
        assert f"{announced.sample_rate} Hz" in said


SESSION = "the session was opened for 16 bit PCM at 16000 Hz in 1 channel"


def tagged(tag):
    return wav_header(FORMATS[1], 0).replace(b"\x01\x00\x01\x00", tag + b"\x01\x00")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (wav_header(FORMATS[2], 0), f"the WAV header announces 24 bit PCM at 44100 Hz in 2 channels; {SESSION}"),
        (tagged(b"\x03\x00"), f"the WAV header announces floating-point PCM at 16000 Hz in 1 channel; {SESSION}"),
        (tagged(b"\x11\x00"), f"the WAV header announces coding 0x0011 at 16000 Hz in 1 channel; {SESSION}"),
        (
            b"RIFX\x00\x00\x00\x00WAVEdata\x00\x00\x00\x00",
            "the WAV header announces big-endian samples; send little-endian ones",
        ),
        (
            b"RIFF\x00\x00\x00\x00WAVE" + chunk(b"fmt ", b"\x01\x00") + b"data\x00\x00\x00\x00",
            "the WAV header does not say what its samples are: its fmt chunk is missing or cut short",
        ),
    ],
)
def test_mismatches_read_well(head, said):
    """The sentences a client gets to see."""
    assert header_mismatch(head, FORMATS[1]) == said


def test_an_extensible_header_is_read_through_its_sub_format():
    """Writers of many channels use the extensible tag; what counts is the coding inside."""
    guid_tail = bytes.fromhex("000000001000800000aa00389b71")
    fmt = wav_header(FORMATS[3], 0)[20:36].replace(b"\x01\x00", b"\xfe\xff", 1)
    extension = b"\x16\x00" + b"\x20\x00" + b"\xff\x00\x00\x00" + b"\x01\x00" + guid_tail
    head = b"RIFF\x00\x00\x00\x00WAVE" + chunk(b"fmt ", fmt + extension) + b"data\x00\x00\x00\x00"
    assert header_mismatch(head, FORMATS[3]) is None
