import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from sclatent import files
from sclatent.data.store import UNKNOWN
from sclatent.report.page import describe, render
from sclatent.report.tables import (
    CLASSIFIER_SCORES,
    labels_table,
    likelihood_table,
    number,
    removed_table,
)

PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000")
EVIL = "<script>alert('B & T')</script>"
CONFIG = {"seeds": [0, 1, 2], "benchmark": {"equivalence": 0.02}, "name": EVIL}
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Notes tags, and those that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.wrong = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def paths_of(results):
    folder = results.folder
    names = ("comparison", "latents", "training", "umap_pca", "umap_scvi")
    for name in names:
        (folder / "figures").mkdir(exist_ok=True)
        (folder / f"figures/{name}.png").write_bytes(PIXEL)
    return {
        "figures": {name: folder / f"figures/{name}.png" for name in names},
        "comparison": folder / "benchmark/comparison.tsv",
        "summary": folder / "benchmark/summary.tsv",
        "removed": folder / "data/removed.tsv",
        "cells": folder / "data/cells.h5ad",
        "labels": folder / "labels/scores.tsv" if results.classifiers else None,
        "likelihood": results.likelihood,
        "imported": [],
    }


@pytest.fixture(scope="module")
def write_page(root):
    """Return a function that writes the page of datasets."""
    captions = sorted((root / "workflow/report").glob("*.rst"))

    def write(**datasets):
        paths = {name: paths_of(results) for name, results in datasets.items()}
        template = root / "workflow/report/page.html.jinja"
        return render(template, describe(paths, captions, 0.02), CONFIG, [])

    return write


@pytest.fixture(scope="module")
def page(write_page, results):
    return write_page(pbmc=results)


def test_tags_are_closed_in_order(page):
    reader = Reader()
    reader.feed(page)
    assert reader.wrong == []
    assert reader.open == []


def test_nothing_outside_the_page_is_loaded(page):
    reader = Reader()
    reader.feed(page)
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or tag != "img"
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page


def test_every_link_has_its_target_and_targets_are_unique(page):
    reader = Reader()
    reader.feed(page)
    targets = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    links = {attributes["href"][1:] for _, attributes in reader.tags if "href" in attributes}
    assert len(targets) == len(set(targets))
    assert links <= set(targets)


def test_an_imported_model_is_said_to_be_none_of_the_fair_ones(root, results, page):
    caution = "may have seen held-out cells and test labels"
    assert caution not in page
    paths = {"pbmc": {**paths_of(results), "imported": ["scvi"]}}
    captions = sorted((root / "workflow/report").glob("*.rst"))
    template = root / "workflow/report/page.html.jinja"
    page = render(template, describe(paths, captions, 0.02), CONFIG, [])
    assert f"scVI was trained elsewhere: it {caution}" in page
    assert "Imported models are the exception" in page


def test_text_from_data_and_config_is_escaped(write_page, make_results, tmp_path):
    made = make_results(tmp_path, n_cells=60, types=("B", EVIL), batches=(EVIL, "two"))
    page = write_page(**{EVIL: made})
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_verdict_stands_above_the_datasets(page):
    assert page.index("Needs a VAE?") < page.index('id="dataset-1"')


def test_the_highest_mean_is_marked_in_words(page, results):
    rows = re.findall(r"<tr>.*?</tr>", page, flags=re.S)
    accuracy = next(row for row in rows if "kNN label accuracy" in row)
    assert accuracy.count('class="highest">highest<') == 1
    summary = results.summary
    summary = summary[(summary["metric"] == "knn_accuracy") & (summary["kind"] == "latent")]
    top = f"{summary['mean'].max():.3f}"
    assert re.search(rf"<strong>{top} ± [\d.]+</strong> <span class=.highest", accuracy)


def test_intervals_and_verdicts_stand_beside_the_means(page):
    assert re.search(r"\+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\]", page)
    assert re.search(r"better, p (=|&lt;) 0\.\d+", page)


def test_undefined_metrics_say_why(write_page, make_results, tmp_path):
    page = write_page(one=make_results(tmp_path, n_cells=60, batches=("one",)))
    assert "single batch" in page
    assert ">nan<" not in page


def test_a_dataset_without_labels_has_a_page(write_page, make_results, tmp_path):
    made = make_results(tmp_path, n_cells=60, types=(UNKNOWN,), latents=("pca", "harmony"))
    page = write_page(plain=made)
    assert 'id="labels-1"' not in page
    assert "no test labels" in page


def test_the_page_says_where_its_numbers_come_from(root, results, made_by):
    paths = {"pbmc": paths_of(results)}
    captions = sorted((root / "workflow/report").glob("*.rst"))
    template = root / "workflow/report/page.html.jinja"
    page = render(template, describe(paths, captions, 0.02), CONFIG, made_by)
    text = re.sub(r"<[^>]+>|\s+", " ", page[page.index("<h2>Provenance") :])
    assert re.search(r"data/mine.h5ad +a{64}", text)
    assert re.search(r"https://there/x.h5ad as resources/web/x.h5ad +b{64}", text)
    assert re.search(r"fit_pca +2 +1 +3 +200 +Fast CPU, Slow CPU", text)
    assert re.search(r"numpy +2.4.5, 2.4.6", text)
    assert re.search(r"git commit +c{40}", text)
    assert "Seeds: 0, 1, 2." in text


def test_one_seed_has_a_page(write_page, make_results, tmp_path):
    page = write_page(one=make_results(tmp_path, n_cells=60, seeds=(0,)))
    assert "one seed: no interval" in page
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]+", "", page))


def test_equal_results_give_equal_pages(write_page, results, page):
    assert write_page(pbmc=results) == page


def test_captions_are_given_once_in_a_row_of_layouts(page, root):
    caption = Path(root / "workflow/report/layout.rst").read_text().split(";")[0]
    assert page.count(caption) == 1


def test_every_figure_of_the_report_has_a_caption(root):
    for name in ("training", "layout", "latents", "comparison", "labels"):
        text = Path(root / f"workflow/report/{name}.rst").read_text()
        assert 2 <= text.count(". ") + 1 <= 6


def test_likelihoods_stand_with_differences_and_dcas_is_marked(results, page):
    table = likelihood_table(files.read_table(results.likelihood))
    assert [row[0].value for row in table.rows] == ["scVI", "scVI linear", "null model", "DCA"]
    scvi, linear, null, dca = table.rows
    assert scvi[1].value == "-400.0"
    assert re.fullmatch(r"\[-40[\d.]+, -39[\d.]+\]", scvi[1].details[0])
    assert re.fullmatch(r"\+100.00 \[\+[\d.]+, \+[\d.]+\] against null model", scvi[3].value)
    assert "against scVI" in linear[3].details[0]
    assert scvi[4].value == "20.0 of 100"
    assert null[2].value == dca[3].value == dca[4].value == "n/a"
    assert dca[0].details == ("not a marginal likelihood, not comparable",)
    assert 'id="likelihood-1"' in page


def test_one_seed_has_likelihoods_without_intervals(results, tmp_path):
    table = files.read_table(results.likelihood).assign(lower=float("nan"), upper=float("nan"))
    scvi = likelihood_table(table).rows[0]
    assert scvi[1].details == ()
    assert scvi[3].value == "+100.00 against null model"


def test_without_a_count_model_there_is_no_likelihood(write_page, make_results, tmp_path):
    page = write_page(plain=make_results(tmp_path, n_cells=60, latents=("pca", "harmony")))
    assert "likelihood-1" not in page


def test_scores_that_are_all_missing_mark_no_classifier():
    rows = [("knn", 0, metric, float("nan")) for metric in CLASSIFIER_SCORES]
    scores = pd.DataFrame(rows, columns=["classifier", "seed", "metric", "value"])
    cells = labels_table(scores).rows[0]
    assert [cell.value for cell in cells[1:]] == ["n/a"] * 5
    assert not any(cell.highest for cell in cells)


def test_a_batch_called_all_does_not_break_the_table_of_removed_cells():
    rows = [("all", "kept", 5, 0.5), ("b", "kept", 4, 0.4), ("all", "kept", 9, 0.9)]
    removed = pd.DataFrame(rows, columns=["batch", "rule", "n_cells", "share"])
    assert removed_table(removed).rows == [["all", "9 (90.0%)"], ["b", "4 (40.0%)"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0312, "0.0312"), (41.27, "41.3"), (1430.2, "1,430"), (float("nan"), "n/a"), (0.0, "0")],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text
