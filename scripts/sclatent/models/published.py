"""The models that scvi-tools saves: a folder with one file, model.pt, which is a pickle.

A pickle can run any program when it is opened. So the file is read by PyTorch's restricted loader,
which builds nothing but tensors and what is listed here: plain containers and numpy arrays. What
pandas wrote, the history of the training, becomes an empty object. Everything else is refused by
its name.

Read are `SCVI`, `LinearSCVI` and `SCANVI` as scvi-tools saves them since 0.15, where their options
are those that this project has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sclatent.data.columns import word
from sclatent.data.store import UNKNOWN
from sclatent.errors import InputError, problem
from sclatent.models.exchange import from_scvi_tools
from sclatent.models.scanvi import SCANVI
from sclatent.models.scvi import SCVI, Scvi
from sclatent.training.loader import Sizes

KINDS = ("SCVI", "LinearSCVI", "SCANVI")
OPTIONS = {
    "gene_likelihood": "likelihood",
    "dispersion": "dispersion",
    "n_latent": "n_latent",
    "n_hidden": "n_hidden",
    "n_layers": "n_layers",
    "dropout_rate": "dropout",
    "encode_covariates": "encode_covariates",
}
"""Options of scvi-tools under the names that they have here."""
USUAL = {
    "latent_distribution": ("normal",),
    "deeply_inject_covariates": (True,),
    "batch_representation": ("one-hot",),
    "log_variational": (True,),
    "use_batch_norm": ("both", True),
    "use_layer_norm": ("none", False),
    "bias": (False,),
    "linear_classifier": (False,),
    "use_labels_groups": (False,),
}
"""Options that have one value here. An option that stands nowhere may be None or empty."""


class Discarded:
    """Stands where pandas pickled something; holds nothing."""

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        pass


def plain_dict(*arguments) -> dict:
    """Return an empty dict, whatever a defaultdict was made with."""
    return {}


ALLOWED: dict[str, Callable] = {
    "builtins.bytes": bytes,
    "builtins.dict": dict,
    "builtins.slice": slice,
    "collections.defaultdict": plain_dict,
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    **{
        f"numpy.{core}.multiarray.{name}": getattr(np._core.multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
}
"""What a file may name beside tensors, and what it gets."""
DTYPES = [getattr(np.dtypes, name) for name in np.dtypes.__all__]


@dataclass(frozen=True)
class Published:
    """A model of scvi-tools in the words of this project.

    Attributes
    ----------
    model
        With the batches, covariates and genes that follow, in their order.
    genes, batches
        Their names.
    categorical
        The categories of each categorical covariate.
    continuous
        Names of the continuous covariates.
    classes
        The labels that it knows; empty where it makes no difference between them.
    """

    model: SCVI | SCANVI
    genes: list[str]
    batches: list[str]
    categorical: dict[str, list[str]]
    continuous: list[str]
    classes: list[str]


def read_published(folder) -> Published:
    """Read the folder of a model that scvi-tools saved. Nothing in it is run.

    Raises
    ------
    InputError
        When there is no such file, it holds anything but data, it is no model of scvi-tools, or its
        class or one of its options is not among those of this project.
    """
    path = Path(folder) / "model.pt"
    content = read_data(path)
    try:
        return describe(path, content)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        what = f"it is no model as scvi-tools saves it ({first_line(error)})"
        raise refusal("E512", path, what) from error


def read_data(path: Path):
    """Return what a file of `torch.save` holds, if it is nothing but data.

    Raises
    ------
    InputError
        When it is not there, is broken, or names what is not allowed.
    """
    if not path.is_file():
        raise refusal("E301", path, "there is no such file")
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:
        raise refusal(
            "E510",
            path,
            f"it is not a file that torch.save wrote, or not all of it ({first_line(error)})",
        ) from error
    discarded = {name: Discarded for name in named if name.startswith("pandas.")}
    unknown = sorted(set(named) - ALLOWED.keys() - discarded.keys())
    if unknown:
        what = f"it would run or build {', '.join(unknown[:5])}, which is no data; nothing was run"
        raise refusal("E511", path, what)
    allowed = [(stands, name) for name, stands in (ALLOWED | discarded).items()]
    try:
        with torch.serialization.safe_globals([*allowed, *DTYPES]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise refusal(
            "E510", path, f"it cannot be read as data alone ({first_line(error)})"
        ) from error


def describe(path: Path, content: dict) -> Published:
    """Return a model from what its file holds."""
    attributes, weights = content["attr_dict"], content["model_state_dict"]
    registry = attributes["registry_"]
    kind = registry["model_name"]
    if kind not in KINDS:
        raise refusal(
            "E513", path, f"it is a model of class {kind}", f"give one of {', '.join(KINDS)}"
        )
    if not attributes["is_trained_"]:
        raise refusal("E514", path, "its model was never trained", "train it first")
    if registry["setup_args"].get("size_factor_key"):
        what = f"it reads size factors from '{registry['setup_args']['size_factor_key']}'"
        raise refusal("E513", path, what, "give a model without size_factor_key")
    settings = read_settings(path, kind, attributes["init_params_"])
    state = {name: of["state_registry"] for name, of in registry["field_registries"].items()}
    batches = texts(state["batch"]["categorical_mapping"])
    of_categories = state.get("extra_categorical_covs") or {"field_keys": []}
    of_numbers = state.get("extra_continuous_covs") or {"columns": []}
    categorical = {
        key: texts(of_categories["mappings"][key]) for key in of_categories["field_keys"]
    }
    labels = texts(state["labels"]["categorical_mapping"])
    hidden = state["labels"].get("unlabeled_category", UNKNOWN)
    classes = [label for label in labels if label != hidden]
    if kind != "SCANVI" and not settings.needs_labels:
        classes = []
    tensors = read_tensors(path, weights)
    genes = [str(gene) for gene in content["var_names"]]
    check_genes(path, genes, tensors)
    if settings.needs_labels:
        order = [labels.index(label) for label in [*classes, *set(labels) - set(classes)]]
        tensors["px_r"] = tensors["px_r"][:, order]
    one_hot = sum(len(values) for values in categorical.values() if len(values) > 1)
    sizes = Sizes(len(genes), len(batches), len(classes), one_hot, len(of_numbers["columns"]))
    model = from_scvi_tools(tensors, settings, sizes)
    return Published(model, genes, batches, categorical, texts(of_numbers["columns"]), classes)


def read_settings(path: Path, kind: str, given: dict) -> Scvi:
    """Return a model's options in the words of this project, from its `init_params_`."""
    options = dict(given["non_kwargs"])
    for further in given["kwargs"].values():
        options |= further
    changed = {}
    if kind == "LinearSCVI":
        changed["decoder"] = "linear"
        options.setdefault("gene_likelihood", "nb")
    for name, value in options.items():
        if name in OPTIONS:
            changed[OPTIONS[name]] = value
        elif name == "use_observed_lib_size":
            changed["library"] = "observed" if value else "latent"
        elif name not in USUAL and value not in (None, {}, False):
            raise refusal("E513", path, f"its option {name} is {value!r}, which is not known here")
        elif name in USUAL and value not in USUAL[name]:
            raise refusal(
                "E513", path, f"its option {name} is {value!r}, which is not there in this project"
            )
    if changed["likelihood"] not in ("nb", "zinb", "poisson"):
        raise refusal(
            "E513", path, f"its likelihood is {changed['likelihood']}", "give nb, zinb or poisson"
        )
    return Scvi(**changed)


def read_tensors(path: Path, weights: dict) -> dict[str, Tensor]:
    """Return the tensors of a state dict; the store of pyro, always there, must be empty."""
    weights = dict(weights)
    if any(weights.pop("pyro_param_store", {}).values()):
        raise refusal("E513", path, "it holds parameters of pyro")
    strange = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if strange:
        raise refusal("E515", path, f"its weights hold {strange[0]}, which is no tensor")
    return weights


def check_genes(path: Path, genes: list[str], weights: dict[str, Tensor]) -> None:
    """Raise unless the genes are as many as the weights are for, each once."""
    heads = (
        "decoder.px_scale_decoder.0.weight",
        "decoder.factor_regressor.fc_layers.Layer 0.0.weight",
    )
    there = [len(weights[name]) for name in heads if name in weights]
    if there and there[0] != len(genes):
        raise refusal(
            "E515", path, f"its weights are for {there[0]:,} genes, it names {len(genes):,}"
        )
    if len(set(genes)) != len(genes):
        raise refusal("E515", path, "it names a gene twice")


def texts(values) -> list[str]:
    """Return categories or names as text, as the data stage writes them."""
    return [str(word(value)) for value in np.asarray(values, dtype=object)]


def first_line(error: Exception) -> str:
    """Return the type and the first sentence of an error."""
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {said[0].split('. ')[0]}"


def refusal(code: str, path: Path, what: str, fix: str = "") -> InputError:
    """Return an error that says why a file is no model to import."""
    usual = "give a folder that SCVI, LinearSCVI or SCANVI of scvi-tools saved, with usual options"
    return InputError(problem(code, str(path), what, fix or usual))
