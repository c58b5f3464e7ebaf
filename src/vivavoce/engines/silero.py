"""Voice activity by Silero v6, whose weights lie in the faster-whisper wheel.

Digital silence, one value over and over, is what a muted line sends for hours. Its first `_HEARD_SILENCE` frames are
heard like all others; those after them are no speech without being heard, and what follows them begins anew.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vivavoce.engines import inference
from vivavoce.errors import PluginError, SetupError

_FRAME = 512
_CONTEXT = 64
_HIDDEN = (1, 1, 128)
_HEARD_SILENCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SileroState:
    """A channel's place in the stream: the two recurrent states, the tail of the frame before, and how many frames of
    digital silence came last, `_HEARD_SILENCE` for more.
    """

    h: NDArray[np.float32]
    c: NDArray[np.float32]
    context: NDArray[np.float32]
    silence: int = 0


class SileroVad:
    """Give the probability of speech in each 32 ms; implements `plugins.Vad` and may be called from several threads."""

    frame: int = _FRAME

    def __init__(self) -> None:
        try:
            # One frame is too little work to share between threads.
            self._session = inference.load(_weights())
        except Exception as error:
            raise SetupError(f"onnxruntime cannot load the Silero model at {_weights()}") from error

    def open(self) -> SileroState:
        """Give the state before a channel's first frame."""
        return SileroState(
            h=np.zeros(_HIDDEN, np.float32), c=np.zeros(_HIDDEN, np.float32), context=np.zeros(_CONTEXT, np.float32)
        )

    def probabilities(self, frames: NDArray[np.float32], state: SileroState) -> tuple[NDArray[np.float32], SileroState]:
        """Give the probability of speech in each of `frames` `[n, 512]`, in order, and the state after them.

        Any split of the same frames into calls gives the same probabilities, bit for bit. `state` is left as it was.
        """
        found = [np.zeros(0, np.float32)]
        at = 0
        silent = frames.min(1, initial=np.inf) == frames.max(1, initial=-np.inf)
        while at < len(frames):
            same = silent[at:] == silent[at]
            size = len(same) if same.all() else int(same.argmin())
            run, at = frames[at : at + size], at + size
            heard = run[: _HEARD_SILENCE - state.silence] if silent[at - 1] else run
            if len(heard):
                speech, state = self._hear(heard, state)
                state = replace(state, silence=state.silence + len(heard) if silent[at - 1] else 0)
                found.append(speech)
            if len(heard) < size:
                state = replace(self.open(), silence=_HEARD_SILENCE)
                found.append(np.zeros(size - len(heard), np.float32))
        return np.concatenate(found), state

    def _hear(self, frames: NDArray[np.float32], state: SileroState) -> tuple[NDArray[np.float32], SileroState]:
        tails = frames[:, -_CONTEXT:]
        contexts = np.concatenate([state.context[None], tails[:-1]])
        inputs = np.concatenate([contexts, frames], axis=1, dtype=np.float32)
        try:
            speech, h, c = self._session.run(
                ["speech_probs", "hn", "cn"], {"input": inputs, "h": state.h, "c": state.c}
            )
        except Exception as error:
            raise PluginError("the voice activity model failed") from error
        return speech.reshape(-1), replace(state, h=h, c=c, context=tails[-1].copy())

    def save(self, state: SileroState) -> str:
        """Write a state as text."""
        numbers = [state.h.ravel(), state.c.ravel(), state.context, np.array([state.silence], np.float32)]
        return b64encode(np.concatenate(numbers).tobytes()).decode()

    def load(self, saved: str) -> SileroState:
        """Give back the state that `save` wrote."""
        ends = np.cumsum([_HIDDEN[2], _HIDDEN[2], _CONTEXT])
        h, c, context, silence = np.split(np.frombuffer(b64decode(saved), np.float32), ends)
        # States of older versions end before the count.
        return SileroState(h=h.reshape(_HIDDEN), c=c.reshape(_HIDDEN), context=context, silence=int(silence.sum()))


def _weights() -> Path:
    """Find the model without importing faster-whisper, which would load CTranslate2."""
    spec = find_spec("faster_whisper")
    if spec is None or spec.origin is None:
        raise SetupError("voice activity needs the package faster-whisper; pip install 'faster-whisper>=1.2.1,<2'")
    weights = Path(spec.origin).parent / "assets" / "silero_vad_v6.onnx"
    if not weights.is_file():
        raise SetupError(f"this faster-whisper has no {weights.name}; pip install 'faster-whisper>=1.2.1,<2'")
    return weights
