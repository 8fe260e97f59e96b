"""What a job asks of a machine: memory and minutes, by the counts of its dataset.

A megabyte of compressed counts holds about half a million that are not zero, such as 500 cells with
1,000 detected genes. docs/cluster.md has what was measured. Each attempt asks for as much again.
"""

from functools import cache

CHOSEN_MB = 1.0
"""MB of memory for the chosen genes of 1 MB of counts: up to half of these, at 4 bytes each."""


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
    """Return the MB of the counts that a job sees: of its dataset, or of all."""
    own = wildcards.get("dataset")
    return sum(counts_mb(dataset) for dataset in config["datasets"] if own in (None, dataset))


def size_mb(path):
    """Return the MB of a file, or of all files in a folder."""
    return folder_mb(path) if path.is_dir() else path.stat().st_size / 1e6


@cache
def folder_mb(path):
    """Return the MB of all files in a folder, which is looked through once."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


def memory(base, per_mb=0.0, chosen=False):
    """Return what `mem_mb` is: `base`, and so much per MB of counts.

    Where a job holds the `chosen` genes of all cells, these come on top, up to what the config lets
    them have in memory.
    """

    def mem_mb(wildcards, attempt):
        counts = counts_of(wildcards)
        held = min(CHOSEN_MB * counts, 1000 * config["training"]["memory_gb"]) if chosen else 0
        return round(attempt * (base + per_mb * counts + held))

    return mem_mb


def minutes(base, per_mb=0.0):
    """Return what `runtime` is: `base`, and so much per MB of counts."""

    def runtime(wildcards, attempt):
        return round(attempt * (base + per_mb * counts_of(wildcards)))

    return runtime
