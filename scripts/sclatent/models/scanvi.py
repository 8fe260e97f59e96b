"""scANVI: scVI with cell types (Xu et al. 2021, doi:10.15252/msb.20209620).

The latent state z1 of scVI is itself generated from a cell type y and a rest z2::

    y  ~ Uniform(K)             z2 ~ Normal(0, I)
    z1 ~ Normal(f(z2, y))       x  ~ p(x|z1, s, l), as in scVI

with q(z1|x) as in scVI, a classifier q(y|z1), and q(z2|z1,y). The ELBO sums over every type::

    -ELBO = -log p(x|z1) + log q(z1|x)
            + sum_y w_y [ -log p(z1|z2,y) + KL(q(z2|z1,y) || p(z2)) ] + KL(w || p(y))
            + KL(q(l|x) || p(l|s))

In the ELBO of scvi-tools w is the classifier's q(y|z1) for all cells. In that of the paper
(Kingma et al. 2014, M1+M2) a labelled cell has w_y = 1 for its label. Labels also enter through
the cross-entropy of the classifier on labelled cells, times a weight. The warm-up weighs the three
KL terms, not log q(z1|x) - log p(z1|z2,y), as in scvi-tools.

Letters for shapes: B cells, L latent dimensions, K cell types.

Differences from scvi-tools: the KL weight reaches 1 within the steps given (there it restarts at
0 and stops near 0.05); types without training cells are no classes; a mixture prior of the scVI
below is not used, since z1 has its prior here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from sclatent.models.networks import Gaussian, Layers, draw, log_normal, sample
from sclatent.models.posterior import Draw
from sclatent.models.scvi import SCVI
from sclatent.training.loader import Cells, Minibatch
from sclatent.training.loop import Loss


@dataclass(frozen=True)
class Scanvi:
    """Settings of the model, as in the config's section `scanvi`."""

    start: str = "scvi"
    elbo: str = "scvi-tools"
    classification_weight: float = 50.0
    labelled: str = "minibatch"
    min_cells_per_label: int = 5


def build_scanvi(scvi: SCVI, cells: Cells, settings: Scanvi, seed: int) -> "SCANVI":
    """Put cell types on top of an scVI, whose weights are taken over.

    Parameters
    ----------
    scvi
        Trained or not.
    cells
        The cells that will train it, with their labels.
    settings
        Of scANVI.
    seed
        Seeds the weights that are new.
    """
    torch.manual_seed(seed)
    return SCANVI(scvi, len(cells.classes), settings).to(cells.device)


class SCANVI(nn.Module):
    """scVI, a classifier on its latent state, and the second level of latent variables."""

    def __init__(self, scvi: SCVI, n_labels: int, settings: Scanvi):
        super().__init__()
        self.scvi, self.settings, self.n_labels = scvi, settings, n_labels
        n_latent, n_hidden = scvi.settings.n_latent, scvi.settings.n_hidden
        n_layers, dropout = scvi.settings.n_layers, scvi.settings.dropout
        # q(y | z1)
        self.classifier = Layers(n_latent, n_hidden, n_layers, 0, dropout)
        self.logits = nn.Linear(n_hidden, n_labels)
        # q(z2 | z1, y)
        self.encoder = Gaussian(n_latent, n_latent, n_hidden, n_layers, n_labels, dropout)
        # p(z1 | z2, y)
        self.decoder = Gaussian(n_latent, n_latent, n_hidden, n_layers, n_labels, floor=1e-8)

    @property
    def opponent(self) -> nn.Module | None:
        """The adversary of the scVI below, where it has one."""
        return getattr(self.scvi, "opponent", None)

    def classify(self, z1: Tensor) -> Tensor:
        """Return the log probability of each type, (B, K)."""
        return torch.log_softmax(self.logits(self.classifier(z1)), 1)

    def loss(self, minibatch: Minibatch, kl_weight: float, done: float = 1.0) -> Loss:
        """Return the negative ELBO plus the weighted cross-entropy of the labelled cells.

        Parameters are those of `SCVI.loss`; `kl_weight` multiplies the KL terms of z2, y and l.
        """
        inputs, columns = self.scvi.inputs(minibatch)
        mean, variance = self.scvi.encoder(inputs, columns)
        z1 = sample(mean, variance)  # (B, L)
        library = self.scvi.library.draw(inputs, minibatch, columns)
        reconstruction = self.scvi.reconstruction(minibatch, z1, library.log_size)
        log_w = self.type_weights(self.classify(z1), minibatch.label)  # (B, K)
        z1_prior, kl_z2 = self.second_level(z1)  # (B, K) each
        w = log_w.exp()
        kl_z1 = (log_normal(z1, mean, variance) - (w * z1_prior).sum(1)).mean()
        # The bound keeps 0 log 0 and its gradient finite where the classifier is certain.
        kl_y = (w * log_w.clamp(min=-1e4)).sum(1) + math.log(self.n_labels)
        kl = ((w * kl_z2).sum(1) + kl_y + library.kl).mean()
        fooled, recognised = self.scvi.play(minibatch, z1, done)
        error = self.classification_error(minibatch, mean)
        total = reconstruction + kl_z1 + kl_weight * kl + fooled
        total = total + self.settings.classification_weight * error
        return Loss(total, reconstruction, kl_z1 + kl, recognised)

    def type_weights(self, log_q: Tensor, label: Tensor) -> Tensor:
        """Return the log weight of each type in the ELBO, (B, K), from log q(y|z1)."""
        if self.settings.elbo != "paper":
            return log_q
        known = one_hot(label.clamp(min=0), self.n_labels).to(log_q).log()
        return torch.where((label >= 0)[:, None], known, log_q)

    def classification_error(self, minibatch: Minibatch, mean: Tensor) -> Tensor:
        """Return the cross-entropy at the mean latent state of labelled cells, in nats per cell.

        They are those of the minibatch, or those drawn beside it for their labels.
        """
        label = minibatch.label
        if minibatch.labelled is not None:
            mean, label = self.scvi.latent(minibatch.labelled), minibatch.labelled.label
        seen = label >= 0
        if not seen.any():
            return mean.new_zeros(())
        # The classifier's batch statistics are of all cells, labelled or not.
        return cross_entropy(self.classify(mean)[seen], label[seen])

    def second_level(self, z1: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(z1|z2,y) and KL(q(z2|z1,y) || p(z2)) for every type y, each (B, K)."""
        log_p, _, kl, *_ = self.second_draw(z1)
        return log_p, self.by_type(kl)

    def second_draw(self, z1: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Draw z2 for every type.

        Returns
        -------
        log_p, z2, kl, mean, variance
            log p(z1|z2,y), (B, K); and type by type a sample, (K B, L), KL(q(z2|z1,y) || p(z2)),
            (K B,), and mean and variance of q(z2|z1,y), (K B, L) each.
        """
        n_cells, n_labels = len(z1), self.n_labels
        y = torch.eye(n_labels, device=z1.device).repeat_interleave(n_cells, 0)  # (K B, K)
        repeated = z1.repeat(n_labels, 1)  # (K B, L)
        mean, variance = self.encoder(repeated, y)
        z2, kl = draw(mean, variance)
        log_p = log_normal(repeated, *self.decoder(z2, y))
        return self.by_type(log_p), z2, kl, mean, variance

    def by_type(self, values: Tensor) -> Tensor:
        """Return values given type by type (K B,) as (B, K)."""
        return values.view(self.n_labels, -1).T

    def latent(self, minibatch: Minibatch) -> Tensor:
        """Return the mean latent state z1 of each cell, (B, L)."""
        return self.scvi.latent(minibatch)

    def decode(self, minibatch: Minibatch, z1: Tensor, log_library: Tensor):
        """Return p(x | z1, s, l) of a minibatch, as scVI does."""
        return self.scvi.decode(minibatch, z1, log_library)

    def draws(self, minibatch: Minibatch, n: int) -> Iterator[Draw]:
        """Yield samples of z1 and l, p(x | z1, s, l), and log ratios of prior and posterior.

        The type is summed out: p(z1) is estimated by the mean over y of p(z1|z2,y) p(z2) /
        q(z2|z1,y), with one z2 for each.
        """
        inputs, columns = self.scvi.inputs(minibatch)
        mean, variance = self.scvi.encoder(inputs, columns)
        for _ in range(n):
            z1 = sample(mean, variance)
            library = self.scvi.library.draw(inputs, minibatch, columns)
            log_p, z2, _, mean2, variance2 = self.second_draw(z1)
            standard = log_normal(z2, z2.new_zeros(()), z2.new_ones(()))
            weight = log_p + self.by_type(standard - log_normal(z2, mean2, variance2))
            log_prior = torch.logsumexp(weight, 1) - math.log(self.n_labels)
            log_ratio = log_prior - log_normal(z1, mean, variance) + library.log_ratio
            p_x = self.scvi.decode(minibatch, z1, library.log_size)
            yield Draw(z1, library.log_size, p_x, log_ratio)

    def probabilities(self, minibatch: Minibatch) -> Tensor:
        """Return the probability of each type given the mean latent state, (B, K)."""
        return self.classify(self.scvi.latent(minibatch)).exp()
