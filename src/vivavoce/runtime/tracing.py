"""One OpenTelemetry span for each utterance, where that is installed and switched on; otherwise nothing at all.

A span reaches from the request for a final until its transcript is there. It names session, channel and utterance, and
never what was said. Where the host program has set up OpenTelemetry (as `opentelemetry-instrument` does), that is used;
otherwise spans go to the OTLP endpoint that the usual `OTEL_*` variables name.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vivavoce.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vivavoce.runtime.decode import Request

_tracer: Any = None


def enable() -> Callable[[], None]:
    """Begin to trace, and give a function that sends what is left; raises `SetupError` without `vivavoce[otel]`."""
    global _tracer  # noqa: PLW0603 - one process, one tracer
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(_provider())
    except ImportError as error:
        raise SetupError("--otel needs OpenTelemetry; install it with: pip install 'vivavoce[otel]'") from error
    _tracer = trace.get_tracer("vivavoce")
    shut_down: Callable[[], None] = getattr(trace.get_tracer_provider(), "shutdown", lambda: None)
    return shut_down


def _provider() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": "vivavoce"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def utterance(session_id: str, utterance_id: str, channel: int, request: Request, *, failed: bool) -> None:
    """Record that a final's transcript is there, or that there is none."""
    if _tracer is None:
        return
    ended = time.time_ns()
    attributes = {
        "vivavoce.session": session_id,
        "vivavoce.utterance": utterance_id,
        "vivavoce.channel": channel,
        "vivavoce.speech_seconds": request.clip.duration_s,
        "vivavoce.failed": failed,
    }
    started = ended - round((time.monotonic() - request.asked_at) * 1e9)
    _tracer.start_span("utterance", attributes=attributes, start_time=started).end(end_time=ended)
