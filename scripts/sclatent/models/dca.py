"""DCA: a deep count autoencoder (Eraslan et al. 2019, doi:10.1038/s41467-018-07931-2).

The counts x of a cell with size factor s, which is its library size over the median one::

    z   = bottleneck(encoder(input))      input: log1p(x / s), standardised gene by gene
    mu  = s exp(mean(decoder(z)))         mean of each gene
    x_g ~ NB(mu_g, theta_g)               or another of the likelihoods

============== ===========================================================================
normal         mu = s mean(decoder(z)) and unit variance: half the squared error
poisson        mu alone
nb             a theta per gene
nb-conddisp    a theta per cell and gene, a function of z
nb-shared      a theta per cell, for all genes
nb-fork        as nb-conddisp; mean and theta have a decoder each
zinb           as nb, with extra zeros of probability pi, a function of z
zinb-conddisp  as nb-conddisp, with extra zeros
zinb-shared    as nb-shared, with one pi per cell
zinb-fork      as zinb-conddisp; mean, theta and pi have a decoder each
zinb-elempi    as zinb-conddisp, with logit pi_g = a_g log(mu_g / s) + b_g
============== ===========================================================================

Training maximises log p(x); nothing is sampled, no KL term. DCA knows no batches and corrects none:
what differs between batches stays in the latent.

Letters for shapes: B cells of a minibatch, G genes, H hidden units, L latent dimensions.

As in the reference implementation (dca 0.3) the default is `nb-conddisp`, where the paper has ZINB;
the latent is the bottleneck before its normalisation and ReLU; denoised expression is mu, with or
without extra zeros. The loss is in nats per cell, a sum over genes, where the reference has a mean.
`l1`, `l2` and `ridge` are nevertheless its numbers: the weights' penalty is multiplied by G and the
ridge on pi, which the reference adds to each gene, is summed. For `normal`, whose loss there has no
half, they weigh twice as much here.

Differences from it: the bottleneck has as many dimensions as the other latents (30, not 32); the
mean's bias and theta start from the data's moments; optimiser and schedule are those of the loop
that trains all models, with more and smaller steps of 64 cells: an autoencoder without noise gains
from theirs. `compat: dca` sets all of that back. The library size is the total over the genes that
the model sees, and median, mean and standard deviation are those of the training cells. Left out
are weight penalties of the encoder alone, activations other than ReLU, and inputs that are not
normalised.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from scipy.sparse import diags
from torch import Tensor, nn

from sclatent.kernels.layer import layer
from sclatent.kernels.operators import Rows, active
from sclatent.models.heads import build_output
from sclatent.models.likelihoods import ZeroInflatedNegativeBinomial, dispersion_from_moments
from sclatent.models.networks import through
from sclatent.models.posterior import Draw
from sclatent.training.loader import Cells, Minibatch
from sclatent.training.loop import Loss


@dataclass(frozen=True)
class Dca:
    """Settings of the model, as in the config's section `dca`."""

    likelihood: str = "nb-conddisp"
    n_latent: int = 30
    n_hidden: int = 64
    dropout: float = 0.0
    input_dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    ridge: float = 0.0
    batch_norm: bool = True
    start: str = "data"


class DCA(nn.Module):
    """The encoder, the decoder, and the heads for mu, theta and pi."""

    def __init__(self, n_genes: int, settings: Dca):
        super().__init__()
        self.settings, self.n_genes = settings, n_genes
        n_hidden, n_latent = settings.n_hidden, settings.n_latent
        self.register_buffer("median_size", torch.ones(()))
        self.register_buffer("input_mean", torch.zeros(n_genes))
        self.register_buffer("input_sd", torch.ones(n_genes))
        self.encoder = Activated(
            nn.Dropout(settings.input_dropout),
            nn.Linear(n_genes, n_hidden),
            *activation(n_hidden, settings),
        )
        self.bottleneck = nn.Linear(n_hidden, n_latent)
        self.output = build_output(settings.likelihood, n_hidden, n_genes)
        self.decoder = Decoder(settings, self.output.n_heads)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # glorot_uniform in Keras
                nn.init.zeros_(module.bias)

    def size_factor(self, minibatch: Minibatch) -> Tensor:
        """Return each cell's library size over the median of the training cells, (B, 1)."""
        return minibatch.library_size / self.median_size

    def latent(self, minibatch: Minibatch) -> Tensor:
        """Return the bottleneck of each cell, (B, L)."""
        return self.bottleneck(self.encoder(self.inputs(minibatch)))

    def inputs(self, minibatch: Minibatch) -> Tensor | Rows:
        """Return the standardised log counts that the encoder sees, (B, G)."""
        size_factor = self.size_factor(minibatch)
        if active() and not (self.training and self.settings.input_dropout):
            moments = (self.input_mean, self.input_sd)
            return active().standardised(minibatch, size_factor, *moments)
        logs = torch.log1p(minibatch.counts / size_factor)
        return (logs - self.input_mean) / self.input_sd

    def decode(self, minibatch: Minibatch, z: Tensor, log_library: Tensor):
        """Return p(x | z, l) of a minibatch: a distribution with (B, G) values."""
        return self.output(self.decoder(z), log_library - self.median_size.log())

    def draws(self, minibatch: Minibatch, n: int) -> Iterator[Draw]:
        """Return n times the same latent state and p(x | z, l); nothing is sampled."""
        z, log_library = self.latent(minibatch), minibatch.library_size.log()
        p_x = self.decode(minibatch, z, log_library)
        return repeat(Draw(z, log_library, p_x, z.new_zeros(len(z))), n)

    def loss(self, minibatch: Minibatch, kl_weight: float, done: float = 1.0) -> Loss:
        """Return -log p(x) per cell, and the penalties in the total; there is no KL to weigh."""
        z, log_library = self.latent(minibatch), minibatch.library_size.log()
        if active() and self.output.fast and not self.settings.ridge:
            log_size = log_library - self.median_size.log()
            reconstruction = self.output.loss(self.decoder(z), log_size, minibatch)
            penalty = 0.0
        else:
            p_x = self.decode(minibatch, z, log_library)
            reconstruction = -p_x.log_prob(minibatch.entries).mean()
            penalty = self.zero_penalty(p_x)
        total = reconstruction + self.weight_penalty() + penalty
        return Loss(total, reconstruction, reconstruction.new_zeros(()))

    def weight_penalty(self) -> Tensor | float:
        """Return G (l1 sum |w| + l2 sum w^2) over the weights of all layers, biases left out."""
        l1, l2 = self.settings.l1, self.settings.l2
        if not l1 and not l2:
            return 0.0
        named = self.named_parameters()
        weights = [w for name, w in named if name.endswith("weight") and w.requires_grad]
        return self.n_genes * sum(l1 * w.abs().sum() + l2 * w.square().sum() for w in weights)

    def zero_penalty(self, p_x) -> Tensor | float:
        """Return the ridge on pi: the mean over the cells of the sum of pi^2 over the genes."""
        if not self.settings.ridge or not isinstance(p_x, ZeroInflatedNegativeBinomial):
            return 0.0
        pi = p_x.dropout_logit.sigmoid().expand_as(p_x.log_rate)
        return self.settings.ridge * pi.square().sum(1).mean()

    @torch.no_grad()
    def start_from(self, cells: Cells, train: np.ndarray) -> None:
        """Take the input's mean and sd, and the start of mu and theta, from the training cells.

        Parameters
        ----------
        cells
            Counts.
        train
            Rows of the training cells.
        """
        library_size = cells.library_size[train]
        median = np.median(library_size)
        size = library_size / median
        total, squares, n_cells = np.zeros(self.n_genes), np.zeros(self.n_genes), 0
        for counts in cells.counts.blocks(train):
            here = slice(n_cells, n_cells + counts.shape[0])
            logs = (diags(1 / size[here]) @ counts).log1p()
            total += np.asarray(logs.sum(0)).ravel()
            squares += np.asarray(logs.multiply(logs).sum(0)).ravel()
            n_cells = here.stop
        mean = total / n_cells
        variance = squares / n_cells - mean**2
        # A gene without variance is centred only: its input is 0, not a division by 0.
        sd = np.sqrt(np.where(variance > 1e-12, variance, 1))
        self.median_size.fill_(median)
        self.input_mean.copy_(torch.from_numpy(mean))
        self.input_sd.copy_(torch.from_numpy(sd))
        if self.settings.start == "data":
            moments = cells.counts.moments(train)
            expected = (moments.total + 1) / (size.sum() + 1)
            log_theta = dispersion_from_moments(moments, library_size)
            self.output.start_from(torch.from_numpy(expected).float(), log_theta)


class Decoder(nn.Module):
    """From the bottleneck to a hidden state for each head: the same for all, or in a fork its own.

    The bottleneck's normalisation and ReLU belong to all.
    """

    def __init__(self, settings: Dca, n_heads: int):
        super().__init__()
        n_hidden, n_latent = settings.n_hidden, settings.n_latent
        self.repeats = 1 if settings.likelihood.endswith("fork") else n_heads
        self.bottleneck = Activated(*activation(n_latent, settings))
        self.branches = nn.ModuleList(
            Activated(nn.Linear(n_latent, n_hidden), *activation(n_hidden, settings))
            for _ in range(n_heads // self.repeats)
        )

    def forward(self, z: Tensor) -> list[Tensor]:
        """Return the hidden state of each head, (B, H)."""
        active = self.bottleneck(z)
        return [branch(active) for branch in self.branches] * self.repeats


class Activated(nn.Sequential):
    """Layers that end with an activation; in training, those with batch norm are one operator."""

    def forward(self, x: Tensor | Rows) -> Tensor:
        """Return what the layers make of `x`, (B, n)."""
        kinds = (nn.Linear, nn.BatchNorm1d)
        linear, norm = (next((m for m in self if isinstance(m, kind)), None) for kind in kinds)
        if self.training and active() and norm is not None:
            x = through(self[0], x) if isinstance(self[0], nn.Dropout) else x
            return layer(x, None, linear, norm, self[-1].p)
        for module in self:
            x = through(module, x)
        return x


def activation(n: int, settings: Dca) -> list[nn.Module]:
    """Return what follows a linear layer of `n` units: normalisation, ReLU and dropout."""
    norm = [centred(n)] if settings.batch_norm else []
    return [*norm, nn.ReLU(), nn.Dropout(settings.dropout)]


def centred(n: int) -> nn.BatchNorm1d:
    """Return batch normalisation that learns a centre and no scale, as dca has it in Keras."""
    norm = nn.BatchNorm1d(n, momentum=0.01, eps=1e-3)
    norm.weight.requires_grad_(False)
    return norm


def build_dca(cells: Cells, train, settings: Dca, seed: int) -> DCA:
    """Return an untrained model.

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
    model.start_from(cells, train)
    return model.to(cells.device)
