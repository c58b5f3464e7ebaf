"""Spans of utterances, with OpenTelemetry itself and its exporter in memory."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from vivavoce.errors import SetupError
from vivavoce.model import Clip
from vivavoce.runtime import tracing
from vivavoce.runtime.decode import Request


@pytest.fixture(autouse=True)
def untraced(monkeypatch):
    """Leave the process as it was."""
    monkeypatch.setattr(tracing, "_tracer", None)


def final() -> Request:
    return Request(clip=Clip(key="s/00_1", samples=np.zeros(16_000, np.float32), final=True), answer=lambda *_: None)


def test_a_span_tells_which_utterance_and_how_long(monkeypatch):
    """From the request to the answer, with the session's id and without a word of what was said."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry import trace as api  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415

    kept = InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(api, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(api, "get_tracer", provider.get_tracer)
    tracing.enable()
    tracing.utterance("s", "00_1", 0, final(), failed=False)
    (span,) = kept.get_finished_spans()
    assert span.name == "utterance"
    assert 0 <= span.end_time - span.start_time < 60e9
    assert dict(span.attributes) == {
        "vivavoce.session": "s",
        "vivavoce.utterance": "00_1",
        "vivavoce.channel": 0,
        "vivavoce.speech_seconds": 1.0,
        "vivavoce.failed": False,
    }


def test_without_the_setting_nothing_is_traced():
    """And nothing is needed for that."""
    tracing.utterance("s", "00_1", 0, final(), failed=False)


def test_the_setting_without_the_extra_is_one_clear_line(monkeypatch):
    """It says how to get it."""
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.startswith("opentelemetry"):
                raise ImportError(name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(SetupError, match=r"vivavoce\[otel\]"):
        tracing.enable()
