"""Gladia's v2 live protocol as the runtime needs it (`runtime.parts.Wire`)."""

from vivavoce.wire.callback import callback, webhook
from vivavoce.wire.live import render
from vivavoce.wire.schema import options_of
from vivavoce.wire.wav import audio_start, header_mismatch

__all__ = ["audio_start", "callback", "header_mismatch", "options_of", "render", "webhook"]
