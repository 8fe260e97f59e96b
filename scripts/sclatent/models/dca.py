"""DCA: a deep count autoencoder (Eraslan et al. 2019, doi:10.1038/s41467-018-07931-2).

The counts x of a cell with size factor s, which is its library size over the median one::

    z   = bottleneck(encoder(input))      input: log1p(x / s), standardised gene by gene
    mu  = s exp(mean(decoder(z)))         mean of each gene
    x_g ~ NB(mu_g, theta_g)               or another of the likelihoods

`nb` and `zinb` have a theta per gene, `nb-conddisp` and `zinb-conddisp` a function of z per cell
and gene. `zinb` adds zeros with probability pi, also a function of z, and can add a ridge on pi.
`poisson` has mu alone; `normal` has mu = s mean(decoder(z)) and unit variance, so its loss is half
the squared error and a constant. Training maximises log p(x); nothing is sampled, no KL term.

DCA knows no batches and corrects none: what differs between batches stays in the latent.

Letters for shapes: B cells of a minibatch, G genes, L latent dimensions.

As in the reference implementation (dca 0.3) the default is `nb-conddisp`, where the paper has ZINB;
the latent is the bottleneck before its normalisation and ReLU; denoised expression is mu, with or
without extra zeros.

Differences from it: the bottleneck has as many dimensions as the other latents (30, not 32). The
mean's bias and theta start from the data's moments. Theta per gene may fall to 1e-4, not 1e-3. The
library size is the total over the genes that the model sees. The forked and shared heads are left
out.

Optimiser and schedule are those of the loop that trains all models, which keeps the comparison
fair: Adam along a cosine, minibatches of 256, the best epoch kept. The reference has RMSprop at
1e-3, minibatches of 32, a rate that falls on plateaus, early stopping, and keeps the last epoch.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import diags
from torch import Tensor, nn
from torch.nn.functional import softplus

from sclatent.models.likelihoods import (
    NegativeBinomial,
    Normal,
    Poisson,
    ZeroInflatedNegativeBinomial,
    dispersion_from_moments,
)
from sclatent.models.posterior import Draw
from sclatent.training.loader import Cells, Minibatch
from sclatent.training.loop import Loss


@dataclass(frozen=True)
class Dca:
    """Settings of the model, as in the config's section `dca`."""

    likelihood: str = "nb-conddisp"
    n_latent: int = 30
    n_hidden: int = 64
    ridge: float = 0.0


class DCA(nn.Module):
    """The encoder, the decoder and the heads for mu, theta and pi."""

    def __init__(self, n_genes: int, settings: Dca):
        super().__init__()
        self.settings = settings
        self.family, _, conditional = settings.likelihood.partition("-")
        n_hidden, n_latent = settings.n_hidden, settings.n_latent
        self.register_buffer("median_size", torch.ones(()))
        self.register_buffer("input_mean", torch.zeros(n_genes))
        self.register_buffer("input_sd", torch.ones(n_genes))
        self.encoder = nn.Sequential(nn.Linear(n_genes, n_hidden), centred(n_hidden), nn.ReLU())
        self.bottleneck = nn.Linear(n_hidden, n_latent)
        self.decoder = nn.Sequential(
            *(centred(n_latent), nn.ReLU()),
            *(nn.Linear(n_latent, n_hidden), centred(n_hidden), nn.ReLU()),
        )
        self.mean = nn.Linear(n_hidden, n_genes)
        if conditional:
            self.theta = nn.Linear(n_hidden, n_genes)
        elif self.family in ("nb", "zinb"):
            self.log_theta = nn.Parameter(torch.zeros(n_genes))
        if self.family == "zinb":
            self.dropout_logit = nn.Linear(n_hidden, n_genes)

    @torch.no_grad()
    def start_from(self, counts, library_size) -> None:
        """Take the input's mean and sd, and the start of mu and theta, from the training cells.

        Parameters
        ----------
        counts
            CSR matrix of the training cells, (n_cells, G).
        library_size
            (n_cells,).
        """
        median = np.median(library_size)
        size = library_size / median
        logs = (diags(1 / size) @ counts).log1p()
        mean = np.asarray(logs.mean(0)).ravel()
        variance = np.asarray(logs.multiply(logs).mean(0)).ravel() - mean**2
        # A gene without variance is centred only: its input is 0, not a division by 0.
        sd = np.sqrt(np.where(variance > 1e-12, variance, 1))
        self.median_size.fill_(median)
        self.input_mean.copy_(torch.from_numpy(mean))
        self.input_sd.copy_(torch.from_numpy(sd))
        expected = torch.from_numpy((np.asarray(counts.sum(0)).ravel() + 1) / (size.sum() + 1))
        self.mean.bias.copy_(expected if self.family == "normal" else expected.log())
        log_theta = dispersion_from_moments(counts, library_size)
        if hasattr(self, "theta"):
            theta = log_theta.exp()
            self.theta.bias.copy_(theta + (-torch.expm1(-theta)).log())  # inverse of softplus
        elif hasattr(self, "log_theta"):
            self.log_theta.copy_(log_theta)

    def size_factor(self, minibatch: Minibatch) -> Tensor:
        """Return each cell's library size over the median of the training cells, (B, 1)."""
        return minibatch.library_size / self.median_size

    def latent(self, minibatch: Minibatch) -> Tensor:
        """Return the bottleneck of each cell, (B, L)."""
        logs = torch.log1p(minibatch.counts / self.size_factor(minibatch))
        return self.bottleneck(self.encoder((logs - self.input_mean) / self.input_sd))

    def log_dispersion(self, hidden: Tensor) -> Tensor:
        """Return log theta, (G,) or (B, G), of theta between 1e-4 and 1e4."""
        if hasattr(self, "theta"):
            return softplus(self.theta(hidden)).clamp(1e-4, 1e4).log()
        return self.log_theta.clamp(math.log(1e-4), math.log(1e4))

    def decode(self, minibatch: Minibatch, z: Tensor, log_library: Tensor):
        """Return p(x | z, l) of a minibatch: a distribution with (B, G) values."""
        hidden = self.decoder(z)
        log_size = log_library - self.median_size.log()
        if self.family == "normal":
            return Normal(self.mean(hidden) * log_size.exp())
        log_rate = self.mean(hidden).clamp(math.log(1e-5), math.log(1e6)) + log_size
        if self.family == "poisson":
            return Poisson(log_rate)
        log_theta = self.log_dispersion(hidden)
        if self.family == "nb":
            return NegativeBinomial(log_rate, log_theta)
        return ZeroInflatedNegativeBinomial(log_rate, log_theta, self.dropout_logit(hidden))

    def loss(self, minibatch: Minibatch, kl_weight: float, done: float = 1.0) -> Loss:
        """Return -log p(x) per cell, and the ridge on pi in the total; there is no KL to weigh."""
        x = self.draw(minibatch).counts
        reconstruction = -x.log_prob(minibatch.entries).mean()
        total = reconstruction
        if self.family == "zinb" and self.settings.ridge:
            total = total + self.settings.ridge * x.dropout_logit.sigmoid().square().sum(1).mean()
        return Loss(total, reconstruction, torch.zeros(()))

    def draw(self, minibatch: Minibatch) -> Draw:
        """Return the latent state and p(x | z, l); nothing is sampled."""
        z, log_library = self.latent(minibatch), minibatch.library_size.log()
        x = self.decode(minibatch, z, log_library)
        return Draw(z, log_library, x, z.new_zeros(len(z)))


def centred(n: int) -> nn.BatchNorm1d:
    """Return batch normalisation that learns a centre and no scale, as Keras sets it by default."""
    norm = nn.BatchNorm1d(n, momentum=0.01, eps=1e-3)
    norm.weight.requires_grad_(False)
    return norm


def build_dca(cells: Cells, train, settings: Dca, seed: int) -> DCA:
    """Return an untrained model that starts from the moments of the training cells.

    Parameters
    ----------
    cells
        Counts.
    train
        Rows of the training cells.
    settings
        Of DCA.
    seed
        Seeds the initial weights.
    """
    torch.manual_seed(seed)
    model = DCA(cells.counts.shape[1], settings)
    model.start_from(cells.counts[train], cells.library_size[train])
    return model.to(cells.device)
