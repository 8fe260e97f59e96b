"""The config is checked: presets and defaults are filled in, and all that is wrong is said at once."""

import contextlib
import copy
import difflib

import jsonschema
from snakemake.utils import update_config, validate

SCHEMA = "../schemas/config.schema.yaml"

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
