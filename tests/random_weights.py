"""Random weights for the parts that CTranslate2's encoders and decoders are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Weights:
    """Fills in parts that are `size` wide, `inner` between the two layers of a feed-forward."""

    random: np.random.Generator
    size: int
    inner: int
    spread: float

    def of(self, *shape: int) -> np.ndarray:
        """Give weights of a shape."""
        return self.random.normal(0, self.spread, shape).astype(np.float32)

    def norm(self, part: Any) -> None:
        """Fill in a norm that changes nothing."""
        part.gamma, part.beta = np.ones(self.size, np.float32), np.zeros(self.size, np.float32)

    def linear(self, part: Any, outer: int, inner: int) -> None:
        """Fill in a linear layer from `inner` to `outer`."""
        part.weight, part.bias = self.of(outer, inner), np.zeros(outer, np.float32)

    def attention(self, part: Any, sizes: Sequence[int]) -> None:
        """Fill in an attention whose linear layers give these sizes."""
        self.norm(part.layer_norm)
        for layer, outer in zip(part.linear, sizes, strict=True):
            self.linear(layer, outer, self.size)

    def forward(self, part: Any) -> None:
        """Fill in a feed-forward."""
        self.norm(part.layer_norm)
        self.linear(part.linear_0, self.inner, self.size)
        self.linear(part.linear_1, self.size, self.inner)
