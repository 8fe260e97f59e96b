import re

import pytest
import yaml

SOURCE = {"source": "simulate"}


def refused(workflow, config: dict) -> str:
    result = workflow.run("-n", config=config)
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    return "\n".join(line for line in result.stdout.splitlines() if "ERROR" in line)


def test_a_misspelt_key_is_named_with_the_nearest_one(workflow):
    lines = refused(workflow, {"qc": {"min_count": 5}})
    assert re.search(
        r"ERROR E101 config: qc: there is no key 'min_count', did you mean 'min_counts'", lines
    )


def test_a_value_out_of_bounds_is_named_with_the_bound(workflow):
    lines = refused(workflow, {"splits": {"heldout": 0.9}})
    assert re.search(r"splits.heldout: 0.9 is greater than the maximum of 0.5", lines)


def test_all_problems_are_said_at_once(workflow):
    lines = refused(workflow, {"splits": {"heldout": 0.9}, "graph": {"n_neighbors": 1}})
    assert "splits.heldout" in lines
    assert "graph.n_neighbors" in lines


def test_clustering_a_layout_is_refused_with_the_reason(workflow):
    lines = refused(workflow, {"clusters": {"space": "umap"}})
    assert re.search(
        r"clusters.space: .umap.: clusters are built on the latent; a UMAP .* artefacts", lines
    )


@pytest.mark.parametrize("name", ["../x", "a b", "logs", ".hidden", 2024, True])
def test_a_dataset_name_that_is_no_folder_name_is_refused(workflow, name):
    assert "a dataset's name is a folder's name" in refused(workflow, {"datasets": {name: SOURCE}})


def test_too_short_a_list_is_refused_with_the_least_length(workflow):
    lines = refused(workflow, {"layout": {"seeds": [0]}, "seeds": []})
    assert "layout.seeds: it holds 1, give at least 3" in lines
    assert "seeds: it holds 0, give at least 1" in lines
    assert "datasets: it holds 0, give at least 1" in refused(workflow, {"datasets": {}})


def test_a_key_that_stands_twice_is_named_with_its_lines(workflow):
    path = workflow.folder / "twice.yaml"
    entry = "  mine: {source: simulate}\n"
    path.write_text(f"datasets:\n{entry}{entry}")
    result = workflow.run("-n", "--configfile", str(path))
    assert result.returncode != 0
    said = r"^ERROR E105 config: datasets: 'mine' stands in line 2 and in line 3 of \S+; keep one$"
    assert re.search(said, result.stdout.strip(), re.M)


def test_a_misspelt_key_hides_no_other_problem(workflow):
    config = {"qc": {"min_count": 5}, "latents": ["pca", "svci"]}
    config["datasets"] = {"mine": {"source": "~/mine.h5ad"}}
    lines = refused(workflow, config)
    for words in ("E101 config: qc", "E107 config: latents.1", "write the home folder out"):
        assert words in lines


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"seeds": 0}, r"seeds: 0 is not a list, such as \[0, 1\]"),
        ({"training": {"n_steps": "fifty"}}, "training.n_steps: 'fifty' is not a whole number"),
        ({"latents": ["pca", "scvii"]}, "latents.1: there is no 'scvii', did you mean 'scvi'"),
        ({"latents": ["scvi"]}, "latents: .* pca among them"),
        ({"denoise": {"latents": ["scvy"]}}, "denoise.latents.0: 'scvy' .*did you mean 'scvi'"),
        ({"denoise": {"latents": ["pca"]}}, "denoise.latents.0: 'pca' is no count model"),
        ({"denoise": {"library_size": 0}}, "denoise.library_size: a number above 0, observed or"),
        ({"latents": ["pca"], "main_latent": "scvi"}, "main_latent: scvi is not among latents"),
        ({"datasets": {"a/b": SOURCE}}, "datasets: 'a/b': a dataset's name"),
        ({"datasets": {"a": "x.h5ad"}}, "datasets.a: 'x.h5ad'"),
    ],
)
def test_a_wrong_value_is_said_in_plain_words(workflow, config, line):
    lines = refused(workflow, config).splitlines()
    assert len(lines) == 1
    assert re.search(line, lines[0])


@pytest.mark.parametrize(
    ("variants", "line"),
    [
        ({"linear": {}}, "variants: .*named after its model"),
        ({"scvi_a": {"decode": "linear"}}, "scvi_a: there is no key 'decode', .*'decoder'"),
        ({"scvi_a": {"likelihood": "znb"}}, "scvi_a.likelihood: there is no 'znb', .*'zinb'"),
        ({"scvi_a": {"training": {"n_step": 5}}}, "scvi_a.training: .*'n_step', .*'n_steps'"),
        ({"scvi_a": {"training": {"n_steps": "x"}}}, "scvi_a.training.n_steps: 'x' is not a whole"),
    ],
)
def test_a_wrong_variant_is_said_in_plain_words(workflow, variants, line):
    lines = refused(workflow, {"variants": variants})
    assert re.search(line, lines), lines


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"latents": ["pca", "scvi_linear"]}, "latents.1: there is no 'scvi_linear'"),
        ({"scanvi": {"start": "scvy"}}, "scanvi: start is 'scvy', did you mean 'scvi'"),
        ({"scanvi": {"start": "dca"}}, "scanvi: start is 'dca', there are: scratch, scvi"),
        ({"scanvi": {"start": "scanvi"}}, "scanvi: start is 'scanvi', did you mean 'scvi'"),
        ({"training": {"min_epochs": 200}}, "scvi: training.min_epochs is larger than"),
        ({"variants": None}, "variants: None is not a mapping"),
        (
            {
                "datasets": {"toy": {**SOURCE, "categorical_covariates": ["protocol"]}},
                "latents": ["pca", "scvi_a"],
                "variants": {"scvi_a": {"decoder": "linear"}},
                "export_models": ["scvi_a"],
            },
            "export_models.0: scvi_a has a linear decoder, .* no covariates .* of dataset toy",
        ),
        ({"compat": None}, "compat: scvi-tools, dca, or a list"),
        (
            {
                "latents": ["pca", "scvi", "scanvi_a"],
                "scvi": {"dispersion": "gene-label"},
                "variants": {"scanvi_a": {"min_cells_per_label": 9}},
            },
            "scanvi_a: its min_cells_per_label must be that of section scanvi",
        ),
        ({"compat": "scvi"}, "compat: .*scvi-tools"),
    ],
)
def test_a_name_that_is_no_latent_or_preset_is_refused(workflow, config, line):
    lines = refused(workflow, config)
    assert re.search(line, lines), lines


def test_a_variant_is_a_latent_of_its_own(workflow):
    config = {
        "latents": ["pca", "scvi", "scvi_linear", "scanvi_paper"],
        "variants": {"scvi_linear": {"decoder": "linear"}, "scanvi_paper": {"elbo": "paper"}},
    }
    result = workflow.run("-n", config=config)
    assert result.returncode == 0, result.stdout
    for latent in ("scvi_linear", "scanvi_paper"):
        assert f"results/simulated/latent/{latent}/seed2.h5ad" in result.stdout


def test_a_missing_file_is_named_with_its_dataset_and_the_nearest_name(workflow):
    (workflow.folder / "mine.h5ad").touch()
    lines = refused(workflow, {"datasets": {"mine": {"source": "mein.h5ad"}}})
    assert re.search(r"datasets.mine: mein.h5ad does not exist .*did you mean 'mine.h5ad'", lines)


def test_a_dataset_without_labels_is_said_to_go_without_what_needs_them(workflow):
    (workflow.folder / "mine.csv").write_text("cell,gene\nc1,1\n")
    result = workflow.run(
        "-n", config={"datasets": {"mine": {"source": "mine.csv"}, "toy": SOURCE}}
    )
    assert result.returncode == 0, result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("WARNING dataset")]
    assert lines == ["WARNING dataset mine: it has no cell_type and goes without scanvi"]


def test_the_main_resolution_is_one_of_the_resolutions(workflow):
    lines = refused(workflow, {"clusters": {"main_resolution": 3.0}})
    assert "clusters.main_resolution: it is not among clusters.resolutions" in lines


def test_a_dataset_needs_a_source_or_samples(workflow):
    assert "either 'source'" in refused(workflow, {"datasets": {"mine": {"batch": "donor"}}})


def test_hostile_yaml_is_not_executed(workflow):
    path = workflow.folder / "evil.yaml"
    path.write_text(f"seeds: !!python/object/apply:os.system ['touch {workflow.folder}/ran']\n")
    assert workflow.run("-n", "--configfile", str(path)).returncode != 0
    assert not (workflow.folder / "ran").exists()


def test_the_users_datasets_replace_the_default_ones(workflow):
    result = workflow.run("-n", config={"datasets": {"mine": SOURCE}})
    assert result.returncode == 0, result.stdout
    assert "results/mine/mine.h5ad" in result.stdout
    assert "pbmc68k" not in result.stdout


def test_settings_are_merged_into_the_defaults(workflow):
    result = workflow.run("-n", config={"qc": {"n_mads": 3}})
    assert result.returncode == 0, result.stdout
    assert "results/pbmc68k/pbmc68k.h5ad" in result.stdout


def test_every_example_is_a_valid_config(workflow, root):
    for path in sorted((root / "config/examples").glob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        for entry in config["datasets"].values():
            files = [entry.get("source"), entry.get("annotations")]
            files += [
                sample if isinstance(sample, str) else sample["source"]
                for sample in entry.get("samples", {}).values()
            ]
            for file in filter(None, files):
                if "://" not in file and ":" not in file and file != "simulate":
                    (workflow.folder / file).parent.mkdir(parents=True, exist_ok=True)
                    (workflow.folder / file).touch()
        result = workflow.run("-n", "--configfile", str(path))
        assert result.returncode == 0, f"{path.name}: {result.stdout[-2000:]}"


def test_every_default_is_in_the_schema_and_equal(root):
    config = yaml.safe_load((root / "config/config.yaml").read_text())
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    for section, values in config.items():
        properties = schema["properties"][section].get("properties", {})
        if section == "datasets":
            continue
        if not properties:
            assert values == schema["properties"][section]["default"], section
        defaults = {key: value["default"] for key, value in properties.items()}
        assert defaults == (values if properties else {}), section


def test_the_manual_has_every_key(root):
    manual = (root / "config/README.md").read_text()
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    sections = [section.get("properties", {}) for section in schema["properties"].values()]
    dataset = schema["$defs"]["dataset"]["properties"]
    for keys in (schema["properties"], *sections, dataset, dataset["simulate"]["properties"]):
        assert not [key for key in keys if f"`{key}`" not in manual]


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"export_models": ["dca"]}, "export_models.0: 'dca' is no scVI .*, scvi-tools has no DCA"),
        ({"export_models": ["scvii"]}, "export_models.0: 'scvii' is no .*, did you mean 'scvi'"),
        (
            {"datasets": {"toy": {**SOURCE, "models": {"scvi_atlas": "atlas"}}}},
            "datasets.toy.models.scvi_atlas: there is no model.pt in atlas",
        ),
        (
            {"datasets": {"toy": {**SOURCE, "models": {"scvi_atlas": "atlas"}}}},
            "datasets.toy.models.scvi_atlas: add scvi_atlas to latents",
        ),
        (
            {"datasets": {"toy": {**SOURCE, "models": {"atlas": "atlas"}}}},
            "an imported model's name begins with scvi_ or scanvi_",
        ),
    ],
)
def test_a_wrong_exchange_with_scvi_tools_is_said_in_plain_words(workflow, config, line):
    assert re.search(line, refused(workflow, config))


def test_only_a_dataset_that_brings_a_model_in_has_its_latent(workflow):
    (workflow.folder / "atlas").mkdir()
    (workflow.folder / "atlas/model.pt").touch()
    brings = {**SOURCE, "models": {"scvi_atlas": "atlas", "scanvi_atlas": "atlas"}}
    config = {
        "seeds": [0],
        "latents": ["pca", "scvi", "scvi_atlas", "scanvi_atlas"],
        "export_models": ["scvi"],
        "datasets": {"one": brings, "two": SOURCE},
    }
    result = workflow.run("-n", config=config)
    assert result.returncode == 0, result.stdout
    rules = dict(re.findall(r"^(\w+) +(\d+)$", result.stdout, re.M))
    assert (rules["import_latent"], rules["export_model"]) == ("2", "2")
    assert (rules["plot_training"], rules["score_likelihood"]) == ("2", "2")
    assert "scanvi_atlas/seed0.uncalibrated" not in result.stdout
