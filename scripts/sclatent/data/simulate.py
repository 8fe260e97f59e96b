"""Simulate counts of which the truth is known: negative binomial, in the manner of Splat.

The model, for cell b of type t in batch s of group r and level l of the covariate, and gene g:

    share[b, g] ∝ base[g] · exp(type[t, g] + batch[s, g] + group[r, g] + level[l, g] + dying[b, g])
    mu[b, g]    = library[b] · share[b, g]
    count[b, g] ~ Poisson(Gamma(theta[g], mu[b, g] / theta[g])), then zeroed with rate `dropout`

so that the variance of a count is mu + mu²/theta. Base shares are Gamma distributed with a long
tail, library sizes and theta log-normal. The mixture of types differs between batches.

What differs from Splat (Zappia et al. 2017, doi:10.1186/s13059-017-1305-0): theta belongs to the
gene and is not a trend of the mean; the effects of batches are nested in groups of batches (labs);
types come in pairs of relatives that share most of their differential genes, so that some pairs
are hard; a few cells are dying (few counts, mostly mitochondrial), for quality control to find.

Every ingredient draws from its own stream: two simulations that differ in one setting differ in
nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent.data.store import UNKNOWN
from sclatent.errors import InputError, problem

if TYPE_CHECKING:
    from anndata import AnnData

STREAMS = (  # a place is the seed of a stream: new ones come last
    *("base", "theta", "type", "batch", "group", "mixture", "library", "dying", "label"),
    *("counts", "covariate", "level"),
)
TAIL = 0.6  # shape of the Gamma distribution of base shares, as Splat estimates it from real data
RELATED = 0.8  # share of a type's differential genes that its relative has in common
THETA_SPREAD = 0.5  # standard deviation of log theta over genes
MIXTURE = 5.0  # concentration of the Dirichlet distribution of the types of a batch
MT_NAMES = (
    *(f"ND{i}" for i in (1, 2, 3, 4, "4L", 5, 6)),
    "CO1",
    "CO2",
    "CO3",
    "ATP6",
    "ATP8",
    "CYB",
)
MT_SHARE, RIBO_SHARE = 0.04, 0.2  # of all counts of a typical cell
DYING_LIBRARY, DYING_MT = 0.3, 10.0  # factors on the library and on mitochondrial shares
BLOCK = 4_000_000  # counts drawn at once; bounds the memory


@dataclass(frozen=True)
class Simulation:
    """Settings of the simulator; the schema describes each."""

    n_cells: int = 2400
    n_genes: int = 1200
    n_batches: int = 3
    n_types: int = 6
    n_groups: int = 1
    private_type: bool = True
    type_strength: float = 0.8
    de_share: float = 0.15
    batch_strength: float = 0.2
    group_strength: float = 0.0
    covariate_strength: float = 0.0
    library_size: float = 2000
    library_spread: float = 0.4
    dispersion: float = 3.0
    dropout: float = 0.0
    low_quality: float = 0.03
    unlabelled: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if self.n_groups > self.n_batches:
            what = f"{self.n_groups} groups cannot be made of {self.n_batches} batches"
            raise InputError(problem("E108", "simulate.n_groups", what, "lower n_groups"))

    def stream(self, name: str, *more: int) -> np.random.Generator:
        """Return the random numbers of one ingredient."""
        return np.random.default_rng([self.seed, STREAMS.index(name), *more])


def simulate(settings: Simulation) -> AnnData:
    """Simulate counts and keep the truth beside them.

    Returns
    -------
    AnnData
        X: int32 CSR counts (B, G). obs: `batch`, `cell_type` (hidden as "Unknown" for the share
        `unlabelled`), `true_cell_type`, `true_group`, `true_library_size` (expected counts before
        dropout), `true_quality` ("good" or "dying"). var: `true_share` (base, sums to 1),
        `true_theta`. varm: `true_log_fold_change` (G, types) and `true_batch_effect`
        (G, batches; with the group's), data frames with named columns, natural logarithms. With a
        `covariate_strength` also obs `protocol`, of two levels drawn for each cell whatever its
        batch and type, and varm `true_covariate_effect` (G, 2).
    """
    import anndata
    import pandas as pd

    genes = gene_table(settings)
    effects = draw_effects(settings, genes.index)
    obs, codes = draw_cells(settings)
    counts = draw_counts(settings, genes, effects, obs, codes)
    types, batches = (obs[name].cat.categories for name in ("true_cell_type", "batch"))
    varm = {
        "true_log_fold_change": pd.DataFrame(effects["type"], genes.index, types),
        "true_batch_effect": pd.DataFrame(effects["batch"], genes.index, batches),
    }
    if settings.covariate_strength:
        levels = obs["protocol"].cat.categories
        varm["true_covariate_effect"] = pd.DataFrame(effects["covariate"], genes.index, levels)
    print(
        f"simulated {settings.n_cells:,} cells x {settings.n_genes:,} genes, {len(types)} types in "
        f"{len(batches)} batches; {1 - counts.nnz / np.prod(counts.shape):.0%} zeros, "
        f"median {np.median(np.asarray(counts.sum(axis=1))):,.0f} counts per cell"
    )
    return anndata.AnnData(counts, obs=obs, var=genes, varm=varm)


def names(kind: str, n: int) -> list[str]:
    """Return n names that sort by number, such as type01."""
    return [f"{kind}{1 + i:0{len(str(n))}}" for i in range(n)]


def gene_table(settings: Simulation):
    """Return base shares and theta; the last genes bear mitochondrial and ribosomal names."""
    import pandas as pd

    n_ribo = min(40, settings.n_genes // 10)
    special = [f"MT-{name}" for name in MT_NAMES]
    special += [f"RP{'LS'[i % 2]}{3 + i // 2}" for i in range(n_ribo)]
    index = names("gene", settings.n_genes - len(special)) + special
    kinds = np.array([name[:2] for name in index])
    base = settings.stream("base").gamma(TAIL, size=settings.n_genes)
    for kind, share in {"MT": MT_SHARE, "RP": RIBO_SHARE, "ge": 1 - MT_SHARE - RIBO_SHARE}.items():
        base[kinds == kind] *= share / base[kinds == kind].sum()
    noise = settings.stream("theta").normal(size=settings.n_genes)
    theta = settings.dispersion * np.exp(THETA_SPREAD * noise)
    return pd.DataFrame({"true_share": base, "true_theta": theta}, index=index)


def draw_effects(settings: Simulation, genes) -> dict[str, np.ndarray]:
    """Return log fold changes.

    Of types (G, types), of batches with their groups (G, batches), and of the covariate's levels
    (G, 2), which lie as far above as below zero.
    """
    shape = (len(genes), settings.n_types)
    relatives = np.arange(settings.n_types) // 2
    rng = settings.stream("type")
    shared, own = rng.normal(size=(2, *shape))
    parts = np.array([RELATED, 1 - RELATED])[:, None, None] * settings.de_share
    in_shared, in_own = rng.random((2, *shape)) < parts
    types = (shared * in_shared)[:, relatives] + own * in_own
    groups = deviations(settings.stream("group"), len(genes), settings.n_groups)
    batches = deviations(settings.stream("batch"), len(genes), settings.n_batches)
    between = settings.stream("covariate").normal(size=(len(genes), 1))
    return {
        "type": settings.type_strength * types,
        "batch": settings.batch_strength * batches
        + settings.group_strength * groups[:, group_of_batch(settings)],
        "covariate": settings.covariate_strength * between * [-0.5, 0.5],
    }


def deviations(rng: np.random.Generator, n_genes: int, n: int) -> np.ndarray:
    """Return standard normal effects (G, n) that sum to zero over the n; zero for one."""
    drawn = rng.normal(size=(n_genes, n))
    return (drawn - drawn.mean(axis=1, keepdims=True)) * np.sqrt(n / max(n - 1, 1))


def group_of_batch(settings: Simulation) -> np.ndarray:
    """Return the group of each batch: neighbours in number, as equal in size as can be."""
    return np.arange(settings.n_batches) * settings.n_groups // settings.n_batches


def draw_cells(settings: Simulation):
    """Return obs, and the codes of type, batch, covariate and whether the cell is dying (B,)."""
    import pandas as pd

    n, rng = settings.n_cells, settings.stream("mixture")
    batch = np.sort(np.arange(n) % settings.n_batches)
    shares = rng.dirichlet(np.full(settings.n_types, MIXTURE), size=settings.n_batches)
    if settings.private_type:
        shares[:-1, -1] = 0
    cumulative = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
    kind = (rng.random(n)[:, None] > cumulative[batch, :-1]).sum(axis=1)
    spread = settings.library_spread * settings.stream("library").normal(size=n)
    dying = settings.stream("dying").random(n) < settings.low_quality
    library = settings.library_size * np.exp(spread) * np.where(dying, DYING_LIBRARY, 1)
    hidden = settings.stream("label").random(n) < settings.unlabelled
    true = np.array(names("type", settings.n_types), dtype=object)[kind]
    columns = {
        "batch": np.array(names("batch", settings.n_batches), dtype=object)[batch],
        "cell_type": np.where(hidden, UNKNOWN, true),
        "true_cell_type": pd.Categorical(true, names("type", settings.n_types)),
        "true_group": np.array(names("group", settings.n_groups))[group_of_batch(settings)][batch],
        "true_quality": np.where(dying, "dying", "good"),
    }
    level = settings.stream("level").integers(2, size=n)
    if settings.covariate_strength:
        columns["protocol"] = np.array(names("protocol", 2), dtype=object)[level]
    obs = pd.DataFrame(columns, index=names("cell", n)).astype("category")
    obs["true_library_size"] = library
    return obs, {"type": kind, "batch": batch, "covariate": level, "dying": dying}


def draw_counts(settings: Simulation, genes, effects, obs, codes):
    """Return the counts as int32 CSR (B, G), drawn in blocks of cells."""
    import scipy.sparse as sp

    log_base = np.log(genes["true_share"].to_numpy())
    theta = genes["true_theta"].to_numpy()
    is_mt = genes.index.str.startswith("MT-").astype(float)
    library = obs["true_library_size"].to_numpy()
    step, blocks = max(1, BLOCK // len(genes)), []
    for start in range(0, settings.n_cells, step):
        rows = slice(start, start + step)
        share = log_base + effects["type"].T[codes["type"][rows]]  # (block, G)
        share += effects["batch"].T[codes["batch"][rows]]
        if settings.covariate_strength:
            share += effects["covariate"].T[codes["covariate"][rows]]
        share += np.outer(codes["dying"][rows], is_mt * np.log(DYING_MT))
        np.exp(share, out=share)
        mu = share * (library[rows] / share.sum(axis=1))[:, None]
        rng = settings.stream("counts", start)
        drawn = rng.poisson(rng.gamma(theta, mu / theta))
        if settings.dropout:
            drawn[rng.random(drawn.shape) < settings.dropout] = 0
        blocks.append(sp.csr_matrix(drawn.astype(np.int32)))
    return sp.vstack(blocks, format="csr")
