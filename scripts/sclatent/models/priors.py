"""What the latent state is drawn from: p(z).

Every prior has `log_prob(z, encode)`, of each cell in nats, and `draw(mean, variance, encode)`: a
sample of q(z|x) with KL(q(z|x) || p(z)) of each cell. `encode` is the encoder q(z|x) as a function
of its input; only the VampPrior looks at it.

Letters for shapes: B cells, G genes, L latent dimensions, K components, C covariate columns.
"""

import numpy as np
import torch
from torch import Tensor, nn

from sclatent.models.networks import draw, log_normal, sample


class StandardNormal(nn.Module):
    """p(z) = Normal(0, I)."""

    def log_prob(self, z: Tensor, encode=None) -> Tensor:
        """Return log p(z), (B,), for z (B, L)."""
        return log_normal(z, z.new_zeros(()), z.new_ones(()))

    def draw(self, mean: Tensor, variance: Tensor, encode=None) -> tuple[Tensor, Tensor]:
        """Return a sample of q(z|x), (B, L), and KL(q(z|x) || p(z)) in closed form, (B,)."""
        return draw(mean, variance)


class Mixture(nn.Module):
    """p(z) = sum_k pi_k Normal(mu_k, diag(variance_k)).

    The components come from `components(encode)`. The KL term has no closed form and is estimated
    with the one sample of z that the reconstruction uses too.
    """

    def __init__(self, n_components: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_components))

    def log_prob(self, z: Tensor, encode=None) -> Tensor:
        """Return log p(z), (B,), for z (B, L): the sum is over components of whole densities."""
        mean, variance = self.components(encode)  # (K, L) each
        log_p = log_normal(z.unsqueeze(1), mean, variance)  # (B, K)
        return torch.logsumexp(torch.log_softmax(self.logits, 0) + log_p, 1)

    def draw(self, mean: Tensor, variance: Tensor, encode=None) -> tuple[Tensor, Tensor]:
        """Return a sample z of q(z|x), (B, L), and log q(z|x) - log p(z) for it, (B,).

        The mean of the latter is KL(q(z|x) || p(z)).
        """
        z = sample(mean, variance)
        return z, log_normal(z, mean, variance) - self.log_prob(z, encode)


class GaussianMixture(Mixture):
    """A mixture with learnt means, scales and weights."""

    def __init__(self, n_components: int, n_latent: int):
        super().__init__(n_components)
        self.mean = nn.Parameter(torch.randn(n_components, n_latent))
        self.log_scale = nn.Parameter(torch.zeros(n_components, n_latent))

    def components(self, encode=None) -> tuple[Tensor, Tensor]:
        """Return the means and variances, (K, L) each."""
        return self.mean, (2 * self.log_scale).exp()


class VampPrior(Mixture):
    """A mixture of posteriors of learnt pseudo-inputs u_k (Tomczak & Welling 2018).

    p(z) = sum_k pi_k q(z | u_k, s_k). The pseudo-inputs start as training cells, in the encoder's
    input space; each keeps the covariates s_k of its cell. They pass the encoder as a cell does in
    use, so that they do not move its batch statistics.
    """

    def __init__(self, n_components: int, n_inputs: int, n_covariates: int):
        super().__init__(n_components)
        self.inputs = nn.Parameter(torch.zeros(n_components, n_inputs))
        self.register_buffer("covariates", torch.zeros(n_components, n_covariates))

    @torch.no_grad()
    def start_from(self, inputs: Tensor, covariates: Tensor | None) -> None:
        """Start at cells: their encoder inputs (K, n_inputs) and covariates (K, C)."""
        self.inputs.copy_(inputs)
        if covariates is not None:
            self.covariates.copy_(covariates)

    def components(self, encode) -> tuple[Tensor, Tensor]:
        """Return the means and variances, (K, L) each."""
        return encode(self.inputs, self.covariates if self.covariates.shape[1] else None)

    @property
    def n_components(self) -> int:
        """The number of pseudo-inputs, K."""
        return len(self.inputs)


def build_prior(settings, n_inputs: int, n_columns: int) -> nn.Module:
    """Return the prior that scVI's settings name.

    Parameters
    ----------
    settings
        Of scVI.
    n_inputs, n_columns
        Inputs of the encoder, and one-hot columns that it sees beside them.
    """
    if settings.prior == "mixture":
        return GaussianMixture(settings.n_components, settings.n_latent)
    if settings.prior == "vamp":
        return VampPrior(settings.n_components, n_inputs, n_columns)
    return StandardNormal()


def spread_rows(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return `n` of the rows at random, each once as long as there are enough."""
    return np.random.default_rng([seed, 2]).choice(rows, n, replace=n > len(rows))
