"""Simulated counts to train on: cell types, continuous programs and batches, overdispersed.

For cell b of type t in batch s, and gene g::

    share[b, g] ∝ exp(base[g] + type[t, g] + batch[s, g] + z[b] program[:, g])
    count[b, g] ~ Poisson(Gamma(theta[g], library[b] share[b, g] / theta[g]))

The simulator of the workflow has no programs, and a model of a few types alone is learnt too soon
to time its training. The library is chosen so that about 90 % of the counts are zeros.
"""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from sclatent.data.store import UNKNOWN

N_TYPES, N_BATCHES, N_PROGRAMS = 9, 4, 10
LIBRARY = 0.19
"""Median counts of a cell, for each gene there is."""
UNLABELLED = 0.1
BLOCK = 2048
"""Cells drawn at a time; bounds the memory."""


def simulate(n_cells: int, n_genes: int, seed: int) -> anndata.AnnData:
    """Simulate cells.

    Returns
    -------
    AnnData
        X: int32 CSR counts; obs: `batch`, and `cell_type` with a tenth unknown.
    """
    rng = np.random.default_rng(seed)
    types, batches, programs = draw_effects(rng, n_genes)
    theta = rng.lognormal(0.9, 0.8, n_genes)
    batch = rng.integers(N_BATCHES, size=n_cells)
    mixtures = rng.dirichlet(30 * rng.dirichlet(np.full(N_TYPES, 2.0)) + 1, size=N_BATCHES)
    kind = (rng.random((n_cells, 1)) > mixtures.cumsum(1)[batch, :-1]).sum(1)
    library = LIBRARY * n_genes * rng.lognormal(rng.normal(0, 0.25, N_BATCHES)[batch], 0.45)
    state = rng.normal(size=(n_cells, N_PROGRAMS))
    blocks = []
    for start in range(0, n_cells, BLOCK):
        rows = slice(start, start + BLOCK)
        share = np.exp(types[kind[rows]] + batches[batch[rows]] + state[rows] @ programs)
        rate = library[rows, None] * share / share.sum(1, keepdims=True)
        counts = rng.poisson(rng.standard_gamma(theta, rate.shape) * rate / theta)
        blocks.append(sparse.csr_matrix(counts.astype(np.int32)))
    labels = np.char.add("type", kind.astype(str)).astype(object)
    labels[rng.random(n_cells) < UNLABELLED] = UNKNOWN
    names = np.char.add("batch", batch.astype(str))
    cells = pd.Index([f"cell{i:06d}" for i in range(n_cells)])
    obs = pd.DataFrame({"batch": names, "cell_type": labels}, index=cells).astype("category")
    var = pd.DataFrame(index=[f"gene{i:05d}" for i in range(n_genes)])
    return anndata.AnnData(sparse.vstack(blocks, format="csr"), obs=obs, var=var)


def draw_effects(rng: np.random.Generator, n_genes: int) -> tuple:
    """Return log shares of types with the base, of batches, and of programs, (n, n_genes) each.

    Types belong to three lineages, which share some of what sets them apart.
    """
    lineage = np.arange(N_TYPES) * 3 // N_TYPES
    types = sparse_normal(rng, 3, n_genes, 0.15)[lineage]
    types = types + sparse_normal(rng, N_TYPES, n_genes, 0.12) + rng.normal(0, 1.3, n_genes)
    batches = rng.normal(0, 0.25, (N_BATCHES, n_genes))
    programs = rng.normal(0, 0.35, (N_PROGRAMS, n_genes))
    return types, batches, programs * (rng.random(programs.shape) < 0.2)


def sparse_normal(rng: np.random.Generator, n: int, n_genes: int, share: float) -> np.ndarray:
    """Return effects (n, n_genes) of which only a share is not zero."""
    return rng.normal(0.5, 1.2, (n, n_genes)) * (rng.random((n, n_genes)) < share)
