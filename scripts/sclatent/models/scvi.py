"""scVI: a variational autoencoder of counts (Lopez et al. 2018, doi:10.1038/s41592-018-0229-2).

The generative model of the counts x of a cell with batch s and observed library size l::

    z   ~ Normal(0, I)                    L latent dimensions
    rho = softmax(decoder(z, s))          share of each gene, G
    x_g ~ NB(l rho_g, theta_g)            or the same with extra zeros (ZINB)

The decoder sees the batch, so the latent need not carry it. Training maximises::

    ELBO = E_q(z|x) log p(x | z, s, l) - KL(q(z|x) || p(z))

Letters for shapes: B cells of a minibatch, G genes, L latent dimensions, S batches.

Differences from the paper: the library size is observed, as in scvi-tools, and the likelihood is NB
by default, where both have ZINB. Further differences from scvi-tools: 30 latent dimensions by
default, not 10; theta and the decoder's bias start from the data's moments. The library size is the
total over the genes that the model sees, here as there.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from sclatent.errors import InputError, problem
from sclatent.models.likelihoods import (
    dispersion_from_moments,
    negative_binomial,
    zero_inflated_negative_binomial,
)
from sclatent.models.networks import Gaussian, Layers, kl_standard_normal, sample
from sclatent.training.checkpoint import load_model
from sclatent.training.loader import Cells, Minibatch
from sclatent.training.loop import Loss


@dataclass(frozen=True)
class Scvi:
    """Settings of the model, as in the config's section `scvi`."""

    likelihood: str = "nb"
    n_latent: int = 30
    n_hidden: int = 128
    n_layers: int = 1
    dropout: float = 0.1


class SCVI(nn.Module):
    """The encoder q(z|x), the decoder p(x|z,s) and the dispersion theta."""

    def __init__(self, n_genes: int, n_batches: int, settings: Scvi):
        super().__init__()
        self.settings = settings
        hidden, layers = settings.n_hidden, settings.n_layers
        n_covariates = n_batches if n_batches > 1 else 0
        # q(z | x)
        self.encoder = Gaussian(
            n_genes, settings.n_latent, hidden, layers, dropout=settings.dropout
        )
        # p(x | z, s)
        self.decoder = Layers(settings.n_latent, hidden, layers, n_covariates, dropout=0.0)
        self.share = nn.Linear(hidden, n_genes)
        self.log_theta = nn.Parameter(torch.randn(n_genes))
        if settings.likelihood == "zinb":
            self.dropout_logit = nn.Linear(hidden, n_genes)

    def start_from(self, counts, library_size) -> None:
        """Start the decoder's bias at the mean share of each gene, and theta at its moments.

        Parameters
        ----------
        counts
            CSR matrix of the training cells, (n_cells, G).
        library_size
            (n_cells,).
        """
        total = torch.as_tensor(counts.sum(0), dtype=torch.float32).view(-1)
        with torch.no_grad():
            self.share.bias.copy_(((total + 1) / (total + 1).sum()).log())
            self.log_theta.copy_(dispersion_from_moments(counts, library_size))

    def posterior(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of q(z|x), each (B, L), for counts (B, G)."""
        return self.encoder(torch.log1p(counts))

    def log_likelihood(self, minibatch: Minibatch, z: Tensor) -> Tensor:
        """Return log p(x | z, s, l) summed over the cells of a minibatch, a scalar in nats."""
        hidden = self.decoder(z, minibatch.batch if self.decodes_batch else None)
        log_rho = torch.log_softmax(self.share(hidden), 1)  # (B, G)
        log_rate = minibatch.library_size.log() + log_rho
        log_theta = self.log_theta.clamp(-9.2, 13.8)  # theta from 1e-4 to 1e6
        if self.settings.likelihood == "zinb":
            logit = self.dropout_logit(hidden)
            return zero_inflated_negative_binomial(minibatch.entries, log_rate, log_theta, logit)
        return negative_binomial(minibatch.entries, log_rate, log_theta)

    def loss(self, minibatch: Minibatch, kl_weight: float) -> Loss:
        """Return the negative ELBO per cell, its KL term multiplied by `kl_weight`."""
        mean, variance = self.posterior(minibatch.counts)
        z = sample(mean, variance)  # (B, L)
        reconstruction = -self.log_likelihood(minibatch, z) / len(z)
        kl = kl_standard_normal(mean, variance).mean()
        return Loss(reconstruction + kl_weight * kl, reconstruction, kl)

    def latent(self, minibatch: Minibatch) -> Tensor:
        """Return the mean latent state of each cell, (B, L)."""
        return self.posterior(minibatch.counts)[0]

    @property
    def decodes_batch(self) -> bool:
        """Whether there is more than one batch to tell the decoder."""
        return self.decoder.linear[0].in_features > self.settings.n_latent


def build_scvi(cells: Cells, train, settings: Scvi, seed: int) -> SCVI:
    """Return an untrained model that starts from the moments of the training cells.

    Parameters
    ----------
    cells
        Counts and batches.
    train
        Rows of the training cells.
    settings
        Of scVI.
    seed
        Seeds the initial weights.
    """
    torch.manual_seed(seed)
    model = SCVI(cells.counts.shape[1], len(cells.batches), settings)
    model.start_from(cells.counts[train], cells.library_size[train])
    return model.to(cells.device)


def describe_scvi(model: SCVI, genes, batches) -> dict:
    """Return what `load_scvi` needs beside the weights."""
    return {
        "kind": "scvi",
        "settings": asdict(model.settings),
        "genes": list(genes),
        "batches": list(batches),
    }


def load_scvi(folder, genes, batches) -> SCVI:
    """Load a trained model for data with the given genes and batches.

    Raises
    ------
    InputError
        When the genes or batches, in order, are not those of the model.
    """
    weights, description = load_model(folder)
    for name, there in (("genes", genes), ("batches", batches)):
        if list(there) != description[name]:
            what = f"its {name} are not those of the data"
            raise InputError(problem(str(folder), what, "delete the folder and run again"))
    settings = Scvi(**description["settings"])
    model = SCVI(len(description["genes"]), len(description["batches"]), settings)
    model.load_state_dict(weights)
    return model
