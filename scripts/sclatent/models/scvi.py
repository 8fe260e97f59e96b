"""scVI: a variational autoencoder of counts (Lopez et al. 2018, doi:10.1038/s41592-018-0229-2).

The generative model of the counts x of a cell in batch s::

    z   ~ Normal(0, I)                    L latent dimensions; or a mixture prior
    l   = sum of x, or ~ LogNormal(s)     library size, observed or latent
    rho = softmax(decoder(z, s))          share of each gene, G
    x_g ~ NB(l rho_g, theta_g)            or ZINB, with extra zeros; or Poisson

The decoder sees the batch, so the latent need not carry it. Training maximises::

    ELBO = E_q log p(x | z, s, l) - KL(q(z|x) || p(z)) - KL(q(l|x) || p(l|s))

whose last term is 0 where the library size is observed. s stands for all covariates: the batch,
further categories, and numbers. Categories enter every layer, numbers the first one.

Letters for shapes: B cells of a minibatch, G genes, L latent dimensions, S batches, C columns of
one-hot covariates.

Differences from the paper: the library size is observed by default, as in scvi-tools, and the
likelihood is NB, where both have ZINB. Further differences from scvi-tools: 30 latent dimensions,
not 10; theta and the decoder's bias start from the data's moments. `compat: scvi-tools` sets these
back, and the training too. The adversary's weight does not fall to 0, with or without it. The
library size is the total over the genes that the model sees, here as there. With a linear decoder
the model is LDVAE (Svensson et al. 2020, doi:10.1093/bioinformatics/btaa169).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sclatent.kernels.counts import Head, counts_loss, describe
from sclatent.kernels.elbo import Seen, elbo
from sclatent.kernels.likelihood import SOFTMAX
from sclatent.kernels.operators import active
from sclatent.models.adversary import Discriminator
from sclatent.models.dispersions import build_dispersion
from sclatent.models.libraries import build_library
from sclatent.models.likelihoods import (
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    dispersion_from_moments,
)
from sclatent.models.networks import Append, Gaussian, Layers, append, head, log_normal, sample
from sclatent.models.posterior import Draw
from sclatent.models.priors import build_prior, spread_rows
from sclatent.training.loader import Cells, Minibatch, Sizes
from sclatent.training.loop import Loss


@dataclass(frozen=True)
class Scvi:
    """Settings of the model, as in the config's section `scvi`."""

    likelihood: str = "nb"
    dispersion: str = "gene"
    library: str = "observed"
    decoder: str = "layers"
    prior: str = "normal"
    n_components: int = 30
    encode_covariates: bool = False
    n_latent: int = 30
    n_hidden: int = 128
    n_layers: int = 1
    dropout: float = 0.1
    adversary: float = 0.0
    adversary_warmup: float = 0.25
    start: str = "data"

    @property
    def needs_labels(self) -> bool:
        """Whether the model sees the labels of training cells."""
        return self.dispersion == "gene-label"


class SCVI(nn.Module):
    """The encoder q(z|x), the decoder p(x|z,s,l), theta, and what the options add."""

    def __init__(self, sizes: Sizes, settings: Scvi):
        super().__init__()
        self.sizes, self.settings = sizes, settings
        n_latent, n_hidden, n_layers = settings.n_latent, settings.n_hidden, settings.n_layers
        seen = sizes if settings.encode_covariates else Sizes(sizes.genes)
        n_inputs = seen.genes + seen.continuous
        # q(z | x), or q(z | x, s)
        self.encoder = Gaussian(
            n_inputs, n_latent, n_hidden, n_layers, seen.columns, settings.dropout
        )
        # p(z)
        self.prior = build_prior(settings, n_inputs, seen.columns)
        # q(l | x) and p(l | s)
        self.library = build_library(settings, n_inputs, seen.columns, sizes.batches)
        # rho(z, s)
        self.decoder = (
            Append(n_latent + sizes.continuous, sizes.columns)
            if settings.decoder == "linear"
            else Layers(n_latent + sizes.continuous, n_hidden, n_layers, sizes.columns, dropout=0.0)
        )
        self.share = head(self.decoder, sizes.genes)
        # theta, and the logit of the probability of an extra zero
        self.dispersion = build_dispersion(settings.dispersion, sizes, self.decoder.n_out)
        if settings.likelihood == "zinb":
            self.dropout_logit = head(self.decoder, sizes.genes)
        if settings.adversary and sizes.batches > 1:
            self.opponent = Discriminator(n_latent, sizes.batches)
        self.register_buffer("number_mean", torch.zeros(sizes.continuous))
        self.register_buffer("number_sd", torch.ones(sizes.continuous))

    def covariates(self, minibatch: Minibatch) -> tuple[Tensor, Tensor | None]:
        """Return the standardised numbers, and the one-hot columns (B, C) or None."""
        numbers = minibatch.continuous
        if self.sizes.continuous:
            numbers = (numbers - self.number_mean) / self.number_sd
        parts = [minibatch.batch] if self.sizes.batches > 1 else []
        parts += [minibatch.categorical] if self.sizes.categorical else []
        if len(parts) == 2:
            return numbers, torch.cat(parts, 1)
        return numbers, parts[0] if parts else None

    def inputs(self, minibatch: Minibatch) -> tuple[Tensor, Tensor | None]:
        """Return what the encoders see: log1p counts, and covariates if `encode_covariates`."""
        fast = active()
        logs = fast.logs(minibatch) if fast else torch.log1p(minibatch.counts)
        if not self.settings.encode_covariates:
            return logs, None
        numbers, columns = self.covariates(minibatch)
        return append(logs, numbers), columns

    def posterior(self, minibatch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return mean and variance of q(z|x), each (B, L)."""
        return self.encoder(*self.inputs(minibatch))

    def decode(self, minibatch: Minibatch, z: Tensor, log_library: Tensor):
        """Return p(x | z, s, l) of a minibatch: a distribution with (B, G) values."""
        hidden = self.hidden(minibatch, z)
        with torch.autocast(hidden.device.type, enabled=False):  # the likelihood never is
            hidden, log_library = hidden.to(minibatch.batch), log_library.to(minibatch.batch)
            return self.distribution(hidden, minibatch, log_library)

    def hidden(self, minibatch: Minibatch, z: Tensor) -> Tensor:
        """Return the decoder's hidden state given z and s, (B, H)."""
        numbers, columns = self.covariates(minibatch)
        return self.decoder(torch.cat([z, numbers], 1) if self.sizes.continuous else z, columns)

    def distribution(self, hidden: Tensor, minibatch: Minibatch, log_library: Tensor):
        """Return the distribution of the counts given the decoder's hidden state, (B, H)."""
        log_rho = torch.log_softmax(self.share(hidden), 1)  # (B, G)
        log_rate = log_library + log_rho
        if self.settings.likelihood == "poisson":
            return Poisson(log_rate)
        log_theta = self.dispersion(hidden, minibatch)  # (G,) or (B, G)
        if self.settings.likelihood == "zinb":
            return ZeroInflatedNegativeBinomial(log_rate, log_theta, self.dropout_logit(hidden))
        return NegativeBinomial(log_rate, log_theta)

    def reconstruction(self, minibatch: Minibatch, z: Tensor, log_library: Tensor) -> Tensor:
        """Return the mean over the cells of -log p(x | z, s, l), ()."""
        if not active():
            p_x = self.decode(minibatch, z, log_library)
            return -p_x.log_prob(minibatch.entries).mean()
        mean, *others = self.heads(minibatch, self.hidden(minibatch, z))
        return counts_loss(minibatch, SOFTMAX, mean, log_library, *others)

    def heads(self, minibatch: Minibatch, hidden: Tensor | None) -> tuple:
        """Return what the kernels make rates, thetas and extra zeros from.

        `hidden` is the decoder's hidden state, (B, H), or None where it comes later.
        """
        likelihood, theta, pi = self.settings.likelihood, None, None
        if likelihood != "poisson":
            theta = self.dispersion.thetas(hidden, minibatch)
        if likelihood == "zinb":
            pi = Head.of(hidden, self.dropout_logit)
        return Head.of(hidden, self.share), theta, pi

    def loss(self, minibatch: Minibatch, kl_weight: float, done: float = 1.0) -> Loss:
        """Return the negative ELBO per cell, its KL term for z multiplied by `kl_weight`.

        Parameters
        ----------
        minibatch
            B cells.
        kl_weight
            Between 0 and 1. The KL term of the library size is not multiplied by it.
        done
            Share of the training that is done; sets the adversary's weight.
        """
        inputs, columns = self.inputs(minibatch)
        if self.training and active() and self.is_usual:
            return Loss(*self.as_one(minibatch, inputs, columns, kl_weight))
        mean, variance = self.encoder(inputs, columns)
        z, kl_z = self.prior.draw(mean, variance, self.encoder.settled)  # (B, L), (B,)
        library = self.library.draw(inputs, minibatch, columns)
        reconstruction = self.reconstruction(minibatch, z, library.log_size)
        kl_z, kl_l = kl_z.mean(), library.kl.mean()
        fooled, recognised = self.play(minibatch, z, done)
        total = reconstruction + kl_weight * kl_z + kl_l + fooled
        return Loss(total, reconstruction, kl_z + kl_l, recognised)

    @property
    def is_usual(self) -> bool:
        """Whether the kernels know the whole loss as one operator."""
        of, usual = self.settings, not hasattr(self, "opponent")
        kinds = (of.library, of.prior, of.decoder, of.n_layers)
        return usual and kinds == ("observed", "normal", "layers", 1)

    def as_one(self, minibatch: Minibatch, inputs, columns: Tensor | None, kl_weight: float):
        """Return the negative ELBO and its two terms by one operator, as `loss` computes them."""
        numbers, onehot = self.covariates(minibatch)
        beside = append(numbers, onehot) if self.sizes.continuous else onehot
        log_library = minibatch.library_size.log()
        seen = Seen(append(inputs, columns), beside, log_library, kl_weight)
        counts = describe(minibatch, SOFTMAX, *self.heads(minibatch, None))
        return elbo(self.encoder, self.decoder, seen, *counts)

    def play(self, minibatch: Minibatch, z: Tensor, done: float) -> tuple:
        """Return the encoder's weighted loss against the adversary, and the adversary's own.

        There is no game in use: the weights to keep are chosen by the ELBO, not by a weak
        adversary.
        """
        if not self.training or not hasattr(self, "opponent"):
            return 0.0, None
        rise = self.settings.adversary_warmup
        weight = self.settings.adversary * (min(1.0, done / rise) if rise else 1.0)
        fooled = weight * self.opponent.fool(z, minibatch.batch)
        return fooled, self.opponent.recognise(z, minibatch.batch)

    def latent(self, minibatch: Minibatch) -> Tensor:
        """Return the mean latent state of each cell, (B, L)."""
        return self.posterior(minibatch)[0]

    def draws(self, minibatch: Minibatch, n: int) -> Iterator[Draw]:
        """Yield samples of z and l from q, p(x | z, s, l), and log p(z, l) - log q(z, l | x)."""
        inputs, columns = self.inputs(minibatch)
        mean, variance = self.encoder(inputs, columns)
        for _ in range(n):
            z = sample(mean, variance)
            library = self.library.draw(inputs, minibatch, columns)
            log_ratio = self.prior.log_prob(z, self.encoder.settled) - log_normal(z, mean, variance)
            p_x = self.decode(minibatch, z, library.log_size)
            yield Draw(z, library.log_size, p_x, log_ratio + library.log_ratio)

    @torch.no_grad()
    def start_from(self, cells: Cells, train: np.ndarray, seed: int) -> None:
        """Take what is fixed from the training cells, and the start of the decoder and theta.

        Parameters
        ----------
        cells
            Counts and covariates.
        train
            Rows of the training cells.
        seed
            Draws the cells at which the VampPrior starts.
        """
        library_size = cells.library_size[train]
        if self.settings.library == "latent":
            self.library.start_from(library_size, cells.batch[train])
        if self.sizes.continuous:
            numbers = cells.covariates.values[train].astype(np.float64)
            mean, sd = numbers.mean(0), numbers.std(0)
            sd[sd <= 1e-6 * np.abs(mean)] = 1.0  # the same in all cells
            self.number_mean.copy_(torch.from_numpy(mean))
            self.number_sd.copy_(torch.from_numpy(sd))
        if self.settings.prior == "vamp":
            rows = spread_rows(train, self.settings.n_components, seed)
            self.prior.start_from(*self.inputs(cells.take(rows)))
        if self.settings.start == "data":
            moments = cells.counts.moments(train)
            total = torch.as_tensor(moments.total, dtype=torch.float32)
            bias = self.share[1].bias if self.settings.decoder == "linear" else self.share.bias
            bias.copy_(((total + 1) / (total + 1).sum()).log())
            if self.settings.library == "latent":
                self.library.encoder.mean.bias.fill_(float(np.log(library_size).mean()))
            self.dispersion.start_from(dispersion_from_moments(moments, library_size))


def build_scvi(cells: Cells, train: np.ndarray, settings: Scvi, seed: int) -> SCVI:
    """Return an untrained model.

    Parameters
    ----------
    cells
        Counts, batches and covariates.
    train
        Rows of the training cells.
    settings
        Of scVI.
    seed
        Seeds the initial weights.
    """
    if settings.adversary and len(cells.batches) == 1:
        print("NOTE there is one batch, so the adversary has nothing to recognise and is left out")
    torch.manual_seed(seed)
    model = SCVI(cells.sizes, settings).to(cells.device)
    model.start_from(cells, train, seed)
    return model


def loadings(model: SCVI) -> np.ndarray:
    """Return how each latent dimension moves the log expression of each gene, (G, L).

    Those of a linear decoder, with its batch normalisation folded in (Svensson et al. 2020).
    """
    linear, norm = model.share
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weights = scale[:, None] * linear.weight[:, : model.settings.n_latent]
    return weights.detach().cpu().numpy()
