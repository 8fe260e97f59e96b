"""Two-dimensional layouts of a latent, for viewing only.

A layout tears neighbourhoods apart and invents gaps. So each comes from several seeds, but for
atlases, where it would take too long, with its
trustworthiness (the share of its neighbourhoods that the latent confirms), and nothing is
clustered or scored on it.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent import files
from sclatent.cells.graph import Graph

if TYPE_CHECKING:
    from anndata import AnnData

N_JUDGED = 5000
"""Cells that trustworthiness is measured on; its memory grows with their square."""
SPECTRAL_UP_TO = 200_000
"""Cells up to which UMAP starts from the graph's spectrum, whose time grows faster than cells."""
N_NEIGHBORS = 15
"""Neighbours that trustworthiness compares."""


@dataclass(frozen=True)
class LayoutSettings:
    """The config's section `layout`."""

    methods: tuple[str, ...] = ("umap",)
    seeds: tuple[int, ...] = (0, 1, 2)
    min_dist: float = 0.3
    several_up_to: int = 200_000

    def shown(self, n_cells: int) -> tuple[int, ...]:
        """Return the seeds to lay out; only the first where each would take too long."""
        if n_cells <= self.several_up_to or len(self.seeds) == 1:
            return tuple(self.seeds)
        print(f"above {self.several_up_to:,} cells there is one layout, not {len(self.seeds)}")
        return tuple(self.seeds[:1])


def lay_out_umap(latent: np.ndarray, graph: Graph, settings: LayoutSettings) -> AnnData:
    """Lay a graph out with UMAP from each seed.

    The weights are the graph's own, and the spectral start is computed once: the seeds differ in
    the noise on the start and in the negative samples, as they do in umap-learn.

    Parameters
    ----------
    latent : (B, L) array
        For the start of unconnected parts, and to judge the layouts.

    Returns
    -------
    AnnData
        As `gather` makes it.
    """
    umap = import_umap()
    # in single precision, as the layout is: powers are most of the time
    a, b = map(np.float32, umap.find_ab_params(1.0, settings.min_dist))
    start = spectral_start(latent, graph)

    def lay_out(seed: int) -> np.ndarray:
        random_state = np.random.RandomState(seed)  # umap-learn takes no Generator
        layout, _ = umap.simplicial_set_embedding(
            data=latent,
            graph=graph.connectivities.copy(),  # umap-learn drops weak edges in place
            n_components=2,
            initial_alpha=1.0,
            a=a,
            b=b,
            gamma=1.0,
            negative_sample_rate=5,
            n_epochs=None,
            init=umap.noisy_scale_coords(start, random_state, max_coord=10, noise=0.0001),
            random_state=random_state,
            metric="euclidean",
            metric_kwds={},
            densmap=False,
            densmap_kwds={},
            output_dens=False,
        )
        return layout

    return gather(latent, graph.cells, settings.shown(len(latent)), lay_out)


def import_umap():
    """Import UMAP's functions without its warning that TensorFlow is absent.

    The loop of a layout is compiled once per installation, where the compiled code can be kept.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import layouts, umap_
    with contextlib.suppress(AttributeError, RuntimeError):  # another release; nowhere to keep it
        layouts._nb_optimize_layout_euclidean_single_epoch.enable_caching()
    return umap_


def spectral_start(latent: np.ndarray, graph: Graph) -> np.ndarray:
    """Return the graph's spectral layout (B, 2).

    Where it fails, and above `SPECTRAL_UP_TO` cells, it is the first two principal components.
    """
    if len(latent) > SPECTRAL_UP_TO:
        print(f"above {SPECTRAL_UP_TO:,} cells UMAP starts from two principal components")
        return principal_plane(latent)
    import_umap()
    from umap.spectral import spectral_layout

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            random_state = np.random.RandomState(0)
            start = spectral_layout(latent, graph.connectivities, 2, random_state)
        if np.isfinite(start).all():
            return start.astype(np.float32)
        reason = "it is not finite"
    except (UserWarning, RuntimeError, TypeError, ValueError, np.linalg.LinAlgError) as error:
        reason = str(error).splitlines()[0]
    print(f"WARNING no spectral start ({reason}); UMAP starts from two principal components")
    return principal_plane(latent)


def principal_plane(latent: np.ndarray) -> np.ndarray:
    """Return the projection (B, 2) on the two principal axes, signs fixed."""
    centred = latent.astype(np.float64) - latent.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    largest = np.abs(axes).argmax(axis=0)
    return (centred @ (axes * np.sign(axes[largest, range(2)]))).astype(np.float32)


def lay_out_tsne(latent: np.ndarray, cells, settings: LayoutSettings) -> AnnData:
    """Lay a latent out with t-SNE from each seed.

    From a given start t-SNE draws nothing at random, so every seed would give the same layout.
    The start is therefore the principal plane, scaled to 1e-4 as scikit-learn does, with normal
    noise of a tenth of it.

    Returns
    -------
    AnnData
        As `gather` makes it.
    """
    from sklearn.manifold import TSNE

    plane = principal_plane(latent)
    plane *= 1e-4 / plane[:, 0].std()
    perplexity = min(30.0, (len(latent) - 1) / 3)

    def lay_out(seed: int) -> np.ndarray:
        noise = np.random.default_rng([seed, 0]).normal(0.0, 1e-5, plane.shape)
        start = (plane + noise).astype(np.float32)
        return TSNE(perplexity=perplexity, init=start, n_jobs=1).fit_transform(latent)

    return gather(latent, cells, settings.shown(len(latent)), lay_out)


def gather(latent: np.ndarray, cells, seeds, lay_out: Callable[[int], np.ndarray]) -> AnnData:
    """Make a layout per seed, judge it, and put all in one AnnData.

    Returns
    -------
    AnnData
        obsm["seed<seed>"] (B, 2) float32; uns["trustworthiness"] = {"seed<seed>": 0 to 1}.
    """
    import anndata
    import pandas as pd

    obs = pd.DataFrame(index=pd.Index(np.asarray(cells, dtype=object)))
    layouts = anndata.AnnData(obs=obs)
    trust = {}
    for seed in seeds:
        began = time.perf_counter()
        layout = np.ascontiguousarray(lay_out(seed), dtype=np.float32)
        layouts.obsm[f"seed{seed}"] = layout
        took = time.perf_counter() - began
        trust[f"seed{seed}"] = judge(latent, layout)
        print(f"seed {seed}: trustworthiness {trust[f'seed{seed}']:.3f}; {took:.1f} s", flush=True)
    layouts.uns["trustworthiness"] = trust
    return layouts


def judge(latent: np.ndarray, layout: np.ndarray) -> float:
    """Return the trustworthiness of a layout (0 to 1; 15 neighbours, at most 5000 cells).

    Every layout of a latent is judged on the same cells. Source: Venna and Kaski 2001.
    """
    from sklearn.manifold import trustworthiness

    n_cells = len(latent)
    rng = np.random.default_rng([0, N_JUDGED])
    rows = np.sort(rng.choice(n_cells, min(n_cells, N_JUDGED), replace=False))
    n_neighbors = max(1, min(N_NEIGHBORS, (len(rows) - 1) // 2))
    return float(trustworthiness(latent[rows], layout[rows], n_neighbors=n_neighbors))


def write_layout(path, layouts: AnnData) -> None:
    """Write the layouts of a latent."""
    files.write_h5ad(path, layouts)
