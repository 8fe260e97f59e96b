"""What the rules share: lookups in the config, and what the user reads at the end."""

import copy
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import yaml
from snakemake.utils import update_config

HERE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
IS_MODULE = not workflow.modifier.is_main_snakefile()
MODIFIER = workflow.modifier.path_modifier
STARTED = time.time()
MODELS = ("dca", "scvi", "scanvi")

# Jobs of this process share one that has imported what they need (scripts/sclatent/forkserver.py).
os.environ.update(SCLATENT_OWNER=str(os.getpid()) if workflow.is_main_process else "")

# What the user gave: on the command line, or as the config of `module sclatent:`.
GIVEN = workflow.config_settings.overwrite_config
if IS_MODULE:
    GIVEN = copy.deepcopy(config)
    config = yaml.safe_load((HERE / "config/config.yaml").read_text())
    update_config(config, copy.deepcopy(GIVEN))


def imported(dataset):
    """Return {latent: folder} of the models of scvi-tools that a dataset brings in."""
    return config["datasets"][dataset].get("models", {})


def imported_file(wildcards):
    """Return the file of a model that a dataset brings in."""
    return f"{imported(wildcards.dataset)[wildcards.latent]}/model.pt"


def imports():
    """Return the names of all models that are brought in."""
    return sorted({latent for dataset in config["datasets"] for latent in imported(dataset)})


def kind(latent):
    """Return the model of a latent: scvi for scvi and for its variants such as scvi_linear."""
    return latent.split("_")[0]


def settings(latent):
    """Return the config section of a latent: that of its model, and what a variant changes."""
    section = copy.deepcopy(config[kind(latent)])
    update_config(section, config["variants"].get(latent, {}))
    return section


def model(latent):
    """Return the settings of a latent's model, without those of its training."""
    return {key: value for key, value in settings(latent).items() if key != "training"}


def plan(latent):
    """Return the settings of a latent's training: the common ones and what its section changes.

    From scratch, scANVI is trained as scVI is, but for what a variant changes: the training in its
    own section is for going on from scVI. When checkpoints are written is no part of the result:
    as a parameter it would rerun what is done.
    """
    own = settings(latent)
    common = {
        key: config["training"][key] for key in config["training"] if key != "checkpoint_minutes"
    }
    if kind(latent) == "scanvi" and own["start"] == "scratch":
        changed = config["variants"].get(latent, {}).get("training", {})
        return {**common, **config["scvi"]["training"], **changed}
    return {**common, **own["training"]}


def torch_env(wildcards):
    """Return the conda environment that a latent's model runs in: by the device it trains on."""
    cuda = plan(wildcards.latent)["device"] == "cuda"
    return "../../envs/torch-cuda.yaml" if cuda else "../../envs/torch.yaml"


def needs_labels(latent):
    """Say whether a latent cannot be computed without labels."""
    return kind(latent) == "scanvi" or label_floor(latent) > 0


def label_floor(latent):
    """Return the training cells that a label needs for scVI to see it; 0 where it sees none."""
    if kind(latent) != "scvi" or settings(latent)["dispersion"] != "gene-label":
        return 0
    return config["scanvi"]["min_cells_per_label"]


def below(latent):
    """Return the latent whose model a scANVI goes on from, None from scratch."""
    start = settings(latent)["start"]
    return None if start == "scratch" else start


def on_top_of(dataset):
    """Return {latent: the latent whose result it starts from}."""
    scanvi = [latent for latent in trained(dataset) if kind(latent) == "scanvi" and below(latent)]
    return {"harmony": "pca", **{latent: below(latent) for latent in scanvi}}


def named(model):
    """Return a pattern of the latents that a model makes."""
    return any_of([model, *(name for name in config["variants"] if kind(name) == model)])


def any_of(names):
    """Return a pattern of names; of none, one that nothing matches."""
    return "|".join(names) or "(?!)"


def samples(dataset):
    """Return {sample: {source, sha256, mirrors}} of a dataset; a single source is one sample.

    Nothing else, so that a changed column name does not download anything again.
    """
    entry = config["datasets"][dataset]
    given = entry.get("samples") or {dataset: entry}
    given = {
        name: {"source": sample} if isinstance(sample, str) else sample
        for name, sample in given.items()
    }
    keys = ("source", "sha256", "mirrors")
    return {
        name: {key: sample[key] for key in keys if key in sample} for name, sample in given.items()
    }


def is_url(source):
    """Say whether a source is downloaded."""
    return urlparse(source).scheme in ("http", "https")


def local_path(dataset, sample, source):
    """Return where a source lies on disk; None for one that comes with an installed package.

    Each of several samples has a folder: the files of 10x runs all have the same name.
    """
    if is_url(source):
        folder = f"resources/{dataset}" if sample == dataset else f"resources/{dataset}/{sample}"
        return f"{folder}/{Path(unquote(urlparse(source).path)).name}"
    if source == "simulate":
        return f"results/{dataset}/data/simulated.h5ad"
    return None if source.startswith("scanpy:") else source


def sample_sources(dataset):
    """Return (sample, source) of each sample of a dataset."""
    return [(name, sample["source"]) for name, sample in samples(dataset).items()]


def is_made(dataset, path):
    """Say whether a path is made by the workflow itself: downloaded or simulated."""
    return path.startswith((f"resources/{dataset}/", f"results/{dataset}/"))


def dataset_files(dataset):
    """Return the files that a dataset is read from."""
    paths = [local_path(dataset, *item) for item in sample_sources(dataset)]
    return [path for path in (*paths, config["datasets"][dataset].get("annotations")) if path]


def place(path):
    """Return a path of a result as a script sees it, where a module's prefix has moved it."""
    return MODIFIER.replace_prefix(path)


def own(path):
    """Mark a file of the user: its bytes count and its time does not, and no prefix moves it."""
    return ancient(local(path)) if IS_MODULE else ancient(path)


def found_path(dataset, sample, source):
    """Return where a script finds a source; None for one that comes with an installed package."""
    path = local_path(dataset, sample, source)
    return place(path) if path and is_made(dataset, path) else path


def sample_files(wildcards):
    """Return the files that a dataset is read from; of the user's own the times do not count."""
    dataset = wildcards.dataset
    return [path if is_made(dataset, path) else own(path) for path in dataset_files(dataset)]


def downloads(dataset):
    """Return {path below resources/<dataset>: sample} of what a dataset downloads."""
    return {
        local_path(dataset, name, sample["source"]).removeprefix(f"resources/{dataset}/"): sample
        for name, sample in samples(dataset).items()
        if is_url(sample["source"])
    }


def has_labels(dataset):
    """Say whether a dataset has cell type labels to learn from."""
    entry = config["datasets"][dataset]
    return bool(entry.get("cell_type")) or entry.get("source") == "simulate"


def latents(dataset):
    """Return the latents of a dataset: those of the config that its labels and models allow."""
    allowed = [
        latent
        for latent in config["latents"]
        if latent not in imports() and (has_labels(dataset) or not needs_labels(latent))
    ]
    return [
        latent for latent in config["latents"] if latent in allowed or latent in imported(dataset)
    ]


def classifiers(dataset):
    """Return the classifiers compared on a dataset; what is imported may know its test labels."""
    if not has_labels(dataset):
        return []
    scanvi = [latent for latent in trained(dataset) if kind(latent) == "scanvi"]
    return config["transfer"]["classifiers"] + scanvi


def main_latent(dataset):
    """Return the latent whose clusters and layout bear the plain names."""
    there = latents(dataset)
    return config["main_latent"] if config["main_latent"] in there else there[0]


def trained(dataset):
    """Return the latents of a dataset that are trained here, and so have a curve."""
    return [
        latent
        for latent in latents(dataset)
        if kind(latent) in MODELS and latent not in imported(dataset)
    ]


def exported(dataset):
    """Return the latents of a dataset whose models are written for scvi-tools."""
    return [latent for latent in trained(dataset) if latent in config["export_models"]]


def genes_of(wildcards):
    """Return the table of the genes that a latent's model sees."""
    folder = f"results/{wildcards.dataset}"
    if wildcards.latent in imported(wildcards.dataset):
        return f"{folder}/latent/{wildcards.latent}/seed{wildcards.seed}.genes.tsv"
    return f"{folder}/data/genes/seed{wildcards.seed}.tsv"


def denoised(dataset):
    """Return the latents of a dataset whose denoised expression is written."""
    return [latent for latent in latents(dataset) if latent in config["denoise"]["latents"]]


def linear(dataset):
    """Return the latents of a dataset whose decoder is linear and has loadings."""
    scvi = [latent for latent in trained(dataset) if kind(latent) == "scvi"]
    return [latent for latent in scvi if settings(latent)["decoder"] == "linear"]


def shown(path):
    """Return the path of a result for the reader: from the root where --directory moved the run."""
    here = os.environ.get("PWD", "")
    stays = Path(here).is_dir() and os.path.samefile(here, Path.cwd())
    return str(path if stays else Path(path).absolute())


def duration(seconds):
    """Return a time in words."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def each_seed(pattern, chosen):
    """Return a file per dataset, per latent that is chosen for it, and per seed."""
    return [
        pattern.format(dataset=dataset, latent=latent, seed=seed)
        for dataset in config["datasets"]
        for latent in chosen(dataset)
        for seed in config["seeds"]
    ]


def report_figures(dataset):
    """Return {title: path} of a dataset's figures in the order of the report."""
    names = ["comparison", "latents", *(["labels"] if has_labels(dataset) else []), "qc"]
    names += ["training"] if trained(dataset) else []
    names += [
        f"{method}_{latent}"
        for method in config["layout"]["methods"]
        for latent in latents(dataset)
    ]
    return {name: f"results/{dataset}/figures/{name}.png" for name in names}


def report_parts(dataset):
    """Return what the report reads of a dataset: paths, None where there is none, and names."""
    parts = {
        "comparison": f"results/{dataset}/benchmark/comparison.tsv",
        "summary": f"results/{dataset}/benchmark/summary.tsv",
        "likelihood": f"results/{dataset}/benchmark/likelihood.tsv" if trained(dataset) else None,
        "removed": f"results/{dataset}/data/removed.tsv",
        "cells": f"results/{dataset}/data/cells.h5ad",
        "labels": f"results/{dataset}/labels/scores.tsv" if has_labels(dataset) else None,
    }
    return {
        **{name: path and place(path) for name, path in parts.items()},
        "figures": {name: place(path) for name, path in report_figures(dataset).items()},
        "imported": [name for name in latents(dataset) if name in imported(dataset)],
    }


def report_files(pattern, chosen=lambda dataset: True):
    """Return one file per dataset that qualifies."""
    return [pattern.format(dataset=dataset) for dataset in config["datasets"] if chosen(dataset)]


def targets():
    """Return all that a run is for: datasets, what was asked for beside them, and the report."""
    return [
        *(f"results/{dataset}/{dataset}.h5ad" for dataset in config["datasets"]),
        *each_seed("results/{dataset}/expression/{latent}/seed{seed}.h5ad", denoised),
        *each_seed("results/{dataset}/latent/{latent}/seed{seed}.loadings.tsv", linear),
        *each_seed("results/{dataset}/latent/{latent}/seed{seed}.scvi-tools/model.pt", exported),
        "results/report.html",
    ]


wildcard_constraints:
    dataset=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    latent=r"[a-z0-9_]+",
    classifier=r"[a-z0-9_]+",
    method=r"umap|tsne",
    seed=r"\d+",


onsuccess:
    close_view()
    ERRORS.unlink(missing_ok=True)
    verdict = Path("results/verdict.txt")
    if verdict.is_file() and verdict.stat().st_mtime >= STARTED:
        report = "results/report.html"
        print(verdict.read_text().replace(report, shown(report)))
    print(f"The run took {duration(time.time() - STARTED)}.")
    if not (GIVEN or {}).get("datasets"):
        print(f"For your data, write my.yaml as {shown(HERE / 'config/README.md')} says, then:")
        print(f"{command()} --configfile my.yaml")
    sys.stdout.flush()
