"""What a fused log-likelihood is asked: the kind of distribution, and its tensors.

Letters for shapes: B cells, G genes, R rows of a table.
"""

import math
from typing import NamedTuple

from torch import Tensor


class Kind(NamedTuple):
    """How logits become a distribution of counts."""

    mean: str = "softmax"
    """``softmax``: share of the library size; ``exponential``: e^logit, clipped, times the size."""
    theta: str = "log"
    """``none`` (Poisson); ``log``, ``clamped``: log theta as it is, or clamped to the bounds;
    ``softplus``: theta is a softplus, clamped to the bounds."""
    zero_inflated: bool = False
    lowest: float = -9.2
    highest: float = 13.8


class Terms(NamedTuple):
    """The tensors of a fused log-likelihood. Logits are float32 or bfloat16, biases float32."""

    log_library: Tensor  # (B,) float32; the log size factor where means are exponential
    logits: Tensor  # (B, G), without the bias
    bias: Tensor | None = None  # (G,)
    theta: Tensor | None = None  # (G,) of all cells, (R, G), or (B, G)
    theta_bias: Tensor | None = None  # (G,), beside (B, G)
    theta_row: Tensor | None = None  # (B,) int64: the row of each cell, beside (R, G)
    pi: Tensor | None = None  # (B, G), logits of the extra zeros
    pi_bias: Tensor | None = None  # (G,)


LOG_MEAN = (math.log(1e-5), math.log(1e6))
"""Bounds of the log mean before the size factor, where means are exponential."""
