"""The heavy ends of a model replaced by the operators, for as long as a training lasts.

The model stays as it is written. What its first layer sees, how that layer multiplies, and what
distribution its last layers give are replaced on the one object.

Letters for shapes: B cells of a minibatch, G genes, H hidden units.
"""

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sclatent.kernels.cuda.device import DeviceKernels, Inputs
from sclatent.kernels.cuda.rows import Standard
from sclatent.models.dca import DCA
from sclatent.models.dispersions import (
    HIGHEST,
    LOWEST,
    BatchDispersion,
    CellDispersion,
    LabelDispersion,
)
from sclatent.models.heads import ElementwisePi, GeneTheta, NormalOutput, PoissonOutput
from sclatent.models.libraries import LatentLibrary
from sclatent.models.scvi import SCVI

SOFTMAX, EXPONENTIAL, LOG_THETA, SOFTPLUS_THETA = 0, 1, 2, 3


class Head(NamedTuple):
    """A matrix of logits, hidden W' + b; without a weight, `hidden` is the logits."""

    hidden: Tensor  # (B, H), or the logits (B, G)
    weight: Tensor | None = None  # (G, H)
    bias: Tensor | None = None  # (G,)


class Table(NamedTuple):
    """Log thetas that cells look up."""

    log_theta: Tensor  # (R, G)
    row: Tensor | None = None  # (B,) int64


class Thetas(NamedTuple):
    """Thetas per cell and gene."""

    head: Head
    mode: int
    bounds: tuple[float, float]


class Counted(NamedTuple):
    """A distribution of counts that is evaluated by the fused likelihood."""

    kernels: DeviceKernels
    heads: tuple

    def log_prob(self, counts: Tensor) -> Tensor:
        """Return log p(x) of each cell in nats, (B,), given `DeviceMinibatch.entries`."""
        return self.kernels.log_prob(counts, *self.heads)


def fits(model) -> bool:
    """Say whether the operators cover a model, and no step of it waits for the host.

    A step of scANVI does: it looks whether a minibatch has labels. One with an adversary does too.
    """
    if isinstance(model, DCA):
        return not (model.settings.ridge or isinstance(model.output, NormalOutput))
    return isinstance(model, SCVI) and not hasattr(model, "opponent")


def standard_of(model) -> Standard | None:
    """Return how a model standardises its input."""
    if isinstance(model, DCA):
        return Standard(model.median_size, model.input_mean, model.input_sd)
    return None


@contextmanager
def heavy_ends(model, kernels: DeviceKernels):
    """Let a model that `fits` use the operators, or a scANVI whose scVI does."""
    model = getattr(model, "scvi", model)
    replaced = list(replacements(model, kernels))
    for owner, name, function in replaced:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, _ in replaced:
            delattr(owner, name)


def replacements(model, kernels) -> list[tuple[object, str, Callable]]:
    """Return owner, name and substitute of each method that is replaced."""
    if isinstance(model, DCA):
        last = (model.output, "forward", partial(dca_distribution, model.output, kernels))
        firsts, own = [model.encoder[1]], (model, "latent", partial(dca_latent, model))
    else:
        last = (model, "distribution", partial(scvi_distribution, model, kernels))
        firsts, own = [model.encoder], (model, "inputs", partial(scvi_inputs, model))
        if isinstance(model.library, LatentLibrary):
            firsts.append(model.library.encoder)
        firsts = [encoder.layers.linear[0] for encoder in firsts]
    return [own, last, *((first, "forward", partial(multiply, first)) for first in firsts)]


def multiply(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer to an input of any precision; the result is float32."""
    return Inputs(x).through(layer)


def scvi_inputs(model: SCVI, minibatch) -> tuple[Tensor, Tensor | None]:
    """Return what the encoders see, as `SCVI.inputs` does."""
    if not model.settings.encode_covariates:
        return minibatch.inputs, None
    numbers, columns = model.covariates(minibatch)
    return torch.cat([minibatch.inputs, numbers], 1), columns


def scvi_distribution(model: SCVI, kernels, hidden: Tensor, minibatch, log_library) -> Counted:
    """Return p(x | z, s, l), as `SCVI.distribution` does."""
    theta, pi = None, None
    if model.settings.likelihood != "poisson":
        theta = scvi_thetas(model.dispersion, hidden, minibatch)
    if model.settings.likelihood == "zinb":
        pi = head(hidden, model.dropout_logit)
    return Counted(kernels, (SOFTMAX, head(hidden, model.share), log_library, theta, pi))


def scvi_thetas(dispersion, hidden: Tensor, minibatch) -> Table | Thetas:
    """Return what a dispersion of scVI looks up or computes."""
    if isinstance(dispersion, CellDispersion):
        return Thetas(head(hidden, dispersion.log_theta), LOG_THETA, (LOWEST, HIGHEST))
    log_theta = dispersion.log_theta.clamp(LOWEST, HIGHEST)
    if isinstance(dispersion, BatchDispersion):
        return Table(log_theta, minibatch.batch.argmax(1))
    if isinstance(dispersion, LabelDispersion):
        return Table(log_theta, minibatch.label.remainder(len(log_theta)))
    return Table(log_theta[None])


def dca_latent(model: DCA, minibatch) -> Tensor:
    """Return the bottleneck of each cell, as `DCA.latent` does."""
    return model.bottleneck(model.encoder(minibatch.inputs))


def dca_distribution(output: PoissonOutput, kernels, hidden: list, log_size: Tensor) -> Counted:
    """Return p(x | z, s), as `forward` of the outputs in `models/heads.py` does."""
    theta, pi = None, None
    if isinstance(getattr(output, "theta", None), GeneTheta):
        theta = Table(output.theta(hidden[1])[None])
    elif hasattr(output, "theta"):
        theta = Thetas(head(hidden[1], output.theta), SOFTPLUS_THETA, (1e-4, 1e4))
    if isinstance(getattr(output, "pi", None), ElementwisePi):
        pi = Head(output.pi(hidden[2], output.mean(hidden[0])))
    elif hasattr(output, "pi"):
        pi = head(hidden[2], output.pi)
    return Counted(kernels, (EXPONENTIAL, head(hidden[0], output.mean), log_size, theta, pi))


def head(hidden: Tensor, layer: nn.Module) -> Head:
    """Return what a layer makes of a hidden state; a linear one is multiplied later."""
    if isinstance(layer, nn.Linear):
        return Head(hidden, layer.weight, layer.bias)
    return Head(layer(hidden))
