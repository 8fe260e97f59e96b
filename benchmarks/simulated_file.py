"""Write simulated counts of very many cells to an h5ad, block by block.

A molecule of a cell comes from the profile of its type and batch or, with a probability that is the
cell's own, from the profile of one of a few programs. Molecules are drawn one by one with Walker's
alias method, as Vose gives it (1991, doi:10.1109/32.92917): a few nanoseconds each, however many
genes there are. Every cell has its own stream of random numbers, so the counts depend neither on
the size of the blocks nor on the threads.

Letters for shapes: B cells of a block, G genes, P profiles.
"""

from typing import NamedTuple

import h5py
import numba
import numpy as np
import pandas as pd
from anndata.io import write_elem

from sclatent import files

N_TYPES, N_BATCHES, N_PROGRAMS = 10, 4, 8
BLOCK = 2048
"""Cells drawn at a time: 80 MB with 20,000 genes."""
CHUNK = 2**18
"""Counts in a chunk of the file."""
N_MITOCHONDRIAL, MITOCHONDRIAL = 13, 0.04
"""Genes with a mitochondrial name, for quality control to find, and their share of the counts."""


class Population(NamedTuple):
    """What the cells are drawn from, and what each cell is."""

    shares: np.ndarray  # (P, G), types of each batch first, then programs
    batch: np.ndarray  # (n_cells,)
    kind: np.ndarray  # (n_cells,)
    program: np.ndarray  # (n_cells,)
    weight: np.ndarray  # (n_cells,) probability that a molecule comes from the program
    n_molecules: np.ndarray  # (n_cells,)
    seed: int


def write_simulated(path, n_cells: int, n_genes: int, n_detected: float, seed: int) -> int:
    """Simulate cells and write them as AnnData does: CSR in X, obs `batch` and `cell_type`.

    Parameters
    ----------
    path
        An h5ad, compressed a little.
    n_cells, n_genes
        How many.
    n_detected
        Genes with a count in a cell, on average.
    seed
        Of everything.

    Returns
    -------
    int
        The number of counts that are not zero.
    """
    population = draw_population(n_cells, n_genes, n_detected, seed)
    names = [f"gene{i:05d}" for i in range(n_genes - N_MITOCHONDRIAL)]
    names += [f"MT-{i}" for i in range(N_MITOCHONDRIAL)]
    labels = {"batch": population.batch, "cell_type": population.kind}
    columns = {
        name: pd.Categorical.from_codes(codes, [f"{name}{i}" for i in range(codes.max() + 1)])
        for name, codes in labels.items()
    }
    cells = pd.Index([f"cell{i:07d}" for i in range(n_cells)])
    with files.safely(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", pd.DataFrame(columns, index=cells))
        write_elem(file, "var", pd.DataFrame(index=pd.Index(names)))
        return write_counts(file, population)


def draw_population(n_cells: int, n_genes: int, n_detected: float, seed: int) -> Population:
    """Draw the profiles, and everything about each cell but its counts."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 2.2, n_genes)
    n_profiles = N_TYPES * N_BATCHES + N_PROGRAMS
    types = rng.normal(0, 1.2, (N_TYPES, n_genes)) * (rng.random((N_TYPES, n_genes)) < 0.1)
    batches = rng.normal(0, 0.2, (N_BATCHES, n_genes))
    programs = rng.normal(0, 1.0, (N_PROGRAMS, n_genes)) * (rng.random((N_PROGRAMS, n_genes)) < 0.1)
    combined = (batches[:, None] + types[None]).reshape(-1, n_genes)
    shares = np.exp(base + np.concatenate([combined, programs])).reshape(n_profiles, n_genes)
    marked = slice(n_genes - N_MITOCHONDRIAL, None)
    shares[:, marked] *= (
        MITOCHONDRIAL * shares.sum(1, keepdims=True) / shares[:, marked].sum(1, keepdims=True)
    )
    shares /= shares.sum(1, keepdims=True)
    spread = rng.normal(0, 0.35, n_cells)
    median = molecules_for(n_detected, shares[:-N_PROGRAMS].mean(0))
    return Population(
        shares,
        rng.integers(N_BATCHES, size=n_cells),
        rng.integers(N_TYPES, size=n_cells),
        rng.integers(N_PROGRAMS, size=n_cells),
        rng.beta(1.0, 3.0, n_cells),
        np.maximum(median * np.exp(spread), 1).astype(np.int64),
        seed,
    )


def molecules_for(n_detected: float, share: np.ndarray) -> float:
    """Return how many molecules of these shares hit about so many genes."""
    low, high = 1.0, 1e7
    while high / low > 1.001:
        middle = np.sqrt(low * high)
        low, high = (
            (low, middle) if -np.expm1(-middle * share).sum() > n_detected else (middle, high)
        )
    return high


def write_counts(file: h5py.File, population: Population) -> int:
    """Draw the counts of all cells and append them to the file; return how many are not zero."""
    n_cells, n_genes = len(population.batch), population.shares.shape[1]
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    group.attrs["shape"] = np.array([n_cells, n_genes])
    options = {"shape": (0,), "maxshape": (None,), "chunks": (CHUNK,)}
    options |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    data = group.create_dataset("data", dtype=np.float32, **options)
    indices = group.create_dataset("indices", dtype=np.int32, **options)
    tables = [build_alias(share) for share in population.shares]
    threshold, other = (np.stack(parts) for parts in zip(*tables, strict=True))
    indptr = np.zeros(n_cells + 1, dtype=np.int64)
    for start in range(0, n_cells, BLOCK):
        rows = slice(start, min(start + BLOCK, n_cells))
        profile = population.batch[rows] * N_TYPES + population.kind[rows]
        program = len(threshold) - N_PROGRAMS + population.program[rows]
        cells = (profile, program, population.weight[rows], population.n_molecules[rows])
        counts = np.zeros((len(profile), n_genes), dtype=np.uint16)
        lengths = draw_counts(threshold, other, *cells, population.seed, start, counts)
        ends = np.cumsum(lengths)
        genes, values = squeeze(counts, ends)
        indptr[rows.start + 1 : rows.stop + 1] = indptr[start] + ends
        for dataset, new in ((data, values), (indices, genes)):
            dataset.resize((indptr[rows.stop],))
            dataset[indptr[start] :] = new
    group.create_dataset("indptr", data=indptr)
    return int(indptr[-1])


@numba.njit
def build_alias(share):
    """Return the threshold (G,) float32 and the other gene (G,) int32 of an alias table."""
    n = len(share)
    scaled = share * n
    threshold, other = np.ones(n, dtype=np.float32), np.arange(n).astype(np.int32)
    small, large = np.flatnonzero(scaled < 1), np.flatnonzero(scaled >= 1)
    few, many = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    few[: len(small)], many[: len(large)] = small, large
    n_few, n_many = len(small), len(large)
    while n_few and n_many:
        n_few -= 1
        low, high = few[n_few], many[n_many - 1]
        threshold[low], other[low] = scaled[low], high
        scaled[high] += scaled[low] - 1
        if scaled[high] < 1:
            n_many -= 1
            few[n_few] = high
            n_few += 1
    return threshold, other


@numba.njit
def scramble(state):
    """Return 64 well mixed bits of a counter (SplitMix64, Steele et al. 2014)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@numba.njit(parallel=True)
def draw_counts(threshold, other, profile, program, weight, n_molecules, seed, first, counts):
    """Add molecules to counts (B, G) of zeros; return the number of genes hit in each cell."""
    n_genes = np.uint64(counts.shape[1])
    step, bits = np.uint64(0x9E3779B97F4A7C15), np.uint64(24)
    mask, unit = np.uint64(2**24 - 1), np.float32(2.0**-24)
    hit = np.zeros(len(profile), dtype=np.int64)
    for cell in numba.prange(len(profile)):
        state = scramble(np.uint64(seed) * step + np.uint64(first + cell + 1))
        from_program = np.uint64(weight[cell] * 2**16)
        found = 0
        for _ in range(n_molecules[cell]):
            state += step
            drawn = scramble(state)
            which = program[cell] if (drawn >> np.uint64(48)) < from_program else profile[cell]
            gene = ((drawn & mask) * n_genes) >> bits
            if np.float32((drawn >> bits) & mask) * unit >= threshold[which, gene]:
                gene = np.uint64(other[which, gene])
            found += counts[cell, gene] == 0
            counts[cell, gene] += np.uint16(1)
        hit[cell] = found
    return hit


@numba.njit(parallel=True)
def squeeze(counts, ends):
    """Return the genes, rising within a cell, and the values of the counts that are not zero."""
    genes, values = np.empty(ends[-1], dtype=np.int32), np.empty(ends[-1], dtype=np.float32)
    for cell in numba.prange(len(ends)):
        place = ends[cell - 1] if cell else 0
        for gene in range(counts.shape[1]):
            if counts[cell, gene]:
                genes[place], values[place] = gene, counts[cell, gene]
                place += 1
    return genes, values
