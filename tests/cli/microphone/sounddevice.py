"""A microphone that hears a recording, for machines without one: what `vivavoce listen` uses of sounddevice."""

from __future__ import annotations

import os
import threading
import time
import wave


class PortAudioError(Exception):
    """What PortAudio refuses."""


def rate():
    with wave.open(os.environ["MICROPHONE"]) as file:
        return file.getframerate()


def query_devices(device=None, kind=None):
    speaker = {"index": 0, "name": "Loudspeaker", "max_input_channels": 0, "default_samplerate": 48_000.0}
    microphone = {"index": 1, "name": "Recording", "max_input_channels": 1, "default_samplerate": float(rate())}
    if kind == "input" and device not in (None, 1):
        raise PortAudioError(f"no device {device}")
    return [speaker, microphone] if kind is None else microphone


def check_input_settings(*, device, channels, dtype, samplerate):
    if device not in (None, 1):
        raise PortAudioError(f"no device {device}")
    assert (channels, dtype) == (1, "int16")
    if samplerate != rate():
        raise PortAudioError("Invalid sample rate")


class RawInputStream:
    """Plays the file named by MICROPHONE in real time, then silence."""

    def __init__(self, *, samplerate, channels, dtype, device, blocksize, callback):
        check_input_settings(device=device, channels=channels, dtype=dtype, samplerate=samplerate)
        self._block_s = blocksize / samplerate
        self._blocksize = blocksize
        self._callback = callback
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _play(self):
        due = time.monotonic()
        with wave.open(os.environ["MICROPHONE"]) as file:
            while not self._over.is_set():
                data = file.readframes(self._blocksize).ljust(self._blocksize * 2, b"\0")
                due += self._block_s
                self._over.wait(max(0.0, due - time.monotonic()))
                self._callback(data, self._blocksize, None, None)
