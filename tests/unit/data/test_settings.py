"""The dataclasses of the data stage and the examples agree with the config's schema."""

from dataclasses import MISSING, fields

import jsonschema
import pytest
import yaml

from sclatent.data.settings import Entry, Limits

EXAMPLES = ["own_h5ad", "samples_10x", "download", "atlas"]


@pytest.fixture(scope="module")
def schema(root):
    return yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())


def test_the_dataclasses_have_the_keys_and_defaults_of_the_schema(schema):
    # Models to bring in are the latent stage's: a new one must not read the data again.
    for kind, section, others in (
        (Entry, schema["$defs"]["dataset"], {"models"}),
        (Limits, schema["properties"]["input"], set()),
    ):
        assert {field.name for field in fields(kind)} == set(section["properties"]) - others
        for field in fields(kind):
            given = section["properties"][field.name].get("default")
            default = field.default_factory() if field.default is MISSING else field.default
            assert given in (default, None) or given == list(default)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_valid_and_holds_only_what_differs(name, root, schema):
    default = yaml.safe_load((root / "config/config.yaml").read_text())
    example = yaml.safe_load((root / f"config/examples/{name}.yaml").read_text())
    jsonschema.Draft202012Validator(schema).validate(example)
    for section, values in example.items():
        if section != "datasets" and isinstance(values, dict):
            same = {key for key, value in values.items() if default[section][key] == value}
            assert not same
    for entry in example["datasets"].values():
        assert Entry(**entry)
