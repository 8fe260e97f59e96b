"""What every trained model answers about a cell: latent states, expression, likelihood.

A model has

- ``latent(minibatch)``, the mean latent state (B, L);
- ``draws(minibatch, n)``, which yields a `Draw` n times: a sample of the latent variables and what
  the counts follow then. What does not depend on the sample is computed once;
- ``decode(minibatch, z, log_library)``, the distribution of the counts given latent variables.

Every function here takes the model, the cells and the rows asked for. It uses the model as in use
(running statistics, no dropout), works through minibatches, and draws from a seed: the same seed,
rows and minibatch size give the same bits.

Nothing here enters a hypothesis test: denoised and predicted counts are for looking.

Letters for shapes: B cells of a minibatch, G genes, L latent dimensions, K samples, n cells asked
for, g genes asked for.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sclatent.errors import InputError, nearest, problem
from sclatent.training.loader import Cells, Minibatch
from sclatent.training.order import slices

ALL_GENES = slice(None)


class Draw(NamedTuple):
    """A sample of the latent variables of some cells."""

    z: Tensor  # (B, L)
    log_library: Tensor  # (B, 1)
    counts: NamedTuple  # p(x | z, l): a distribution with log_prob, mean and sample
    log_ratio: Tensor  # log p(z, l) - log q(z, l | x), (B,)


class Likelihood(NamedTuple):
    """How likely a model finds the counts of each cell; (n,) float32 each."""

    elbo: np.ndarray  # nats
    log_likelihood: np.ndarray  # nats
    ess: np.ndarray  # effective number of samples, between 1 and K


@torch.no_grad()
def answers(
    function, model, cells: Cells, rows: np.ndarray, seed: int, size: int
) -> Iterator[np.ndarray]:
    """Apply a function of minibatches to some cells, one minibatch after the other.

    Parameters
    ----------
    function
        Takes a minibatch, returns a tensor with the cells first.
    model
        Put into use before the first minibatch.
    cells, rows
        The cells, and which of them.
    seed
        Seeds torch's noise, which is as before once the last minibatch has been taken.
    size
        Cells in memory at a time.

    Yields
    ------
    array
        (B, ...) float32, in the order of `rows`.
    """
    model.eval()
    with torch.random.fork_rng(devices=cells.generators):
        torch.manual_seed(seed)
        for part in slices(len(rows), size):
            values = function(cells.take(rows[part])).cpu().numpy()
            yield values.astype(np.float32, copy=False)


def answer(function, model, cells: Cells, rows: np.ndarray, seed: int, size: int) -> np.ndarray:
    """Return what `answers` yields as one array, (n, ...) float32."""
    found, parts = None, slices(len(rows), size)
    come = answers(function, model, cells, rows, seed, size)
    for part, values in zip(parts, come, strict=True):
        if found is None:
            found = np.empty((len(rows), *values.shape[1:]), dtype=np.float32)
        found[part] = values
    return found


def latent_samples(
    model, cells: Cells, rows: np.ndarray, n_samples: int, seed: int = 0, size: int = 256
) -> np.ndarray:
    """Return samples of the latent state from q(z|x), (K, n, L)."""

    def sampled(minibatch: Minibatch) -> Tensor:
        return torch.stack([drawn.z for drawn in model.draws(minibatch, n_samples)], 1)

    return answer(sampled, model, cells, rows, seed, size).swapaxes(0, 1)


def predictive_samples(
    model,
    cells: Cells,
    rows: np.ndarray,
    n_samples: int,
    genes=ALL_GENES,
    seed: int = 0,
    size: int = 256,
) -> np.ndarray:
    """Return counts as the model would draw them for cells like these, (K, n, g).

    Parameters
    ----------
    model, cells, rows
        As for `answers`.
    n_samples
        K: each has latent variables of its own.
    genes
        Positions of the genes; all by default.
    seed, size
        As for `answers`.
    """

    def sampled(minibatch: Minibatch) -> Tensor:
        draws = model.draws(minibatch, n_samples)
        return torch.stack([drawn.counts.sample()[:, genes] for drawn in draws], 1)

    return answer(sampled, model, cells, rows, seed, size).swapaxes(0, 1)


def denoise(model, cells: Cells, rows: np.ndarray, *given, **options) -> np.ndarray:
    """Return what `denoise_blocks` yields as one array, (n, g)."""
    return np.concatenate(list(denoise_blocks(model, cells, rows, *given, **options)))


def denoise_blocks(
    model,
    cells: Cells,
    rows: np.ndarray,
    library_size: float | str = 10_000.0,
    batch: str = "average",
    n_samples: int = 10,
    genes=ALL_GENES,
    seed: int = 0,
    size: int = 256,
) -> Iterator[np.ndarray]:
    """Yield the expected expression of some cells in blocks, (B, g), in counts.

    It is the mean of the counts given the latent state, before extra zeros, averaged over samples
    of that state. For scVI and scANVI that is the gene's share times the library size; shares sum
    to 1 over the genes of the model. DCA's means need not sum to the library size.

    Parameters
    ----------
    model, cells, rows
        As for `answers`.
    library_size
        A number of counts, the same for every cell; ``observed``, the cell's own total; or
        ``latent``, what the model takes it for, which is drawn where it is a latent variable.
    batch
        In which batch the cells are decoded: ``own``, the name of a batch, or ``average``, the
        mean over all batches, which takes their effects on the mean away. Covariates beside the
        batch stay the cell's own.
    n_samples
        Samples of the latent state; 0 takes its mean instead.
    genes
        Positions of the genes; all by default.
    seed, size
        As for `answers`.

    Raises
    ------
    InputError
        When there is no batch of that name.
    """
    codes = batch_codes(cells.batches, batch)

    def expected(minibatch: Minibatch) -> Tensor:
        total, n_terms = 0.0, max(n_samples, 1) * len(codes)
        for drawn in model.draws(minibatch, max(n_samples, 1)):
            z = drawn.z if n_samples else model.latent(minibatch)
            log_library = choose_library(library_size, minibatch, drawn)
            for code in codes:
                there = minibatch if code is None else minibatch.in_batch(code)
                total = total + model.decode(there, z, log_library).mean[:, genes] / n_terms
        return total

    return answers(expected, model, cells, rows, seed, size)


def batch_codes(batches: list, batch: str) -> list:
    """Return the codes of the batches to decode in; None stands for the cell's own."""
    if batch == "own":
        return [None]
    if batch == "average":
        return list(range(len(batches)))
    names = list(map(str, batches))
    if batch not in names:
        hint = f"average, own or the name of a batch; {nearest(batch, names)}"
        raise InputError(
            problem("E204", "config denoise.batch", f"there is no batch '{batch}'", hint)
        )
    return [names.index(batch)]


def choose_library(library_size: float | str, minibatch: Minibatch, drawn: Draw) -> Tensor:
    """Return the log library size to decode with, (B, 1)."""
    if library_size == "latent":
        return drawn.log_library
    if library_size == "observed":
        return minibatch.library_size.log()
    return torch.full_like(drawn.log_library, math.log(library_size))


def likelihood(
    model, cells: Cells, rows: np.ndarray, n_samples: int, seed: int = 0, size: int = 256
) -> Likelihood:
    """Estimate the ELBO and, by importance sampling, the marginal log-likelihood of each cell.

    With K samples from q and weights w_k = p(x, z_k, l_k) / q(z_k, l_k | x) the one is the mean of
    log w, the other the log of the mean of w (Burda et al. 2016, arXiv:1509.00519). Its expectation
    is never below the ELBO and grows with K towards log p(x). The effective sample size is
    (sum w)^2 / sum w^2; where it is small, the estimate is low. The sums are taken as the samples
    come, relative to the largest weight so far, so that memory does not grow with K.

    DCA samples nothing: both are its log-likelihood, given an encoding of the same counts, and the
    effective sample size is K.

    Parameters
    ----------
    model, cells, rows
        As for `answers`.
    n_samples
        K.
    seed, size
        As for `answers`.
    """

    def weigh(minibatch: Minibatch) -> Tensor:
        log_sum = torch.zeros(len(minibatch), dtype=torch.float64, device=cells.device)
        largest, first, second = torch.full_like(log_sum, -torch.inf), log_sum, log_sum
        entries, last, constant = minibatch.entries, None, None
        for drawn in model.draws(minibatch, n_samples):
            if drawn is not last:
                if constant is None or drawn.counts.varies:
                    constant = drawn.counts.constant(entries)
                log_p = drawn.counts.log_prob(entries, constant)
                last, log_w = drawn, (log_p + drawn.log_ratio).double()
            log_sum, before = log_sum + log_w, largest
            largest = torch.maximum(largest, log_w)
            shrink, w = (before - largest).exp(), (log_w - largest).exp()
            first, second = first * shrink + w, second * shrink.square() + w.square()
        log_likelihood = largest + (first / n_samples).log()
        return torch.stack([log_sum / n_samples, log_likelihood, first.square() / second], 1)

    return Likelihood(*answer(weigh, model, cells, rows, seed, size).T)
