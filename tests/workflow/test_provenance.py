"""What a finished run says of itself, for people and for machines."""

import re

import pytest
from rocrate.rocrate import ROCrate

from sclatent import files, provenance

pytestmark = pytest.mark.workflow


def test_every_job_has_left_a_record_with_the_hashes_of_what_it_made(finished):
    results = finished.folder / "results"
    logs = {path.with_suffix(".json") for path in results.glob("**/logs/**/*.log")}
    assert logs == set(results.glob("**/logs/**/*.json"))
    record = files.read_json(results / "toy/logs/train_scvi/scvi.seed0.json")
    latent = "results/toy/latent/scvi/seed0.h5ad"
    assert record["outputs"][latent] == files.sha256(finished.folder / latent)
    assert record["wildcards"] == {"dataset": "toy", "latent": "scvi", "seed": "0"}
    assert record["params"]["model"]["n_latent"] == 5
    assert "torch" in record["versions"]


def test_the_report_says_where_its_numbers_come_from(finished):
    page = (finished.folder / "results/report.html").read_text()
    text = re.sub(r"<[^>]+>|\s+", " ", page[page.index("<h2>Provenance") :])
    assert re.search(rf"plain.csv +{files.sha256(finished.folder / 'plain.csv')}", text)
    assert re.search(r"train_scvi +8 +1 ", text)
    assert re.search(rf"SHA-256 +{files.sha256(finished.root / 'requirements.lock')}", text)
    assert provenance.cpu() in text
    assert "Seeds: 0, 1." in text


def test_the_run_is_described_as_an_ro_crate_that_leads_from_the_report_to_the_inputs(finished):
    results = finished.folder / "results"
    crate = ROCrate(results)
    assert crate.license.endswith("BSD-3-Clause")
    for entity in crate.data_entities:
        assert (results / entity.id).exists(), entity.id
        assert entity["sha256"] == provenance.digest(results / entity.id), entity.id
    jobs = crate.root_dataset["mentions"]
    makers = {item.id: job for job in jobs for item in job["result"]}
    seen, todo = set(), [crate.get("report.html")]
    while todo:
        item = todo.pop()
        if item.id not in seen:
            seen.add(item.id)
            todo += makers[item.id].get("object", []) if item.id in makers else []
    assert {"toy/data/simulated.h5ad", "#plain.csv"} <= seen
    assert [item.id for item in crate.mainEntity["input"]] == ["#plain.csv"]


def test_snakemakes_own_report_is_one_file_that_loads_nothing(finished, tmp_path):
    config = finished.folder / "results/config.yaml"
    path = tmp_path / "report.html"
    result = finished.run("--report", str(path), "--configfile", str(config))
    assert result.returncode == 0, result.stdout[-3000:]
    page = path.read_text()
    assert "comparison" in page
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?https?://[^>]+>", page)
