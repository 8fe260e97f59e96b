"""The two heavy ends of a training step: counts to the input, and logits to log p(x).

Both choose by the device: Triton kernels on a GPU, plain torch elsewhere. Everything between them
is the model as it is written.

Letters for shapes: B cells of a minibatch, G genes.
"""

import torch
from torch import Tensor

from sclatent.kernels.cuda import plain
from sclatent.kernels.cuda.kinds import Kind, Terms
from sclatent.kernels.cuda.rows import DeviceRows, Gathered, Standard


def gather(
    source: DeviceRows, rows: Tensor, standard: Standard | None = None, dtype=torch.float32
) -> Gathered:
    """Return the counts of some cells as matrices, with the inputs of a network.

    Parameters
    ----------
    source
        All cells.
    rows
        The cells of the minibatch, (B,) int64.
    standard
        Divides by the size factor and standardises gene by gene, as DCA wants it.
    dtype
        Of the inputs.
    """
    if not rows.is_cuda:
        return plain.gather(source, rows, standard, dtype)
    from sclatent.kernels.cuda.gather import gather as on_device

    return on_device(source, rows, standard, dtype)


def log_likelihood(kind: Kind, counts: Tensor, terms: Terms) -> Tensor:
    """Return log p(x) of each cell in nats, (B,) float32, differentiable in the terms.

    Parameters
    ----------
    kind
        Of distribution.
    counts
        (B, G), as `gather` gives them.
    terms
        Logits and what goes with them.
    """
    if not counts.is_cuda:
        return plain.log_likelihood(kind, counts, terms)
    return FusedLogLikelihood.apply(kind, counts, *terms)


class FusedLogLikelihood(torch.autograd.Function):
    """log p(x) by the Triton kernels."""

    @staticmethod
    def forward(ctx, kind: Kind, counts: Tensor, *terms) -> Tensor:
        """Return log p(x), (B,)."""
        from sclatent.kernels.cuda import likelihood

        log_p, *known = likelihood.values(kind, counts, Terms(*terms))
        ctx.kind = kind
        ctx.save_for_backward(counts, *known, *terms)
        return log_p

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        """Return the gradients of the terms."""
        from sclatent.kernels.cuda import likelihood

        counts, shift, total, *terms = ctx.saved_tensors
        known = (gradient.contiguous(), shift, total)
        return None, None, *likelihood.gradients(ctx.kind, counts, Terms(*terms), known)
