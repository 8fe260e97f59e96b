"""Models on disk: weights as safetensors, everything else as JSON. Never a pickle.

A trained model is a folder:

model.safetensors   the weights, by the names of the module
model.json          format, hash of the weights, kind, settings, sizes, genes, batches, covariates,
                    classes

A training under way is one file of tensors, so that there is never half of a pair. Its metadata are
the JSON of everything else, and a hash of both.
"""

import contextlib
import hashlib
import json
import platform
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from sclatent import files, job
from sclatent.errors import InputError, problem
from sclatent.kernels.operators import multiplies_bfloat16
from sclatent.training.plan import Training

FORMAT = 2
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STOPPED = 75  # the exit code of what is to be tried again
TENSOR = "tensor:"  # begins the name of a tensor where it stands in the JSON


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
        write_tensors(partial, weights)
    digest = files.sha256(folder / "model.safetensors")
    content = {"format": FORMAT, "sha256": digest, **description}
    files.write_json(folder / "model.json", content, hashed=True)


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
    description = files.read_json(files.verified(folder / "model.json"))
    if description.get("format") != FORMAT:
        what = f"format {description.get('format')}, this release reads {FORMAT}"
        raise InputError(
            problem("E323", str(folder), what, "train the model again with this release")
        )
    weights = folder / "model.safetensors"
    if files.sha256(weights) != description["sha256"]:
        what = "the weights are not those that were written (their SHA-256 differs)"
        raise InputError(problem("E321", str(weights), what, "delete the folder and run again"))
    return load_file(weights), description


class Checkpoint:
    """A training under way on disk, to go on from after whatever ended it.

    The file before the last one is kept too, in case the last one breaks on the disk.

    Parameters
    ----------
    path
        Of the file.
    identity
        Returns a hash of all that determines the result; a file of another identity is left alone.
        It is called when it is first needed, since large data take a while.
    minutes
        Between two writes.

    Attributes
    ----------
    earlier
        What the attempts before this one cost, as `job.cost` says it; empty where there was none.
    """

    def __init__(self, path, identity: Callable[[], str], minutes: float = 5.0):
        self.path, self.minutes = Path(path), minutes
        self.before = self.path.with_name(f"{self.path.name}.before")
        self.make_identity, self.identity = identity, None
        self.earlier, self.signal, self.written = {}, None, time.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note signals that ask for the end, for `consider` to act on between two steps."""

        def note(number, frame):
            self.signal = number

        former = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def consider(self, run) -> None:
        """Write when it is time; after a signal write, and end with `STOPPED`."""
        if self.signal is not None:
            self.write(run)
            name, place = signal.Signals(self.signal).name, run.schedule.place
            print(f"NOTE {name}: stopped before {place}; the same command goes on from there")
            raise SystemExit(STOPPED)
        if time.monotonic() - self.written >= 60 * self.minutes:
            try:
                self.write(run)
            except OSError as error:
                print(f"WARNING the checkpoint could not be written, training goes on ({error})")
            self.written = time.monotonic()

    def write(self, run) -> None:
        """Write a training and the state that it goes back to if need be."""
        self.identity = self.identity or self.make_identity()
        content = {
            "identity": self.identity,
            "cost": job.cost(self.earlier),
            "now": run.state(),
            "good": run.good,
        }
        with files.safely(self.path) as partial:
            write_tree(partial, content)
            if self.path.exists():
                self.path.replace(self.before)

    def resume(self, run) -> None:
        """Put a training back where the last attempt left it, where there is a sound file."""
        for path in filter(Path.is_file, (self.path, self.before)):
            try:
                content = read_tree(path)
            except (SafetensorError, ValueError, OSError) as error:
                print(f"WARNING {path} is broken and is not used ({error})")
                continue
            self.identity = self.identity or self.make_identity()
            if content["identity"] != self.identity:
                print(f"NOTE {path} is of other settings, data or code and is not used")
                return
            self.earlier = content["cost"]
            run.restore(content["now"])
            run.good = content["good"]
            print(f"NOTE going on from {path}, at {run.schedule.place}")
            return

    def remove(self) -> None:
        """Remove the files, also those of writes that were killed."""
        for path in self.path.parent.glob(f"*{self.path.name}*"):
            path.unlink()


class NoCheckpoint:
    """Stands in for a checkpoint where nothing is kept and signals do what they always do."""

    def watching(self):
        """Watch nothing."""
        return contextlib.nullcontext()

    def consider(self, run) -> None:
        """Keep nothing."""

    def resume(self, run) -> None:
        """Begin at the beginning."""


NO_CHECKPOINT = NoCheckpoint()


def checkpoint_of(snakemake) -> Checkpoint:
    """Return the checkpoint of a training job.

    Parameters
    ----------
    snakemake
        The object that Snakemake gives a script. The minutes come from the config and not from the
        parameters: they are no part of the result, and changing them reruns nothing.
    """
    minutes = Training(**snakemake.config["training"]).checkpoint_minutes
    return Checkpoint(snakemake.params.checkpoint, lambda: identity_of(snakemake), minutes)


def identity_of(snakemake) -> str:
    """Return a hash of all that determines a job's result: inputs, parameters, versions, CPU."""
    inputs = {}
    for path in map(Path, snakemake.input):
        parts = sorted(path.rglob("*")) if path.is_dir() else [path]
        inputs |= {str(part): files.sha256(part) for part in parts if part.is_file()}
    instructions = [torch.backends.cpu.get_cpu_capability(), multiplies_bfloat16()]
    machine = [platform.machine(), *instructions]
    versions = [platform.python_version(), torch.__version__, np.__version__]
    parameters = [list(snakemake.wildcards), dict(snakemake.params.items())]
    content = json.dumps([inputs, parameters, versions, machine], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def write_tree(partial: Path, tree) -> None:
    """Write a tree of dicts and lists whose leaves are tensors and JSON values."""
    tensors = {}
    text = json.dumps(pack(tree, tensors))
    write_tensors(partial, tensors, {"tree": text, "sha256": digest(text, tensors)})


def write_tensors(partial: Path, tensors: dict, metadata: dict | None = None) -> None:
    """Write tensors as safetensors.

    `save_file` would write under a name of its own, which nothing removes after a kill, and into a
    file that only its owner may read.
    """
    partial.write_bytes(save(tensors, metadata))


def read_tree(path):
    """Read what `write_tree` wrote.

    Raises
    ------
    SafetensorError, ValueError
        When it is not what was written.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    text = metadata.get("tree", "")
    if digest(text, tensors) != metadata.get("sha256"):
        raise ValueError("its SHA-256 differs")
    return unpack(json.loads(text), tensors)


def digest(text: str, tensors: dict) -> str:
    """Return the SHA-256 of a text and of tensors with their names, types and shapes."""
    hashed = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


def pack(tree, tensors: dict, path: str = ""):
    """Return a tree with each tensor put into `tensors` and its name in its place."""
    if isinstance(tree, Tensor):
        # The best weights stand in two states: once is enough.
        name = next((name for name, known in tensors.items() if known is tree), path)
        tensors[name] = tree
        return TENSOR + name
    if isinstance(tree, dict):
        return {key: pack(value, tensors, f"{path}/{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [pack(value, tensors, f"{path}/{number}") for number, value in enumerate(tree)]
    return tree


def unpack(tree, tensors: dict):
    """Return what `pack` was given; a key of digits is a number, as in an optimiser's state."""
    if isinstance(tree, str) and tree.startswith(TENSOR):
        return tensors[tree.removeprefix(TENSOR)]
    if isinstance(tree, dict):
        return {
            int(key) if key.isdigit() else key: unpack(value, tensors)
            for key, value in tree.items()
        }
    return [unpack(value, tensors) for value in tree] if isinstance(tree, list) else tree
