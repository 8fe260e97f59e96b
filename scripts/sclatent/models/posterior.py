"""What every trained model answers about a cell: latent states, expression, likelihood.

A model has

- ``latent(minibatch)``, the mean latent state (B, L);
- ``draw(minibatch) -> Draw``, a sample of the latent variables and what the counts follow then;
- ``decode(minibatch, z, log_library)``, the distribution of the counts given latent variables.

Nothing here enters a hypothesis test: denoised and predicted counts are for looking.

Letters for shapes: B cells of a minibatch, G genes, L latent dimensions, K samples.
"""

from typing import NamedTuple

from torch import Tensor


class Draw(NamedTuple):
    """A sample of the latent variables of some cells."""

    z: Tensor  # (B, L)
    log_library: Tensor  # (B, 1)
    counts: NamedTuple  # p(x | z, l): a distribution with log_prob, mean and sample
    log_ratio: Tensor  # log p(z, l) - log q(z, l | x), (B,)
