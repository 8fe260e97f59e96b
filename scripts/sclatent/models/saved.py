"""Trained models of every kind on disk, saved with what they were trained on, and loaded."""

from dataclasses import asdict, replace

from sclatent.errors import InputError, problem
from sclatent.models.dca import DCA, Dca
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi, build_scvi
from sclatent.training import checkpoint
from sclatent.training.loader import Cells, Sizes, gather_cells, label_codes


def save(folder, model, genes, cells: Cells) -> None:
    """Write a model and what it was trained on.

    Parameters
    ----------
    folder
        Made when it is missing.
    model
        An SCVI, SCANVI or DCA.
    genes
        Names of the genes, in order.
    cells
        The cells that it was trained with; their batches, covariates and classes are kept.
    """
    checkpoint.save_model(folder, model, {**settings(model), **contents(genes, cells)})


def load(folder, genes, cells: Cells):
    """Load a model, ready for use, for data with the same genes, batches and covariates.

    Parameters
    ----------
    folder
        As written by `save`.
    genes
        Names of the genes of `cells`, in order.
    cells
        What the model will be used on.

    Raises
    ------
    InputError
        When genes, batches or covariates, in order, are not those of the model.
    """
    model, description = restore(folder)
    check_alignment(folder, model, description, contents(genes, cells))
    return model.to(cells.device)


def check_alignment(folder, model, description: dict, there: dict) -> None:
    """Raise an InputError where the genes, batches or covariates are not those of the model."""
    needs_labels = isinstance(model, SCVI) and model.settings.needs_labels
    for name in ("genes", "batches", "covariates", *(["classes"] if needs_labels else [])):
        if there[name] != description[name]:
            what = f"its {name} are not those of the data"
            raise InputError(problem("E324", str(folder), what, "delete the folder and run again"))


def restore(folder) -> tuple:
    """Return a saved model, ready for use, and its description."""
    weights, description = checkpoint.load_model(folder)
    model = build(description)
    model.load_state_dict(weights)
    return model.eval(), description


def load_for(folder, adata, device: str = "cpu") -> tuple:
    """Load a model together with what it may see of some cells.

    Parameters
    ----------
    folder
        As written by `save`.
    adata
        Cells with the model's genes, as `read_cells` gives them with splits.
    device
        ``cpu`` or ``cuda``.

    Returns
    -------
    model, cells
        Labels that training could see are given in the classes of the model.

    Raises
    ------
    InputError
        As for `load`, and where the device is not there.
    """
    cells = gather_cells(adata, device)
    model, description = restore(folder)
    if classes := description["classes"]:
        cells = replace(cells, label=label_codes(adata, classes), classes=classes)
    check_alignment(folder, model, description, contents(adata.var_names, cells))
    return model.to(device), cells


def load_or_build(folder, genes, cells: Cells, train, settings: Scvi, seed: int) -> SCVI:
    """Return a trained scVI, or an untrained one where there is no folder.

    Parameters
    ----------
    folder
        As written by `save`; empty or None for an untrained model.
    genes, cells
        As for `load`.
    train, settings, seed
        As for `build_scvi`.
    """
    return load(folder, genes, cells) if folder else build_scvi(cells, train, settings, seed)


def contents(genes, cells: Cells) -> dict:
    """Return what a model is aligned with, as JSON values."""
    covariates = cells.covariates
    return {
        "genes": list(genes),
        "batches": list(map(str, cells.batches)),
        "covariates": {"categorical": covariates.categories, "continuous": covariates.numbers},
        "classes": list(cells.classes),
        "sizes": cells.sizes._asdict(),
    }


def settings(model) -> dict:
    """Return a model's kind and settings."""
    if isinstance(model, DCA):
        return {"kind": "dca", "settings": {"dca": asdict(model.settings)}}
    if isinstance(model, SCANVI):
        both = {"scvi": asdict(model.scvi.settings), "scanvi": asdict(model.settings)}
        return {"kind": "scanvi", "settings": both}
    return {"kind": "scvi", "settings": {"scvi": asdict(model.settings)}}


def build(description: dict):
    """Return an untrained model of the kind, settings and sizes described."""
    given, sizes = description["settings"], Sizes(**description["sizes"])
    if description["kind"] == "dca":
        return DCA(sizes.genes, Dca(**given["dca"]))
    if description["kind"] == "scvi":
        return SCVI(sizes, Scvi(**given["scvi"]))
    return SCANVI(SCVI(sizes, Scvi(**given["scvi"])), sizes.labels, Scanvi(**given["scanvi"]))
