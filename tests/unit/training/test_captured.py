"""Steps on resident cells, without a GPU: the same code as is captured there."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sclatent.kernels.cuda.device import DeviceKernels
from sclatent.models.dca import Dca, build_dca
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.captured import DeviceTraining
from sclatent.training.ends import fits, heavy_ends, standard_of
from sclatent.training.loader import Cells, Covariates
from sclatent.training.loop import captured, evaluate, fit, start
from sclatent.training.plan import Schedule, Training
from sclatent.training.resident import ResidentCells

ROWS = np.arange(0, 60, 2)
PLAN = Training(minibatch=32, n_steps=60, learning_rate=5e-3)
PLAIN = DeviceKernels(torch.float32)
TRAIN, VALIDATION = np.arange(100), np.arange(100, 120)


@pytest.fixture(scope="module")
def cells() -> Cells:
    """Three types of cells in two batches, with labels and a number; one cell is empty."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=120)
    rate = rng.gamma(0.5, 2.0, size=(3, 40))[kind] * rng.gamma(5, 0.2, size=(120, 1))
    counts = rng.poisson(rate).astype(np.int32)
    counts[2] = 0
    numbers = rng.normal(size=(120, 1)).astype(np.float32)
    covariates = Covariates({}, ["number"], np.zeros((120, 0), np.float32), numbers)
    label = np.where(rng.random(120) < 0.5, kind, -1)
    batch = rng.integers(2, size=120)
    return Cells(
        csr_matrix(counts), batch, label, ["a", "b"], covariates=covariates, classes=[*"xyz"]
    )


SCVI = [
    Scvi(n_hidden=16, n_latent=4, likelihood=likelihood, dispersion=dispersion, **options)
    for likelihood, dispersion, options in (
        ("nb", "gene", {}),
        ("nb", "gene-batch", {"encode_covariates": True}),
        ("zinb", "gene-label", {"library": "latent"}),
        ("zinb", "gene-cell", {"n_layers": 2}),
        ("poisson", "gene", {"prior": "vamp", "n_components": 5}),
        ("nb", "gene", {"decoder": "linear", "prior": "mixture", "n_components": 5}),
    )
]
DCA = [
    Dca(likelihood=name, n_hidden=16, n_latent=4)
    for name in (
        "poisson",
        "nb",
        "nb-conddisp",
        "nb-shared",
        "nb-fork",
        "zinb",
        "zinb-conddisp",
        "zinb-shared",
        "zinb-elempi",
    )
]


def build(cells, settings):
    make = build_dca if isinstance(settings, Dca) else build_scvi
    return make(cells, TRAIN, settings, seed=0)


def gradients(model, minibatch) -> dict:
    """Return the loss of one step and the gradients of all weights."""
    torch.manual_seed(1)
    model.train()
    model.zero_grad()
    loss = model.loss(minibatch, 0.5, 0.5)
    loss.total.backward()
    named = model.named_parameters()
    return {
        "loss": loss.total.detach(),
        **{name: w.grad for name, w in named if w.grad is not None},
    }


@pytest.mark.parametrize("settings", SCVI + DCA, ids=repr)
def test_a_step_has_the_loss_and_gradients_of_the_plain_model(cells, settings):
    model = build(cells, settings)
    assert fits(model)
    expected = gradients(model, cells.take(ROWS))
    resident = ResidentCells(cells, standard_of(model))
    model = build(cells, settings)  # the first one's running statistics have moved
    with heavy_ends(model, PLAIN):
        found = gradients(model, resident.take(ROWS))
    assert found.keys() == expected.keys()
    largest = max(g.abs().max() for name, g in expected.items() if name != "loss")
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-5, atol=2e-4 * float(largest)), name


@pytest.mark.parametrize("labelled", ["minibatch", "drawn"])
def test_a_step_of_scanvi_has_the_loss_and_gradients_of_the_plain_model(cells, labelled):
    resident, (expected, found) = ResidentCells(cells), ({}, {})
    for result, source in ((expected, cells), (found, resident)):
        model = build_scanvi(build(cells, SCVI[0]), cells, Scanvi(), seed=0)
        minibatch = source.take(ROWS)
        if labelled == "drawn":
            known = np.flatnonzero(cells.label >= 0)[: len(ROWS)]
            minibatch = minibatch.replace(labelled=source.take(known))
        with heavy_ends(model, PLAIN) if source is resident else nullcontext():
            result.update(gradients(model, minibatch))
    largest = max(g.abs().max() for name, g in expected.items() if name != "loss")
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-5, atol=2e-4 * float(largest)), name


@pytest.mark.parametrize("labelled", ["drawn", "balanced"])
def test_cells_drawn_for_their_labels_all_have_one(cells, labelled):
    model, drawn = build(cells, SCVI[0]), []
    optimiser = PLAN.optimise(model)
    training = DeviceTraining(model, ResidentCells(cells), TRAIN, PLAN, optimiser, labelled)
    training.run = lambda rows: drawn.extend(rows[1].tolist())
    for _ in range(20):
        training.run_epoch(Schedule(20, 4, PLAN), 0)
    label = cells.label[drawn]
    assert (label >= 0).all()
    if labelled == "balanced":
        assert np.bincount(label) == pytest.approx(np.full(3, 2000 / 3), rel=0.15)


def test_the_model_is_itself_again_afterwards(cells):
    model = build(cells, SCVI[0])
    expected = gradients(model, cells.take(ROWS))
    with heavy_ends(model, PLAIN):
        pass
    found = gradients(model, cells.take(ROWS))
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("settings", SCVI + DCA, ids=repr)
def test_half_precision_products_change_a_loss_little(cells, settings):
    model = build(cells, settings)
    expected = gradients(model, cells.take(ROWS))
    with heavy_ends(model, DeviceKernels(torch.bfloat16)):
        found = gradients(
            model, ResidentCells(cells, standard_of(model), torch.bfloat16).take(ROWS)
        )
    assert float(found["loss"]) == pytest.approx(float(expected["loss"]), rel=0.01)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())


@pytest.mark.parametrize(
    "settings",
    [Scvi(adversary=1.0), Dca(likelihood="normal"), Dca(likelihood="zinb", ridge=0.1)],
    ids=str,
)
def test_a_model_that_the_operators_do_not_cover_is_left_alone(cells, settings):
    assert not fits(build(cells, settings))


def train(cells, settings, n_epochs, **options):
    """Train on the device's path; return the model and its epochs."""
    model = build(cells, settings)
    resident = ResidentCells(cells, standard_of(model))
    schedule = Schedule(n_epochs, 4, PLAN)
    torch.manual_seed(0)
    with heavy_ends(model, PLAIN):
        training = DeviceTraining(model, resident, TRAIN, PLAN, PLAN.optimise(model), **options)
        epochs = [training.run_epoch(schedule, epoch) for epoch in range(n_epochs)]
    return model, epochs


@pytest.mark.parametrize("settings", [SCVI[0], DCA[2]], ids=["scvi", "dca"])
def test_training_lowers_the_loss_as_the_ordinary_loop_does(cells, settings):
    model, epochs = train(cells, settings, 15)
    other = build(cells, settings)
    curve = fit(other, cells, TRAIN, VALIDATION, PLAN, seed=0)
    assert len(curve) == 15
    assert epochs[-1].reconstruction < epochs[0].reconstruction - 5
    found, expected = (evaluate(m.eval(), cells, VALIDATION, 32, 0).total for m in (model, other))
    assert found == pytest.approx(expected, rel=0.05)


def test_validation_on_the_device_gives_the_loss_of_the_plain_model(cells):
    model = build(cells, SCVI[3])
    expected = evaluate(model, cells, VALIDATION, 8, seed=0)
    with heavy_ends(model, PLAIN):
        found = evaluate(model, ResidentCells(cells), VALIDATION, 8, seed=0)
    assert found[:3] == pytest.approx(expected[:3], rel=1e-5)


def test_without_a_gpu_no_training_takes_this_path(cells):
    model = build(cells, SCVI[0])
    run = start(model, cells, TRAIN, VALIDATION, PLAN, seed=0)
    with captured(run, cells, TRAIN, "minibatch") as device:
        assert device is None


class Replayed:
    """Stands for a CUDA graph: takes the step again with the rows that lie in its place."""

    def __init__(self, training, size):
        self.training, self.size, self.n_replays = training, size, 0

    def replay(self):
        self.n_replays += 1
        self.training.run(self.training.rows[self.size])


def test_replayed_steps_train_as_steps_by_themselves_do(cells, monkeypatch):
    expected, _ = train(cells, SCVI[0], 5)

    class Stream:
        wait_stream = staticmethod(lambda other: None)

    class Captured(DeviceTraining):
        def record(self, rows):
            size = rows.shape[1]
            self.rows[size] = torch.zeros_like(rows)
            self.graphs[size] = Replayed(self, size)
            graphs.append(self.graphs[size])

    graphs = []
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    model = build(cells, SCVI[0])
    training = Captured(model, ResidentCells(cells), TRAIN, PLAN, PLAN.optimise(model))
    training.capture, training.stream = True, Stream
    schedule = Schedule(5, 4, PLAN)
    torch.manual_seed(0)
    with heavy_ends(model, PLAIN):
        for epoch in range(5):
            training.run_epoch(schedule, epoch)
    # 15 steps of 32 cells and 5 of the 4 that remain; the first three of each by themselves
    assert {graph.size: graph.n_replays for graph in graphs} == {32: 12, 4: 2}
    pairs = zip(model.parameters(), expected.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_same_seed_gives_the_same_weights(cells):
    (first, _), (second, _) = (train(cells, SCVI[2], 2) for _ in range(2))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_every_cell_is_seen_once_in_an_epoch(cells):
    model, seen = build(cells, SCVI[0]), []
    resident = ResidentCells(cells)
    training = DeviceTraining(model, resident, TRAIN, PLAN, PLAN.optimise(model))
    training.run = lambda rows: seen.extend(rows[0].tolist())
    for seed in range(2):
        training.run_epoch(Schedule(2, 4, PLAN), seed)
    assert sorted(seen[:100]) == sorted(seen[100:]) == TRAIN.tolist()
    assert seen[:100] != seen[100:]


def test_the_first_step_that_is_not_finite_is_named_and_no_weight_changes_any_more(cells):
    model = build(cells, SCVI[0])
    resident = ResidentCells(cells)
    training = DeviceTraining(model, resident, TRAIN, PLAN, PLAN.optimise(model))
    plain, weights, seen = model.loss, [], []

    def loss(minibatch, kl_weight, done):
        seen.append(minibatch.rows.tolist())
        weights.append(model.share.weight.detach().clone())
        found = plain(minibatch, kl_weight, done)
        return found._replace(total=found.total * float("nan")) if len(weights) == 3 else found

    model.loss = loss
    with heavy_ends(model, PLAIN):
        epoch = training.run_epoch(Schedule(1, 4, PLAN), 0)
    assert epoch.broken == 2
    assert epoch.rows.tolist() == seen[2]
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(weights[2], model.share.weight)
