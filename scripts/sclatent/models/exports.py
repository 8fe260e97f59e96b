"""Models trained here as scvi-tools reads them: a folder with one file, model.pt.

It holds the weights, and what `SCVI.load`, `SCANVI.load` or `LinearSCVI.load` of scvi-tools 1.4
needs to set up an AnnData: the names of genes, batches, covariates and labels. The AnnData is to be
the exported dataset with the model's genes only, or one of the same columns, with counts in
`layers["counts"]`.

A label that was too rare to be learnt is not among the labels of the file.
"""

import io

import numpy as np
import torch

from sclatent import files
from sclatent.data.store import UNKNOWN
from sclatent.models.exchange import to_scvi_tools
from sclatent.models.scanvi import SCANVI

VERSION = "1.4.2"
"""The release of scvi-tools whose format is written."""


def write_export(path, model, description: dict) -> None:
    """Write a model for scvi-tools.

    Parameters
    ----------
    path
        Of the file, which scvi-tools wants to be called model.pt.
    model
        An SCVI or SCANVI.
    description
        What it is aligned with, as `saved.restore` gives it.

    Raises
    ------
    InputError
        When scvi-tools has no such model.
    """
    weights = to_scvi_tools(model)
    settings = (model.scvi if isinstance(model, SCANVI) else model).settings
    for name in ("prior", "adversary"):
        if getattr(settings, name) not in ("normal", 0):
            print(f"NOTE the {name} had a part in training only; scvi-tools keeps none, it is left")
    content = {
        "model_state_dict": weights,
        "var_names": np.array(description["genes"], dtype=object),
        "attr_dict": {
            "registry_": registry(model, settings, description),
            "init_params_": options(model, settings),
            "is_trained_": True,
            "history_": {},
        },
    }
    buffer = io.BytesIO()  # a file would lend its name to the archive, and change its bytes
    torch.save(content, buffer)
    with files.safely(path, hashed=True) as partial:
        partial.write_bytes(buffer.getvalue())


def name_of_class(model, settings) -> str:
    """Return the class of scvi-tools that has this model."""
    if isinstance(model, SCANVI):
        return "SCANVI"
    return "LinearSCVI" if settings.decoder == "linear" else "SCVI"


def options(model, settings) -> dict:
    """Return the arguments with which scvi-tools makes the model."""
    kind = name_of_class(model, settings)
    named = {
        "n_hidden": settings.n_hidden,
        "n_latent": settings.n_latent,
        "n_layers": settings.n_layers,
        "dropout_rate": settings.dropout,
        "dispersion": settings.dispersion,
        "gene_likelihood": settings.likelihood,
        "use_observed_lib_size": settings.library == "observed",
    }
    further = {} if kind == "LinearSCVI" else {"encode_covariates": settings.encode_covariates}
    where = "kwargs" if kind == "SCVI" else "model_kwargs"
    return {"non_kwargs": named, "kwargs": {where: further}}


def registry(model, settings, description: dict) -> dict:
    """Return how an AnnData is set up for the model, as scvi-tools keeps it."""
    kind = name_of_class(model, settings)
    known, covariates = description["classes"], description["covariates"]
    labelled = kind == "SCANVI" or settings.needs_labels
    labels = column("labels", "cell_type" if labelled else None, [*known, UNKNOWN])
    setup = {
        "layer": "counts",
        "batch_key": "batch",
        "labels_key": "cell_type" if labelled else None,
    }
    genes = np.array(description["genes"], dtype=object)
    fields = {
        "X": {
            "data_registry": {"attr_name": "layers", "attr_key": "counts"},
            "state_registry": {"n_obs": 0, "n_vars": len(genes), "column_names": genes},
            "summary_stats": {"n_vars": len(genes), "n_cells": 0},
        },
        "batch": column("batch", "batch", description["batches"]),
        "labels": labels,
    }
    if kind != "LinearSCVI":
        fields |= further_columns(covariates)
        setup["size_factor_key"] = None
        setup["categorical_covariate_keys"] = list(covariates["categorical"]) or None
        setup["continuous_covariate_keys"] = covariates["continuous"] or None
    if kind == "SCANVI":
        labels["state_registry"]["unlabeled_category"] = UNKNOWN
        setup["unlabeled_category"] = UNKNOWN
    return {
        "scvi_version": VERSION,
        "model_name": kind,
        "setup_method_name": "setup_anndata",
        "setup_args": setup,
        "field_registries": fields,
    }


def column(name: str, key: str | None, categories: list) -> dict:
    """Return the entry of a column of categories; one of a single value where there is no key."""
    values = np.array(categories, dtype=object) if key else np.array([0])
    return {
        "data_registry": {"attr_name": "obs", "attr_key": f"_scvi_{name}"},
        "state_registry": {"categorical_mapping": values, "original_key": key or f"_scvi_{name}"},
        "summary_stats": {f"n_{name}": len(values)},
    }


def further_columns(covariates: dict) -> dict:
    """Return the entries of covariates beside the batch, and of size factors, which none has."""
    nothing = {"data_registry": {}, "state_registry": {}, "summary_stats": {}}
    categorical, continuous = covariates["categorical"], covariates["continuous"]
    of_categories, of_numbers = dict(nothing), dict(nothing)
    if categorical:
        names = {name: np.array(values, dtype=object) for name, values in categorical.items()}
        sizes = [len(values) for values in names.values()]
        of_categories = matrix("extra_categorical_covs")
        of_categories["state_registry"] = {
            "mappings": names,
            "field_keys": list(names),
            "n_cats_per_key": sizes,
        }
    if continuous:
        of_numbers = matrix("extra_continuous_covs")
        of_numbers["state_registry"] = {"columns": np.array(continuous, dtype=object)}
    of_categories["summary_stats"] = {"n_extra_categorical_covs": len(categorical)}
    of_numbers["summary_stats"] = {"n_extra_continuous_covs": len(continuous)}
    return {
        "size_factor": nothing,
        "extra_categorical_covs": of_categories,
        "extra_continuous_covs": of_numbers,
    }


def matrix(name: str) -> dict:
    """Return the entry of columns that scvi-tools gathers in obsm."""
    return {"data_registry": {"attr_name": "obsm", "attr_key": f"_scvi_{name}"}}
