"""Where results come from: what each job read and wrote, with what, on what machine, at what cost.

A job that ends well leaves a record beside its log, of the same name but for its end, ``.json``.
Records tell times and machines. Results do not, so that equal results have equal bytes.
"""

import datetime
import functools
import hashlib
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from sclatent import files

FORMAT = 1
ROOT = Path(__file__).resolve().parents[2]

# the module of each package that results depend on
PACKAGES = {
    "anndata": "anndata",
    "faiss": "faiss-cpu",
    "h5py": "h5py",
    "harmonypy": "harmonypy",
    "igraph": "igraph",
    "leidenalg": "leidenalg",
    "matplotlib": "matplotlib",
    "numba": "numba",
    "numpy": "numpy",
    "pandas": "pandas",
    "rocrate": "rocrate",
    "safetensors": "safetensors",
    "scanpy": "scanpy",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skmisc": "scikit-misc",
    "torch": "torch",
    "umap": "umap-learn",
    "zarr": "zarr",
}


def now() -> str:
    """Return the time in UTC, as ISO 8601 writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def place(snakemake) -> Path:
    """Return where the record of a job lies: beside its log."""
    return Path(snakemake.log[0]).with_suffix(".json")


def record(snakemake, started: str, cost, process) -> None:
    """Write the record of a job that has made all its outputs; of one that failed there is none.

    Parameters
    ----------
    snakemake
        The object that Snakemake gives a script.
    started
        When the job began, as `now` says it.
    cost, process
        Functions that return what the job cost, and what its process adds to that.
    """
    if not all(Path(output).exists() for output in snakemake.output):
        return
    known = dict(snakemake.params.get("contents", {}))
    content = {
        "format": FORMAT,
        "rule": snakemake.rule,
        "wildcards": dict(snakemake.wildcards.items()),
        "inputs": {str(path): known.get(path) or digest(path) for path in snakemake.input},
        "outputs": {str(path): digest(path) for path in snakemake.output},
        "params": dict(snakemake.params.items()),
        "threads": int(snakemake.params.get("threads", 1)),
        "started": started,
        "ended": now(),
        "cost": cost(),
        "process": process(),
        "machine": {"cpu": cpu(), "system": f"{platform.system()} {platform.machine()}"},
        "versions": versions(),
        "lock": files.sha256(ROOT / "requirements.lock"),
        "commit": commit(),
    }
    try:
        files.write_json(place(snakemake), content)
    except OSError as error:
        print(f"WARNING no record of this job could be written ({error})")


def digest(path) -> str:
    """Return the SHA-256 of a file, from the file beside it that says it where there is one.

    That of a folder is one of the lines that `sha256sum` would print of its files.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        inside = [file for file in inside if not file.name.startswith(".snakemake")]
        lines = [f"{digest(file)}  {file.relative_to(path)}\n" for file in inside]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    said = path.with_name(f"{path.name}.sha256")
    return said.read_text().split()[0] if said.is_file() else files.sha256(path)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that this process has loaded."""
    found = {"python": platform.python_version()}
    for module, package in PACKAGES.items():
        if module in sys.modules:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:  # conda may call it otherwise
                found[package] = str(getattr(sys.modules[module], "__version__", "unknown"))
    return found


@functools.cache
def cpu() -> str:
    """Return the name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the git commit of the code, with a + where files differ from it; None outside git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        head = git("rev-parse", "HEAD")
        return f"{head}+" if git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return None


def git(*arguments: str) -> str:
    """Return what git says of the project's folder."""
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def trace(paths, folder) -> list[dict]:
    """Return the records of all jobs behind some files, those that ran first in front.

    Parameters
    ----------
    paths
        The files, as the rules write them.
    folder
        The folder of the results, which holds the logs and the records beside them.
    """
    records = [files.read_json(path) for path in sorted(Path(folder).glob("**/logs/**/*.json"))]
    makers = {output: record for record in records for output in record["outputs"]}
    found, todo = {}, [str(path) for path in paths]
    while todo:
        path = todo.pop()
        if path in makers and id(makers[path]) not in found:
            found[id(makers[path])] = makers[path]
            todo += makers[path]["inputs"]
    return sorted(found.values(), key=lambda record: (record["started"], record["rule"]))


def sources(records: list[dict]) -> dict[str, str]:
    """Return {path: SHA-256} of what the jobs read and none of them made."""
    made = {output for record in records for output in record["outputs"]}
    read = {path: said for record in records for path, said in record["inputs"].items()}
    return {path: read[path] for path in sorted(read.keys() - made)}
