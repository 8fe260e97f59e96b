"""What the rules share: the checked config, its lookups, and what the user reads at the end."""

import ast
import contextlib
import copy
import difflib
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import jsonschema
import yaml
from snakemake.utils import update_config, validate

HERE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
IS_MODULE = not workflow.modifier.is_main_snakefile()
MODIFIER = workflow.modifier.path_modifier
STARTED = time.time()
SCHEMA = "../schemas/config.schema.yaml"
MODELS = ("dca", "scvi", "scanvi")

# What the user gave: on the command line, or as the config of `module sclatent:`.
GIVEN = workflow.config_settings.overwrite_config
if IS_MODULE:
    GIVEN = copy.deepcopy(config)
    config = yaml.safe_load((HERE / "config/config.yaml").read_text())
    update_config(config, copy.deepcopy(GIVEN))

PLAIN = {
    "array": "a list, such as [0, 1]",
    "object": "a mapping of keys to values",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
}


def similar(name, options):
    """Return a question after the most similar option; the options where there is none or they are few."""
    options = list(map(str, options))
    close = difflib.get_close_matches(str(name), options, n=1)
    there = f"there are: {', '.join(options)}"
    if not close:
        return there
    return f"did you mean '{close[0]}'?{f' ({there})' if 1 < len(options) < 4 else ''}"


def config_problem(error, inside=""):
    """Return one line for a schema error: code, key, what is wrong, the nearest valid key."""
    place = ".".join(filter(None, [inside, *map(str, error.absolute_path)]))
    place = f"config: {place}" if place else "config"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))
        keys = "; ".join(f"there is no key '{key}', {similar(key, known)}" for key in unknown)
        return f"E101 {place}: {keys}"
    if "why" in error.schema:
        named = isinstance(error.instance, str) or "propertyNames" in error.absolute_schema_path
        value = f"'{error.instance}': " if named else ""
        return f"E103 {place}: {value}{error.schema['why']}"
    if error.validator == "type" and error.validator_value in PLAIN:
        return f"E102 {place}: {error.instance!r} is not {PLAIN[error.validator_value]}"
    if error.validator in ("minItems", "minProperties"):
        least = f"at least {error.validator_value}"
        return f"E103 {place}: it holds {len(error.instance)}, give {least}"
    if error.validator == "enum":
        options = error.validator_value
        return f"E104 {place}: there is no '{error.instance}', {similar(error.instance, options)}"
    return f"E103 {place}: {error.message}"


def config_conflicts(given):
    """Return what the schema cannot see: keys that disagree, and files that do not exist."""
    if config["clusters"]["main_resolution"] not in config["clusters"]["resolutions"]:
        yield "E108 config: clusters.main_resolution: it is not among clusters.resolutions"
    known = ["pca", "harmony", *MODELS, *config["variants"]]
    for number, latent in enumerate(config["latents"]):
        if latent in imports():
            continue
        if latent not in known:
            options = [*known, *imports()]
            define = " (define it under variants)" if kind(latent) in MODELS else ""
            yield f"E107 config: latents.{number}: there is no '{latent}'{define}, {similar(latent, options)}"
        elif kind(latent) == "scanvi":
            yield from start_conflicts(latent, [name for name in known if kind(name) == "scvi"])
        if kind(latent) in MODELS and plan(latent)["min_epochs"] > plan(latent)["max_epochs"]:
            yield f"E108 config: {latent}: training.min_epochs is larger than training.max_epochs"
    if given.get("main_latent") and config["main_latent"] not in config["latents"]:
        yield f"E108 config: main_latent: {config['main_latent']} is not among latents"
    counted = [latent for latent in config["latents"] if kind(latent) in MODELS]
    for number, latent in enumerate(config["denoise"]["latents"]):
        if latent not in counted:
            place = f"E107 config: denoise.latents.{number}"
            yield f"{place}: '{latent}' is no count model in latents, {similar(latent, counted)}"
    yield from exchange_conflicts()
    for dataset in config["datasets"]:
        paths = [local_path(dataset, *item) for item in sample_sources(dataset)]
        paths.append(config["datasets"][dataset].get("annotations"))
        for path in filter(None, paths):
            if not is_made(dataset, path) and not Path(path).exists():
                where = f"{path} does not exist (paths start at {Path.cwd()})"
                yield f"E107 config: datasets.{dataset}: {where}: {path_hint(path)}"


def path_hint(path):
    """Return what may be meant by a path of a file that does not exist."""
    if path.startswith("~"):
        return "write the home folder out"
    folder = Path(path).parent
    there = sorted(item.name for item in folder.glob("*"))
    hint = similar(Path(path).name, there[:50])
    return f"in {folder}, {hint}" if there else "the folder is not there"


def start_conflicts(latent, scvis):
    """Return what is wrong with the model that a scANVI goes on from."""
    start = below(latent)
    if start is None:
        return
    if start not in scvis:
        yield f"E107 config: {latent}: start is '{start}', {similar(start, ['scratch', *scvis])}"
    elif label_floor(start) not in (0, settings(latent)["min_cells_per_label"]):
        yield (
            f"E108 config: {latent}: its min_cells_per_label must be that of section scanvi, "
            f"since the dispersion of {start} depends on the same labels"
        )


def exchange_conflicts():
    """Return what is wrong with the models to bring in from scvi-tools and to write for it."""
    ours = [
        latent
        for latent in config["latents"]
        if kind(latent) in ("scvi", "scanvi") and latent not in imports()
    ]
    for number, latent in enumerate(config["export_models"]):
        if latent not in ours:
            what = "scvi-tools has no DCA" if kind(latent) == "dca" else similar(latent, ours)
            yield f"E107 config: export_models.{number}: '{latent}' is no scVI or scANVI trained here, {what}"
        elif kind(latent) == "scvi" and model(latent)["decoder"] == "linear":
            for dataset, entry in config["datasets"].items():
                if entry["categorical_covariates"] or entry["continuous_covariates"]:
                    yield (
                        f"E108 config: export_models.{number}: {latent} has a linear decoder, which in "
                        f"scvi-tools knows no covariates such as those of dataset {dataset}"
                    )
    for dataset in config["datasets"]:
        for latent, folder in imported(dataset).items():
            place = f"config: datasets.{dataset}.models.{latent}"
            if latent in config["variants"]:
                yield f"E108 {place}: variants has that name too; give one of them another"
            if latent not in config["latents"]:
                yield f"E108 {place}: add {latent} to latents, where it is to stand"
            if not Path(folder, "model.pt").is_file():
                there = f"there is no model.pt in {folder} (paths start at {Path.cwd()})"
                yield f"E107 {place}: {there}; name the folder that scvi-tools saved"


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


def apply_presets(given):
    """Put the presets that `compat` names between the defaults and what the user gave.

    A preset sets the training of its models only; the user's `training` goes before that too.
    """
    asked = given.get("training") or {}
    names = config.get("compat") or []
    names = [names] if isinstance(names, str) else names
    for name in names if isinstance(names, list) else []:
        path = HERE / f"config/presets/{name}.yaml"
        if path.is_file():
            preset = yaml.safe_load(path.read_text())
            for section in preset.values():
                own = section.get("training", {})
                section["training"] = {key: own[key] for key in own if key not in asked}
            update_config(config, preset)
    update_config(config, given)


def variant_errors(checker):
    """Yield (place, schema error) of each variant, checked as its model's section is."""
    sections = checker.schema["properties"]
    for name, changed in (config.get("variants") or {}).items():
        if kind(name) in MODELS and isinstance(changed, dict):
            for error in checker.descend(changed, sections[kind(name)]):
                yield f"variants.{name}", error


def drop_unknown(error):
    """Drop the keys that an error says are unknown, so that the rest can be checked.

    Returns whether it is an error of that kind.
    """
    if error.validator != "additionalProperties":
        return False
    for key in set(error.instance) - set(error.schema.get("properties", {})):
        del error.instance[key]
    return True


def repeated_keys():
    """Return what a config file of the user says twice; YAML would silently keep the last one."""
    for path in [] if IS_MODULE else workflow.config_settings.configfiles or []:
        # JSON may hold what is no YAML, such as tabs
        with contextlib.suppress(yaml.YAMLError):
            top = yaml.compose(Path(path).read_text(encoding="utf-8"), yaml.SafeLoader)
            for place, name, first, line in repeated(top):
                lines = f"'{name}' stands in line {first} and in line {line} of {path}"
                yield f"E105 config{place}: {lines}; keep one"


def repeated(node, place=""):
    """Yield (place, key, its first line, its later line) of each key that stands twice in a mapping."""
    first = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        name, line = str(key.value), key.start_mark.line + 1
        if name in first:
            yield place, name, first[name], line
        first.setdefault(name, line)
        yield from repeated(value, f"{place}.{name}" if place else f": {name}")


def check_config():
    """Replace the default datasets by the user's, check the config, fill in defaults.

    A config file given on the command line is merged into the default one key by key. That is
    right for settings; for `datasets` the user's list is the whole list. What another Snakefile
    hands to `module sclatent:` is given in the same way.
    """
    given = GIVEN if isinstance(GIVEN, dict) else {}
    apply_presets(given)
    if given.get("datasets") is not None:
        config["datasets"] = given["datasets"]
    with open(HERE / "workflow/schemas/config.schema.yaml") as file:
        schema = yaml.safe_load(file)
    checker = jsonschema.Draft202012Validator(schema)
    errors = sorted(checker.iter_errors(config), key=lambda error: list(map(str, error.path)))
    errors = [*(("", error) for error in errors), *variant_errors(checker)]
    problems = [*repeated_keys(), *(config_problem(error, place) for place, error in errors)]
    if all(drop_unknown(error) for _, error in errors):
        validate(config, SCHEMA)
        problems += config_conflicts(given)
    if problems:
        lines = "\n".join(f"ERROR {problem}" for problem in dict.fromkeys(problems))
        raise SystemExit(f"The config has problems.\n{lines}")


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


def say_left_out():
    """Warn of the latents that a dataset goes without, since its entry names no labels."""
    for dataset in config["datasets"]:
        there = [*latents(dataset), *imports()]
        left_out = [latent for latent in config["latents"] if latent not in there]
        if left_out:
            what = f"it has no cell_type and goes without {', '.join(left_out)}"
            print(f"WARNING dataset {dataset}: {what}", file=sys.stderr)


check_config()
if workflow.is_main_process:
    say_left_out()


wildcard_constraints:
    dataset=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    latent=r"[a-z0-9_]+",
    classifier=r"[a-z0-9_]+",
    method=r"umap|tsne",
    seed=r"\d+",


onsuccess:
    ERRORS.unlink(missing_ok=True)
    verdict = Path("results/verdict.txt")
    if verdict.is_file() and verdict.stat().st_mtime >= STARTED:
        report = "results/report.html"
        print(verdict.read_text().replace(report, shown(report)))
