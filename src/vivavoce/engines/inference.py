"""How the included models run: on onnxruntime, on the CPU, and without its telemetry."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

# The wheel carries a telemetry library; nothing leaves this machine.
onnxruntime.disable_telemetry_events()


def load(model: Path | bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Load a model that computes each call on `threads`; failures are onnxruntime's own exceptions, and not logged."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
