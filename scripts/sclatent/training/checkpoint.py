"""A trained model on disk: weights as safetensors, everything else as JSON. Never a pickle.

model.safetensors   the weights, by the names of the module
model.json          format, hash of the weights, kind, settings, sizes, genes, batches, covariates,
                    classes
"""

from pathlib import Path

from safetensors.torch import load_file, save_file

from sclatent import files
from sclatent.errors import InputError, problem

FORMAT = 2


def save_model(folder, model, description: dict) -> None:
    """Write a model's weights and description into a folder.

    Parameters
    ----------
    folder
        Made when it is missing.
    model
        A torch module.
    description
        What is needed to build the module again and to align data with it; JSON values only.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with files.safely(folder / "model.safetensors") as partial:
        save_file(weights, partial)
    digest = files.sha256(folder / "model.safetensors")
    files.write_json(folder / "model.json", {"format": FORMAT, "sha256": digest, **description})


def load_model(folder) -> tuple[dict, dict]:
    """Read the weights and the description of a model, after checking its hash.

    Returns
    -------
    weights, description
        A state dict and a dict.

    Raises
    ------
    InputError
        When the format is not that of this code or the weights are not those that were written.
    """
    folder = Path(folder)
    description = files.read_json(folder / "model.json")
    if description.get("format") != FORMAT:
        what = f"format {description.get('format')}, this release reads {FORMAT}"
        raise InputError(problem(str(folder), what, "train the model again with this release"))
    weights = folder / "model.safetensors"
    if files.sha256(weights) != description["sha256"]:
        what = "the weights are not those that were written (their SHA-256 differs)"
        raise InputError(problem(str(weights), what, "delete the folder and run again"))
    return load_file(weights), description
