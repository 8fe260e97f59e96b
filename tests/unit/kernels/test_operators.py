"""The kernels are held to the plain models: the same losses and gradients on every option.

In float32 they differ by rounding. bfloat16 has eight bits, a relative error of 2^-9 in every
weight, input and logit: some tenths of a per cent of a term of the loss, and up to a fifth of the
gradient of the encoder's first weights, where large gradients of single cells cancel.
"""

import contextlib

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sclatent.kernels.operators import Kernels
from sclatent.kernels.team import Team
from sclatent.models.dca import Dca, build_dca
from sclatent.models.heads import OUTPUTS
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import Cells, Covariates

TOLERANCES = {"float32": (1e-6, 1e-4), "bfloat16": (4e-3, 0.2)}
"""Of loss and gradient, relative."""
SCVI = [
    {},
    {"likelihood": "zinb"},
    {"likelihood": "poisson"},
    {"dispersion": "gene-batch"},
    {"dispersion": "gene-label", "likelihood": "zinb"},
    {"dispersion": "gene-cell"},
    {"dispersion": "gene-cell", "likelihood": "zinb", "n_layers": 2},
    {"encode_covariates": True},
    {"library": "latent"},
    {"decoder": "linear"},
    {"decoder": "linear", "likelihood": "zinb"},
    {"n_layers": 2, "encode_covariates": True, "library": "latent"},
    {"prior": "mixture"},
    {"prior": "vamp", "encode_covariates": True},
    {"adversary": 1.0},
]
ROWS = np.arange(60)


@pytest.fixture(scope="module")
def cells() -> Cells:
    """90 cells, one of them empty, one with counts of more than 16 bits; 131 genes."""
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.4, 3.0, (90, 131)))
    counts[0], counts[1, :4] = 0, (5, 9, 70_000, 900_000)
    covariates = Covariates(
        {"sex": ["f", "m"]},
        ["age"],
        np.eye(2, dtype=np.float32)[random.integers(0, 2, 90)],
        random.normal(size=(90, 1)).astype(np.float32),
    )
    label = random.integers(-1, 3, 90)
    batch = random.integers(0, 3, 90)
    return Cells(
        csr_matrix(counts), batch, label, list("abc"), covariates=covariates, classes=list("xyz")
    )


def evaluate(model, minibatch, kernels, train=True):
    """Return loss terms and gradients, with the same noise each time."""
    torch.manual_seed(1)
    model.train(train).zero_grad()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.reset_running_stats()
    with kernels or contextlib.nullcontext():
        loss = model.loss(minibatch, 0.7, 0.6)
    if train:
        (loss.total if loss.opponent is None else loss.total + loss.opponent).backward()
    if kernels:
        kernels.finish()
    gradients = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    return [term.detach() for term in loss if term is not None], gradients


def hold_to_plain(model, cells, precision, n_threads):
    # a rate of 900,000 counts is known to 4 per cent at best in bfloat16
    minibatch = cells.take(ROWS if precision == "float32" else ROWS[2:])
    loss_tolerance, gradient_tolerance = TOLERANCES[precision]
    with Team(n_threads) as team:
        kernels = Kernels(precision, team)
        for train in (True, False):
            expected, plain = evaluate(model, minibatch, None, train)
            found, fast = evaluate(model, minibatch, kernels, train)
            torch.testing.assert_close(found, expected, rtol=loss_tolerance, atol=1e-2)
            assert plain.keys() == fast.keys()
            total = sum(g.square().sum() for g in plain.values()) ** 0.5
            for name in plain:
                error, size = (fast[name] - plain[name]).norm(), plain[name].norm()
                assert error <= gradient_tolerance * (size + 0.01 * total), name


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("options", SCVI, ids=str)
def test_scvi_has_the_losses_and_gradients_of_the_plain_model(cells, options, precision):
    model = build_scvi(cells, ROWS, Scvi(dropout=0.0, n_components=5, **options), seed=0)
    if "adversary" in options:
        model.opponent.layers.dropout.p = 0.0
    hold_to_plain(model, cells, precision, 2)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_the_loss_as_one_operator_is_that_of_its_parts_with_the_same_noise(
    cells, likelihood, n_threads, monkeypatch
):
    model = build_scvi(cells, ROWS, Scvi(likelihood=likelihood), seed=0)
    assert model.is_usual
    minibatch, results, moved = cells.take(ROWS), [], []
    with Team(n_threads) as team:
        for usual in (True, False):
            monkeypatch.setattr(type(model), "is_usual", usual)
            results.append(evaluate(model, minibatch, Kernels("float32", team)))
            moved.append([buffer.clone() for buffer in model.buffers()])
    torch.testing.assert_close(moved[0], moved[1])
    (loss, gradients), (expected, of_parts) = results
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert gradients.keys() == of_parts.keys()
    largest = {name: gradient.abs().max().item() for name, gradient in of_parts.items()}
    # sums in another order: rounding, of large terms too where they cancel
    rounding = 1e-7 * max(largest.values())
    for name, gradient in gradients.items():
        error = (gradient - of_parts[name]).abs().max().item()
        assert error <= 1e-5 * largest[name] + rounding, name


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("elbo", ["scvi-tools", "paper"])
@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_so_has_scanvi(cells, elbo, likelihood, precision):
    scvi = build_scvi(cells, ROWS, Scvi(dropout=0.0, likelihood=likelihood), seed=0)
    model = build_scanvi(scvi, cells, Scanvi(elbo=elbo), seed=0)
    hold_to_plain(model, cells, precision, 2)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("likelihood", OUTPUTS)
def test_so_has_dca(cells, likelihood, precision):
    model = build_dca(cells, ROWS, Dca(likelihood=likelihood), seed=0)
    hold_to_plain(model, cells, precision, 2)


@pytest.mark.parametrize("options", [{"ridge": 0.1}, {"input_dropout": 0.2}, {"l1": 1e-3}], ids=str)
def test_so_has_dca_with_penalties_and_dropout(cells, options):
    model = build_dca(cells, ROWS, Dca(likelihood="zinb", **options), seed=0)
    hold_to_plain(model, cells, "float32", 1)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_number_of_threads_changes_nothing_but_rounding(cells, precision):
    model = build_scvi(cells, ROWS, Scvi(likelihood="zinb"), seed=0)
    minibatch, results = cells.take(ROWS), []
    for n_threads in (1, 2, 3):
        with Team(n_threads) as team:
            results.append(evaluate(model, minibatch, Kernels(precision, team)))
    for loss, gradients in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-6, atol=1e-4)
        for name, gradient in gradients.items():
            # products of bfloat16 numbers are rounded again after other sums
            limit = {"float32": 1e-5, "bfloat16": 0.02}[precision] * gradient.norm() + 1e-3
            assert (gradient - results[0][1][name]).norm() <= limit, name


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_same_step_twice_has_the_same_bits(cells, precision):
    model = build_scvi(cells, ROWS, Scvi(), seed=0)
    minibatch = cells.take(ROWS)
    with Team(2) as team:
        (first, a), (second, b) = (
            evaluate(model, minibatch, Kernels(precision, team)) for _ in range(2)
        )
    assert all(map(torch.equal, first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_weight_that_is_not_finite_is_seen_in_the_loss(cells):
    model = build_scvi(cells, ROWS, Scvi(), seed=0)
    for weight in (model.share.weight, model.encoder.layers.linear[0].weight):
        with torch.no_grad():
            kept = weight[0, 0].clone()
            weight[0, 0] = float("nan")
        loss, _ = evaluate(model, cells.take(ROWS), Kernels("float32"))
        assert not torch.isfinite(loss[0])
        with torch.no_grad():
            weight[0, 0] = kept
