import json

import pytest
import yaml

SNAKEFILE = """
import json

configfile: "config/config.yaml"
include: "workflow/rules/common.smk"
include: "workflow/rules/check.smk"

rule all:

print("SETTINGS", json.dumps({latent: [model(latent), plan(latent)] for latent in MODELS}))
"""


@pytest.fixture
def settings(workflow, root):
    """Return a function from a config to the settings of each model and its training."""
    for name in ("config", "workflow", "scripts"):
        (workflow.folder / name).symlink_to(root / name)
    (workflow.folder / "Snakefile").write_text(SNAKEFILE)
    workflow.root = workflow.folder

    def resolve(config: dict) -> dict:
        result = workflow.run("-n", config=config)
        assert result.returncode == 0, result.stdout
        line = next(x for x in result.stdout.splitlines() if x.startswith("SETTINGS"))
        return json.loads(line.removeprefix("SETTINGS"))

    return resolve


@pytest.mark.parametrize("name", ["scvi-tools", "dca"])
def test_a_preset_sets_what_it_holds_and_no_more(settings, root, name):
    preset = yaml.safe_load((root / f"config/presets/{name}.yaml").read_text())
    plain, changed = settings({}), settings({"compat": name})
    for latent, (model, training) in plain.items():
        section = preset.get(latent, {})
        own = {key: value for key, value in section.items() if key != "training"}
        assert changed[latent] == [{**model, **own}, {**training, **section.get("training", {})}]


def test_what_the_user_gives_goes_before_a_preset(settings):
    given = {"compat": "dca", "dca": {"n_latent": 16, "training": {"patience": 7}}}
    model, training = settings(given)["dca"]
    assert (model["n_latent"], model["start"]) == (16, "random")
    assert (training["patience"], training["optimiser"]) == (7, "rmsprop")


def test_the_training_that_the_user_gives_for_all_goes_before_a_preset_too(settings):
    given = {"compat": ["scvi-tools", "dca"], "training": {"max_epochs": 300, "plateau": 3}}
    for _, training in settings(given).values():
        assert (training["max_epochs"], training["plateau"]) == (300, 3)


def test_dca_has_no_kl_term_to_wait_for_before_an_epoch_may_be_kept(settings):
    for given in ({}, {"training": {"warmup": 0.5}}, {"compat": "scvi-tools"}):
        _, training = settings(given)["dca"]
        assert (training["warmup"], training["warmup_epochs"]) == (0, 0)


def test_compat_dca_is_what_the_reference_does_by_default(settings):
    model, training = settings({"compat": "dca"})["dca"]
    assert model == {
        **{"likelihood": "nb-conddisp", "n_hidden": 64, "n_latent": 32, "batch_norm": True},
        **{"dropout": 0, "input_dropout": 0, "l1": 0, "l2": 0, "ridge": 0, "start": "random"},
    }
    n_genes = 2000  # the reference's loss is a mean over genes, here it is a sum
    assert training["clip_value"] == pytest.approx(5 * n_genes)
    assert training["epsilon"] == pytest.approx(1e-7 * n_genes)
    assert training["plateau_margin"] == pytest.approx(1e-4 * n_genes)
    expected = {
        **{"optimiser": "rmsprop", "learning_rate": 0.001, "schedule": "plateau", "plateau": 10},
        **{"minibatch": 32, "min_epochs": 300, "max_epochs": 300, "patience": 15, "keep": "last"},
        **{"warmup": 0, "warmup_epochs": 0, "weight_decay": 0, "clip_norm": 0},
    }
    assert {key: training[key] for key in expected} == expected
