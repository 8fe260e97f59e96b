"""scANVI: scVI with cell types (Xu et al. 2021, doi:10.15252/msb.20209620).

The latent state z1 of scVI is itself generated from a cell type y and a rest z2::

    y  ~ Uniform(K)             z2 ~ Normal(0, I)
    z1 ~ Normal(f(z2, y))       x  ~ p(x | z1, s, l), as in scVI

with q(z1|x) as in scVI, a classifier q(y|z1), and q(z2|z1,y). This is the objective of
scvi-tools: the ELBO sums over every type, weighted by the classifier, for all cells::

    -ELBO = -log p(x|z1) + log q(z1|x)
            + sum_y q(y|z1) [ -log p(z1|z2,y) + KL(q(z2|z1,y) || p(z2)) ] + KL(q(y|z1) || p(y))

and labels enter through the cross-entropy of the classifier on labelled cells, times a weight.

Letters for shapes: B cells, L latent dimensions, K cell types.

Difference from scvi-tools: the KL weight reaches 1 within the steps given (there it restarts at
0 and stops near 0.05); types without training cells are no classes.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sclatent.models.networks import Gaussian, Layers, kl_standard_normal, log_normal, sample
from sclatent.models.scvi import SCVI, describe_scvi, load_scvi
from sclatent.training.loader import Cells, Minibatch
from sclatent.training.loop import Loss


@dataclass(frozen=True)
class Scanvi:
    """Settings of the model, as in the config's section `scanvi`."""

    classification_weight: float = 50.0
    n_steps: int = 400
    min_cells_per_label: int = 5


def build_scanvi(folder, cells: Cells, genes, n_labels: int, settings: Scanvi, seed: int):
    """Put cell types on top of a trained scVI, its weights taken over.

    Parameters
    ----------
    folder
        A trained scVI, as written by `train_scvi`.
    cells
        The cells that will train it; `cells.label` holds the types.
    genes
        The genes of `cells`, which must be those of the trained model.
    n_labels
        Number of types.
    settings
        Of scANVI.
    seed
        Seeds the weights that are new.
    """
    scvi = load_scvi(folder, genes, cells.batches)
    torch.manual_seed(seed)
    return SCANVI(scvi, n_labels, settings).to(cells.device)


class SCANVI(nn.Module):
    """scVI, a classifier on its latent state, and the second level of latent variables."""

    def __init__(self, scvi: SCVI, n_labels: int, settings: Scanvi):
        super().__init__()
        self.scvi, self.settings, self.n_labels = scvi, settings, n_labels
        n_latent, n_hidden = scvi.settings.n_latent, scvi.settings.n_hidden
        dropout = scvi.settings.dropout
        # q(y | z1)
        self.classifier = Layers(n_latent, n_hidden, 1, 0, dropout)
        self.logits = nn.Linear(n_hidden, n_labels)
        # q(z2 | z1, y)
        self.encoder = Gaussian(n_latent, n_latent, n_hidden, 1, n_labels, dropout)
        # p(z1 | z2, y)
        self.decoder = Gaussian(n_latent, n_latent, n_hidden, 1, n_labels)

    def classify(self, z1: Tensor) -> Tensor:
        """Return the log probability of each type, (B, K)."""
        return torch.log_softmax(self.logits(self.classifier(z1)), 1)

    def loss(self, minibatch: Minibatch, kl_weight: float) -> Loss:
        """Return the negative ELBO plus the weighted cross-entropy of the labelled cells."""
        mean, variance = self.scvi.posterior(minibatch.counts)
        z1 = sample(mean, variance)  # (B, L)
        log_q_y = self.classify(z1)  # (B, K)
        z1_prior, kl_z2 = self.second_level(z1)  # (B, K) each
        q_y = log_q_y.exp()
        reconstruction = -self.scvi.log_likelihood(minibatch, z1) / len(z1)
        kl_z1 = (log_normal(z1, mean, variance) - (q_y * z1_prior).sum(1)).mean()
        kl_y = (q_y * log_q_y).sum(1) + math.log(self.n_labels)
        kl = ((q_y * kl_z2).sum(1) + kl_y).mean()
        labelled = minibatch.label >= 0
        total = reconstruction + kl_z1 + kl_weight * kl
        if labelled.any():
            error = cross_entropy(self.classify(mean)[labelled], minibatch.label[labelled])
            total = total + self.settings.classification_weight * error
        return Loss(total, reconstruction, kl_z1 + kl)

    def second_level(self, z1: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(z1|z2,y) and KL(q(z2|z1,y) || p(z2)) for every type y, each (B, K)."""
        n_cells, n_labels = len(z1), self.n_labels
        y = torch.eye(n_labels, device=z1.device).repeat_interleave(
            n_cells, 0
        )  # (K B, K), type by type
        repeated = z1.repeat(n_labels, 1)  # (K B, L)
        mean, variance = self.encoder(repeated, y)
        prior = self.decoder(sample(mean, variance), y)
        log_p = log_normal(repeated, *prior)
        kl = kl_standard_normal(mean, variance)
        return log_p.view(n_labels, n_cells).T, kl.view(n_labels, n_cells).T

    def latent(self, minibatch: Minibatch) -> Tensor:
        """Return the mean latent state z1 of each cell, (B, L)."""
        return self.scvi.latent(minibatch)

    def probabilities(self, minibatch: Minibatch) -> Tensor:
        """Return the probability of each type given the mean latent state, (B, K)."""
        return self.classify(self.scvi.latent(minibatch)).exp()


def describe_scanvi(model: SCANVI, genes, batches, classes) -> dict:
    """Return what is needed beside the weights to build the model again."""
    scvi = describe_scvi(model.scvi, genes, batches)
    settings = {"scvi": scvi["settings"], "scanvi": asdict(model.settings)}
    return {**scvi, "kind": "scanvi", "settings": settings, "classes": list(classes)}
