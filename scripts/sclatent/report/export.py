"""One AnnData per dataset, for scanpy and CELLxGENE.

| slot | holds |
|---|---|
| `X` | log1p of the counts scaled to 10,000 per cell, float32 |
| `layers["counts"]` | the raw counts, int32 |
| `obsm["X_pca"]`, `X_pca_harmony`, `X_dca`, `X_scVI`, `X_scANVI` | latents, else `X_<latent>` |
| `obsm["X_umap"]`, `obsm["X_umap_<latent>"]` | layouts of the main and of the other latents |
| `obs["cell_type"]` | the observed label, never a predicted one |
| `obs["predicted_<classifier>"]`, `..._probability` | the predicted label and its probability |
| `obsm["<classifier>_probabilities"]` | one column per name in `uns["<classifier>_classes"]` |
| `obs["leiden"]`, `obs["leiden_<latent>_<resolution>"]` | clusters |
| `obs["cells_split"]`, `obs["labels_split"]`, `var["highly_variable"]` | what the models saw |
| `varm["<latent's slot>_loadings"]` | of a linear decoder; NaN for genes the model did not see |
| `uns["sclatent"]` | JSON: dataset, seed, latents, what X is, version of this format |

There is no `raw`: scanpy's plots and tests prefer `raw` to X and take it for logarithms, so raw
counts there would be read wrongly without a word. To submit to CELLxGENE Discover, which wants
counts in `raw.X` as float32, move them:
``adata.raw = anndata.AnnData(adata.layers["counts"].astype("float32"), var=adata.var[[]])``.
Its other rules are kept: unique names, CSR, finite arrays (never tables) in obsm.
"""

import json

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from sclatent import files
from sclatent.baselines.pca import log_normalise
from sclatent.data.blocks import Dataset
from sclatent.data.store import positions, read_latent
from sclatent.figures import style
from sclatent.figures.layouts import read_layout, resolutions
from sclatent.labels.tables import read_labels

FORMAT = 1
TARGET = 10_000
SLOTS = {
    "pca": "X_pca",
    "harmony": "X_pca_harmony",
    "scvi": "X_scVI",
    "scanvi": "X_scANVI",
    "dca": "X_dca",
}


def slot(latent: str) -> str:
    """Return the key of a latent in obsm, as the ecosystem spells it: X_scVI, X_scVI_linear."""
    model, _, variant = latent.partition("_")
    return "_".join(filter(None, [SLOTS.get(model, f"X_{model}"), variant]))


def gather(dataset, genes, latents, labels, clusters, layouts, loadings, main):
    """Bring everything that is known about the cells of one dataset together.

    Parameters
    ----------
    dataset : Dataset
        Raw counts of all genes, with splits.
    genes : path
        The table of highly variable genes.
    latents, labels, clusters : dict of str to path
        Files by latent, by classifier, by latent.
    layouts : dict of (str, str) to path
        Layouts by latent and method.
    loadings : dict of str to path
        Tables of gene loadings, by latent.
    main : dict
        `latent` and `resolution` that get the plain names, `dataset` and `seed`.

    Returns
    -------
    Dataset
        As the module describes; the matrices are computed as they are written.
    """
    cells = dataset.table.copy()
    cells.uns["log1p"] = {"base": float(np.e)}
    chosen = positions(cells.var_names, files.read_table(genes)["gene"], genes, "the cells", "gene")
    cells.var["highly_variable"] = np.isin(np.arange(cells.n_vars), chosen)
    for latent, path in latents.items():
        cells.obsm[slot(latent)] = read_latent(path, cells.obs_names)
    for latent, path in loadings.items():
        cells.varm[f"{slot(latent)}_loadings"] = read_loadings(path, cells.var_names)
    for (latent, method), path in layouts.items():
        plain = latent == main["latent"]
        key = f"X_{method}" if plain else f"X_{method}_{latent}"
        cells.obsm[key] = read_layout(path, cells.obs_names, method).first.astype(np.float32)
    columns = {}
    for latent, path in clusters.items():
        columns |= read_clusters(path, cells.obs_names, latent, main)
    for classifier, path in labels.items():
        columns |= add_labels(cells, path, classifier)
    cells.obs = with_columns(cells.obs, columns)
    add_colours(cells)
    cells.uns["sclatent"] = description(cells, latents, labels, main)
    normalised = dataset.counts.map(normalise, np.float32)
    return Dataset(cells, normalised, {"counts": dataset.counts})


def normalise(counts) -> csr_matrix:
    """Return log1p of some cells' counts (B, G) scaled to `TARGET` per cell, float32."""
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    return log_normalise(counts, totals, TARGET)


def read_loadings(path, genes) -> np.ndarray:
    """Return the loadings of all genes (G, L) float32, NaN for those that are not in the table."""
    table = files.read_table(path)
    rows = positions(genes, table["gene"], path, "the cells", "gene")
    loadings = np.full((len(genes), table.shape[1] - 1), np.nan, dtype=np.float32)
    loadings[rows] = table.drop(columns="gene").to_numpy(dtype=np.float32)
    return loadings


def read_clusters(path, cells, latent: str, main: dict) -> dict[str, pd.Categorical]:
    """Return the clusters of a latent at every resolution as columns of obs."""
    table = files.read_table(path)
    rows = positions(table["cell"], cells, "the cells", path, "cell")
    columns = {}
    for column in table.columns.drop("cell"):
        values = table[column].to_numpy(dtype=int)[rows]
        names = [str(cluster) for cluster in np.unique(values)]
        clusters = pd.Categorical(values.astype(str), categories=names)
        columns[f"leiden_{latent}_{column.removeprefix('leiden_')}"] = clusters
    if latent == main["latent"]:
        chosen = resolutions(table)[float(main["resolution"])].removeprefix("leiden_")
        columns = {"leiden": columns[f"leiden_{latent}_{chosen}"]} | columns
    return columns


def add_labels(cells, path, classifier: str) -> dict:
    """Put a classifier's probabilities in obsm; return its predicted labels as columns of obs."""
    found = read_labels(path, cells.obs_names)
    cells.obsm[f"{classifier}_probabilities"] = found.probabilities.astype(np.float32)
    cells.uns[f"{classifier}_classes"] = found.classes.astype(object)
    return {
        f"predicted_{classifier}": pd.Categorical(found.labels),
        f"predicted_{classifier}_probability": found.probabilities.max(axis=1).astype(np.float32),
    }


def with_columns(obs: pd.DataFrame, columns: dict) -> pd.DataFrame:
    """Return obs with new columns; the user's own columns of these names become original_*."""
    clashes = {column: f"original_{column}" for column in columns if column in obs}
    for old, new in clashes.items():
        print(f"the column '{old}' that came with the data is kept as '{new}'")
    return pd.concat([obs.rename(columns=clashes), pd.DataFrame(columns, index=obs.index)], axis=1)


def add_colours(cells) -> None:
    """Store the report's colours of types and batches where scanpy and CELLxGENE look."""
    for column, colours in (("cell_type", style.colours), ("batch", style.batch_colours)):
        names = list(cells.obs[column].cat.categories)
        palette = colours(names)
        cells.uns[f"{column}_colors"] = np.array([palette[name] for name in names], dtype=object)


def description(cells, latents, classifiers, main: dict) -> str:
    """Return what the file holds, as JSON."""
    content = {
        "format": FORMAT,
        "dataset": main["dataset"],
        "seed": main["seed"],
        "X": f"log1p of the counts scaled to {TARGET:,} per cell",
        "counts": "layers['counts']",
        "latents": {latent: slot(latent) for latent in latents},
        "main_latent": main["latent"],
        "main_resolution": main["resolution"],
        "classifiers": list(classifiers),
        "n_cells": cells.n_obs,
        "n_genes": cells.n_vars,
    }
    return json.dumps(content, sort_keys=True, ensure_ascii=False)
