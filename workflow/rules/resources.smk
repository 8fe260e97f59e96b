"""What a job asks of a machine: memory and minutes, by the counts of its dataset.

A megabyte of compressed counts holds about half a million that are not zero, such as 500 cells with
1,000 detected genes. docs/cluster.md has what was measured. Each attempt asks for as much again.
"""

from functools import cache

CHOSEN_MB = 2.0
"""Memory for the chosen genes of 1 MB of counts: two thirds of them, at 4 bytes each, and some room."""


def counts_mb(dataset):
    """Return the MB of a dataset's counts: as checked, before that as they come; 0 if not yet here."""
    checked = Path(f"results/{dataset}/data/counts.h5ad")
    if checked.is_file():
        return checked.stat().st_size / 1e6
    entry = config["datasets"][dataset]
    if entry.get("source") == "simulate":
        return entry["simulate"]["n_cells"] * entry["simulate"]["n_genes"] / 1e6
    paths = [local_path(dataset, *item) for item in sample_sources(dataset)]
    return sum(size_mb(path) for path in map(Path, filter(None, paths)) if path.exists())


def counts_of(wildcards):
    """Return the MB of the counts of a job's dataset, or 0 where it has none."""
    dataset = wildcards.get("dataset")
    return counts_mb(dataset) if dataset in config["datasets"] else 0


def size_mb(path):
    """Return the MB of a file, or of all files in a folder."""
    return folder_mb(path) if path.is_dir() else path.stat().st_size / 1e6


@cache
def folder_mb(path):
    """Return the MB of all files in a folder, which is looked through once."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


def memory(base, per_mb=0.0, chosen=False):
    """Return what `mem_mb` is: `base`, and so much per MB of the counts of the job's dataset.

    Where a job holds the `chosen` genes of all cells, these come on top, up to what the config lets
    them have in memory.
    """

    def mem_mb(wildcards, attempt):
        counts = counts_of(wildcards)
        held = min(CHOSEN_MB * counts, 1000 * config["training"]["memory_gb"]) if chosen else 0
        return round(attempt * (base + per_mb * counts + held))

    return mem_mb


def minutes(base, per_mb=0.0):
    """Return what `runtime` is: `base`, and so much per MB of the counts of the job's dataset."""

    def runtime(wildcards, attempt):
        return round(attempt * (base + per_mb * counts_of(wildcards)))

    return runtime
