"""A model of scvi-tools put to use on a dataset: genes, batches and covariates matched by name.

The model becomes one of the dataset's own, with its batches and covariates in its order, so that
everything that asks a trained model can ask it. No weight is learnt:

- of the columns of one-hot covariates those are taken that the dataset has;
- where the dataset has one category only, that column is a constant and joins the bias;
- covariates of the dataset that the model does not know get columns of zeros;
- a category that the model does not know gets the mean of the known ones, if only the decoder sees
  it: latent states are then the model's own, expression and likelihoods of such cells a guess.

An imported model may have learnt from cells and labels that are hidden from the models trained
here, so its scores say less than theirs.

Letters for shapes: C one-hot columns, M numbers, S batches, each of the model and of the data.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sclatent.data.store import covariates
from sclatent.errors import InputError, problem
from sclatent.models.published import Published
from sclatent.models.scanvi import SCANVI
from sclatent.models.scvi import SCVI
from sclatent.training.loader import Cells, Sizes, gather_cells


class Wiring(NamedTuple):
    """How the inputs of a model's layers come from what a dataset has."""

    columns: Tensor  # (C of the model, C of the data)
    constant: Tensor  # (C of the model,), columns that are the same in all cells
    numbers: Tensor  # (M of the model, M of the data)
    batches: Tensor  # (S of the model, S of the data)


def check_genes(there, published: Published, where: str) -> None:
    """Raise where a dataset lacks genes of the model.

    Parameters
    ----------
    there
        Names of the genes that quality control kept.
    published
        The model.
    where
        Its folder, for messages.

    Raises
    ------
    InputError
        When a gene is missing. It is never taken for one that is not expressed.
    """
    missing = sorted(set(published.genes) - set(there), key=published.genes.index)
    if missing:
        what = f"{len(missing):,} of its {len(published.genes):,} genes are not in the dataset, "
        what += f"such as {', '.join(missing[:3])}"
        fix = "give a dataset with these genes, named alike; qc.min_cells_per_gene: 1 drops fewest"
        if len(missing) == len(published.genes):
            fix = f"name the genes alike: the dataset has {', '.join(there[:3])}"
        raise InputError(problem("E520", where, what, fix))


def adopt(published: Published, adata, where: str, device: str = "cpu") -> tuple:
    """Return the model for the batches and covariates of a dataset.

    Parameters
    ----------
    published
        The model.
    adata
        The dataset's cells with the model's genes.
    where
        The model's folder, for messages.
    device
        ``cpu`` or ``cuda``.

    Returns
    -------
    model, cells
        Ready for use; the cells' classes are the model's.

    Raises
    ------
    InputError
        When the dataset lacks a covariate of the model, or has a category that its encoder would
        have to know.
    """
    print(f"NOTE {where} may have learnt from cells and labels that are held out or hidden here")
    cells = gather_cells(adata, device)
    if len(published.batches) == 1 < len(cells.batches):
        print(f"WARNING the model knows one batch only, {published.batches[0]}: it corrects none")
    model = published.model
    scvi = model.scvi if isinstance(model, SCANVI) else model
    wiring = wire(published, scvi.settings.encode_covariates, adata, cells, where)
    changed = rewire(scvi, wiring, cells.sizes._replace(labels=scvi.sizes.labels))
    if isinstance(model, SCANVI):
        model.scvi = changed
        changed = model
    return changed.to(device).eval(), replace(cells, classes=published.classes)


def wire(published: Published, encoded: bool, adata, cells: Cells, where: str) -> Wiring:
    """Match the covariates of a model, which its encoder sees or not, with those of a dataset."""
    if "batch" in published.categorical:
        refuse_missing("batch", covariates(adata)[0], "categorical_covariates", where)
    there = {"batch": list(map(str, cells.batches)), **cells.covariates.categories}
    asked = {"batch": published.batches, **published.categorical}
    at, n_columns = {}, 0
    for name, categories in there.items():
        if len(categories) > 1:
            at[name] = slice(n_columns, n_columns + len(categories))
            n_columns += len(categories)
    columns, constants = [torch.zeros(0, n_columns)], [torch.zeros(0)]
    for name, known in asked.items():
        if len(known) == 1:
            continue
        found = there.get(name) or only_category(name, adata, where)
        chosen = choose(name, known, found, encoded, where)
        wide = torch.zeros(len(known), n_columns)
        if name in at:
            wide[:, at[name]] = chosen
        columns.append(wide)
        constants.append(torch.zeros(len(known)) if name in at else chosen[:, 0])
    return Wiring(
        torch.cat(columns),
        torch.cat(constants),
        match_numbers(published.continuous, cells.covariates.numbers, where),
        choose("batch", published.batches, there["batch"], False, where, quiet=True),
    )


def only_category(name: str, adata, where: str) -> list[str]:
    """Return the one category of a covariate that all cells share."""
    categorical, _ = covariates(adata)
    if name not in categorical:
        refuse_missing(name, categorical, "categorical_covariates", where)
    return [str(adata.obs[name].iloc[0])]


def choose(
    name: str, known: list, found: list, encoded: bool, where: str, quiet: bool = False
) -> Tensor:
    """Return the share of each known category in each found one, (known, found).

    A found category is the known one of its name, or the mean of all where there is none.
    """
    unknown = [category for category in found if category not in known]
    said = f"{len(unknown)} of {len(found)} values of {name} are unknown to the model, "
    said += f"such as {', '.join(unknown[:3])}"
    if unknown and encoded:
        fix = f"rename them to what the model knows ({', '.join(known[:10])}), or leave it out"
        raise InputError(problem("E522", where, f"{said}, and its encoder needs them", fix))
    if unknown and not quiet:
        print(f"NOTE {said}: the decoder takes the mean of those it knows; the latent needs none")
    shares = torch.full((len(known), len(found)), 1 / len(known))
    for place, category in enumerate(found):
        if category in known:
            shares[:, place] = 0
            shares[known.index(category), place] = 1
    return shares


def match_numbers(asked: list, there: list, where: str) -> Tensor:
    """Return a one where a number of the model is one of the data, (M, M)."""
    for name in asked:
        if name not in there:
            refuse_missing(name, there, "continuous_covariates", where)
    same = np.array(asked, dtype=object)[:, None] == np.array(there, dtype=object)
    return torch.from_numpy(same.reshape(len(asked), len(there)).astype(np.float32))


def refuse_missing(name: str, there: list, key: str, where: str) -> None:
    """Raise that the dataset does not name a covariate of the model."""
    what = f"the model knows the covariate '{name}', which the dataset does not name"
    raise InputError(problem("E521", where, what, f"add it to the dataset's {key}"))


def rewire(scvi: SCVI, wiring: Wiring, sizes: Sizes) -> SCVI:
    """Return the same model for the inputs of a dataset."""
    changed, own = SCVI(sizes, scvi.settings), scvi.state_dict()
    for name, first in readers(scvi):
        weight = own[f"{name}.weight"]
        n_columns, n_numbers = len(wiring.columns), len(wiring.numbers) if first else 0
        plain, numbers, columns = weight.split(
            [weight.shape[1] - n_numbers - n_columns, n_numbers, n_columns], 1
        )
        new_numbers = [numbers @ wiring.numbers] if first else []
        own[f"{name}.weight"] = torch.cat([plain, *new_numbers, columns @ wiring.columns], 1)
        shift = columns @ wiring.constant
        if f"{name}.bias" in own:
            own[f"{name}.bias"] = own[f"{name}.bias"] + shift
        else:  # a linear decoder: what is added before the normalisation is not subtracted there
            mean = f"{name.removesuffix('0')}1.running_mean"
            own[mean] = own[mean] - shift
    if scvi.settings.dispersion == "gene-batch":
        own["dispersion.log_theta"] = wiring.batches.T @ own["dispersion.log_theta"]
    if scvi.settings.library == "latent":
        for name in ("library.mean", "library.variance"):
            own[name] = wiring.batches.T @ own[name]
    standard = {name: changed.state_dict()[name] for name in ("number_mean", "number_sd")}
    changed.load_state_dict(own | standard)
    return changed


def readers(scvi: SCVI) -> list[tuple[str, bool]]:
    """Return the linear maps that see covariates, and whether they see numbers too."""
    layers = [(f"linear.{layer}", layer == 0) for layer in range(scvi.settings.n_layers)]
    found = [("share.0", True), ("dropout_logit.0", True)]
    if scvi.settings.decoder != "linear":
        found = [(f"decoder.{name}", first) for name, first in layers]
    if scvi.settings.likelihood != "zinb":
        found = [reader for reader in found if reader[0] != "dropout_logit.0"]
    if scvi.settings.encode_covariates:
        found += [(f"encoder.layers.{name}", first) for name, first in layers]
        if scvi.settings.library == "latent":
            found.append(("library.encoder.layers.linear.0", True))
    return found
