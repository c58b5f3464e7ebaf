"""Print word error rates through the live socket beside the same weights given each file whole.

    python scripts/word_error_rate.py [MANIFEST]

MANIFEST is a JSON list of {"file": ..., "transcript": ...} with files beside it; without one, the recordings inside the
moonshine-voice wheel are measured. Each file goes at wire speed through a server started for the purpose, at 16 kHz and
as 8 kHz µ-law, and whole through moonshine-voice's own Transcriber. Files whose transcript is a list (one per channel)
are left out.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from gladiaio_sdk import GladiaClient
from moonshine_voice import ModelArch, Transcriber, get_assets_path

from vivavoce.bench.words import errors, words
from vivavoce.cli.embedded import embedded_server

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from recordings import TRANSCRIPTS, recording_path

DEFAULTS: dict[str, Any] = {}
PHRASES: dict[str, Any] = {"endpointing": 0.5, "maximum_duration_without_endpointing": 15}
WIDE: dict[str, Any] = {"sample_rate": 16000}
PHONE: dict[str, Any] = {"sample_rate": 8000, "encoding": "wav/ulaw", "bit_depth": 8}


def references(manifest: str | None) -> Iterator[tuple[Path, str]]:
    """Give each recording with what is said in it."""
    if manifest is None:
        yield from ((recording_path(name), text) for name, text in TRANSCRIPTS.items())
        return
    for entry in json.loads(Path(manifest).read_text(encoding="utf-8")):
        if isinstance(entry["transcript"], str):
            yield Path(manifest).parent / entry["file"], entry["transcript"]


def audio(path: Path, rate: int, codec: str = "pcm_s16le") -> bytes:
    """Give a recording as mono samples at a rate, encoded."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    with av.open(str(path)) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray().ravel() for frame in [*frames, *resampler.resample(None)]])
    if codec == "pcm_s16le":
        return samples.tobytes()
    encoder = av.CodecContext.create(codec, "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
    frame.sample_rate = rate
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def live(url: str, options: dict[str, Any], data: bytes) -> str:
    """Give the text of a whole session."""
    client = GladiaClient(api_key="none", api_url=url).live_v2()
    session = client.start_session(options)
    ended = threading.Event()
    session.on("ended", lambda _: ended.set())
    for start in range(0, len(data), 3200):
        session.send_audio(data[start : start + 3200])
    session.stop_recording()
    if not ended.wait(300):
        sys.exit("the session did not end")
    result = client.get(str(session.session_id)).result
    assert result is not None
    assert result.transcription is not None
    return result.transcription.full_transcript


def main() -> None:
    """Measure and print a table."""
    recordings = list(references(sys.argv[1] if len(sys.argv) > 1 else None))
    whole = Transcriber(str(Path(get_assets_path()) / "tiny-en"), ModelArch.TINY)
    settings = {
        "live, endpointing 0.5, maximum 15": PHRASES,
        "live, all defaults": DEFAULTS,
    }
    print(f"{'':40}{'16 kHz':>18}{'8 kHz µ-law':>18}")
    with embedded_server() as url:
        rows: dict[str, list[tuple[int, int]]] = {}
        for path, reference in recordings:
            wide, phone = audio(path, 16000), audio(path, 8000, "pcm_mulaw")
            heard = {
                name: (live(url, options | WIDE, wide), live(url, options | PHONE, phone))
                for name, options in settings.items()
            }
            samples = (np.frombuffer(wide, "<i2") / 32768).tolist()
            lines = whole.transcribe_without_streaming(samples, 16000).lines
            heard["the whole file, moonshine-voice"] = (" ".join(line.text for line in lines), "")
            for name, texts in heard.items():
                rows.setdefault(name, []).extend(
                    (errors(words(reference), words(text)), len(words(reference))) for text in texts
                )
    for name, counts in rows.items():
        cells = [_cell(counts[column::2]) for column in (0, 1)]
        print(f"{name:40}{cells[0]:>18}{'' if name.startswith('the whole') else cells[1]:>18}")


def _cell(counts: list[tuple[int, int]]) -> str:
    errors, total = (sum(column) for column in zip(*counts, strict=True))
    return f"{errors}/{total} = {100 * errors / total:.1f} %"


if __name__ == "__main__":
    main()
