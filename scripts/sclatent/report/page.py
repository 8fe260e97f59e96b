"""The report: one HTML page over all datasets that needs no other file.

Equal results give equal bytes, but for what the page says of costs and of where it comes from.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from sclatent import files
from sclatent.figures import words
from sclatent.report.origins import origins
from sclatent.report.tables import (
    Table,
    comparison_table,
    costs_table,
    labels_table,
    likelihood_table,
    removed_table,
    sizes_table,
)
from sclatent.report.verdict import Comparison, sentences

FIGURES = {
    "comparison": "All latents compared",
    "latents": "All latents side by side",
    "labels": "Label transfer",
    "qc": "Quality control",
    "training": "Training of the count models",
}


@dataclass(frozen=True)
class Figure:
    """A figure: its title, caption and the picture as base64."""

    title: str
    caption: str
    picture: str


@dataclass(frozen=True)
class Dataset:
    """What the page shows of one dataset."""

    name: str
    verdict: tuple[str, str]
    sizes: Table
    comparison: Table
    likelihood: Table | None
    costs: Table
    removed: Table
    labels: Table | None
    figures: list[Figure]
    imported: list[str]


def describe(datasets: dict, captions: list, equivalence: float) -> list[Dataset]:
    """Read the results of every dataset.

    Parameters
    ----------
    datasets
        By name: the paths `comparison`, `summary`, `removed`, `cells`, `labels` and `likelihood`
        (None where there are none), `figures` by name, and names of latents that are `imported`.
    captions
        Paths of captions, each named like its figure; layouts share ``layout.rst``.
    equivalence
        As in the config's benchmark section.
    """
    texts = {Path(path).stem: Path(path).read_text(encoding="utf-8").strip() for path in captions}
    return [read_dataset(name, paths, texts, equivalence) for name, paths in datasets.items()]


def read_dataset(name: str, paths: dict, captions: dict, equivalence: float) -> Dataset:
    """Read the results of one dataset."""
    comparison, summary = map(files.read_table, (paths["comparison"], paths["summary"]))
    return Dataset(
        name=name,
        verdict=sentences(name, Comparison(summary, comparison, equivalence), paths["imported"]),
        sizes=sizes_table(paths["cells"]),
        comparison=comparison_table(summary, comparison),
        likelihood=optional(likelihood_table, paths["likelihood"]),
        costs=costs_table(summary),
        removed=removed_table(files.read_table(paths["removed"])),
        labels=optional(labels_table, paths["labels"]),
        figures=[read_figure(key, path, captions) for key, path in paths["figures"].items()],
        imported=paths["imported"],
    )


def optional(make, path) -> Table | None:
    """Return the table that `make` makes of a file, None where there is no file."""
    return make(files.read_table(path)) if path else None


def read_figure(key: str, path, captions: dict) -> Figure:
    """Return a figure with its caption; ``umap_pca`` is a layout."""
    method, _, latent = key.partition("_")
    title = FIGURES.get(key, f"{words.name(method)} of {words.name(latent)}")
    caption = captions["layout" if key not in FIGURES else key]
    return Figure(title, caption, base64.b64encode(Path(path).read_bytes()).decode("ascii"))


def plain(config: dict) -> dict:
    """Return the config without settings that had no part: the simulator's of real datasets.

    A copy through JSON shares no objects, so that YAML writes no anchors.
    """
    config = json.loads(json.dumps(config))
    for entry in config.get("datasets", {}).values():
        if entry.get("source") != "simulate":
            entry.pop("simulate", None)
    return config


def render(template, datasets: list[Dataset], config: dict, records: list[dict]) -> str:
    """Return the page as HTML; all text from data and config is escaped.

    Parameters
    ----------
    template
        Path of the Jinja template.
    datasets
        As `describe` returns them.
    config
        The config that ran.
    records
        Of the jobs behind the results, as `provenance.trace` returns them.
    """
    import jinja2
    import yaml

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(Path(template).read_text(encoding="utf-8"))
    return page.render(
        datasets=datasets,
        metrics=words.METRICS.values(),
        config=config,
        config_text=yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True),
        n_seeds=len(config["seeds"]),
        settings=config["benchmark"],
        origins=origins(records),
    )
