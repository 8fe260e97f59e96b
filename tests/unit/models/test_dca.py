import numpy as np
import pytest
import torch
from scipy import stats
from scipy.sparse import csr_matrix

from sclatent.models.dca import DCA, Dca, build_dca
from sclatent.training.loader import Cells
from sclatent.training.loop import evaluate, fit, predict
from sclatent.training.plan import Training

LIKELIHOODS = ["normal", "poisson", "nb", "nb-conddisp", "zinb", "zinb-conddisp"]
ROWS = np.arange(120)


def small(likelihood: str = "nb-conddisp", **settings) -> Dca:
    return Dca(likelihood, n_latent=4, n_hidden=16, **settings)


def denoised(model):
    return lambda minibatch: model.draw(minibatch).counts.mean


def numpy(tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_loss_equals_scipys(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood), seed=0).eval()
    minibatch = cells.take(ROWS[:30])
    hidden = model.decoder(model.latent(minibatch))
    x, size = numpy(minibatch.counts), numpy(minibatch.library_size / model.median_size)
    mean = numpy(model.mean(hidden))
    if likelihood == "normal":
        log_p = stats.norm.logpdf(x, mean * size)
    elif likelihood == "poisson":
        log_p = stats.poisson.logpmf(x, np.exp(mean) * size)
    else:
        mu = np.exp(mean) * size
        if likelihood.endswith("conddisp"):
            theta = numpy(torch.nn.functional.softplus(model.theta(hidden)))
        else:
            theta = numpy(model.log_theta.exp())
        log_p = stats.nbinom.logpmf(x, theta, theta / (theta + mu))
    if likelihood.startswith("zinb"):
        pi = numpy(torch.sigmoid(model.dropout_logit(hidden)))
        log_p = np.log((x == 0) * pi + (1 - pi) * np.exp(log_p))
    loss = model.loss(minibatch, kl_weight=0.3)
    assert loss.reconstruction.item() == pytest.approx(-log_p.sum(1).mean(), rel=1e-5)
    assert loss.total == loss.reconstruction
    assert loss.kl == 0


@pytest.mark.parametrize("likelihood", ["zinb", "zinb-conddisp"])
def test_the_ridge_on_pi_is_in_the_total_only(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood, ridge=0.5), seed=0).eval()
    minibatch = cells.take(ROWS[:30])
    pi = torch.sigmoid(model.dropout_logit(model.decoder(model.latent(minibatch))))
    loss = model.loss(minibatch, 1.0)
    expected = 0.5 * pi.square().sum(1).mean()
    torch.testing.assert_close(loss.total - loss.reconstruction, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("extreme", [-1e3, 1e3])
def test_gradients_stay_finite_where_the_heads_are_clipped(cells, likelihood, extreme):
    model = build_dca(cells, ROWS, small(likelihood), seed=0)
    heads = [
        getattr(model, name) for name in ("mean", "theta", "dropout_logit") if hasattr(model, name)
    ]
    for head in heads:
        torch.nn.init.constant_(head.bias, extreme)
    loss = model.loss(cells.take(ROWS[:30]), 1.0).total
    loss.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_input_is_standardised_with_the_training_cells(cells):
    train = ROWS[:100]
    model = build_dca(cells, train, small(), seed=0)
    size = cells.library_size[train] / np.median(cells.library_size[train])
    logs = np.log1p(cells.counts[train].toarray() / size[:, None])
    assert model.median_size.item() == np.median(cells.library_size[train])
    np.testing.assert_allclose(model.input_mean, logs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.input_sd, logs.std(0), rtol=1e-4)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_constant_genes_give_no_nan(cells, likelihood):
    counts = cells.counts.toarray()
    counts[:, 0] = 0
    counts[:100, 1] = 0  # found in validation cells only
    odd = Cells(csr_matrix(counts), cells.batch, cells.label, cells.batches)
    model = build_dca(odd, ROWS[:100], small(likelihood), seed=0)
    fit(model, odd, ROWS[:100], ROWS[100:], Training(minibatch=32, n_steps=8), seed=0)
    assert np.isfinite(predict(model.latent, odd)).all()
    assert np.isfinite(predict(denoised(model), odd)).all()


def test_genes_that_are_constant_after_normalisation_give_no_nan():
    counts = csr_matrix(np.tile(np.arange(1, 11, dtype=np.int32), (20, 1)))
    cells = Cells(counts, np.zeros(20, int), np.full(20, -1), ["a"])
    model = build_dca(cells, np.arange(20), small(), seed=0).eval()
    assert (model.input_sd == 1).all()
    assert np.isfinite(predict(model.latent, cells)).all()


def test_the_latent_has_a_row_per_cell_and_sees_no_batch(cells):
    model = build_dca(cells, ROWS, small(), seed=0).eval()
    assert predict(model.latent, cells).shape == (120, 4)
    minibatch = cells.take(ROWS[:10])
    other = minibatch._replace(batch=minibatch.batch.flip(1))
    assert torch.equal(model.latent(minibatch), model.latent(other))
    assert model.loss(minibatch, 1.0).total == model.loss(other, 1.0).total


def test_batch_normalisation_learns_a_centre_and_no_scale(cells):
    model = build_dca(cells, ROWS, small(), seed=0)
    fit(model, cells, ROWS[:100], ROWS[100:], Training(minibatch=32, n_steps=8), seed=0)
    norm = model.encoder[1]
    assert (norm.weight == 1).all()
    assert (norm.bias != 0).any()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_training_lowers_the_loss_and_denoises(cells, likelihood):
    kind = np.asarray(cells.counts[:, :10].sum(1)).ravel() > 40
    truth = np.ones((120, 40))
    truth[kind, :10] *= 8
    truth[cells.batch == 1, 20:30] *= 4
    plan = Training(minibatch=32, n_steps=200)
    model = build_dca(cells, ROWS[:100], small(likelihood), seed=0)
    before = evaluate(model, cells, ROWS[100:], 32, 0).total
    curve = fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=0)
    assert min(row["validation_loss"] for row in curve) < before - 2
    smooth = predict(denoised(model), cells)
    size = cells.library_size[:, None] / truth.sum(1, keepdims=True)
    raw_error = np.square(cells.counts.toarray() - truth * size).mean()
    assert np.square(smooth - truth * size).mean() < 0.5 * raw_error


def test_the_same_seed_gives_the_same_bits(cells):
    runs = []
    for _ in range(2):
        model = build_dca(cells, ROWS[:100], small(), seed=3)
        plan = Training(minibatch=32, n_steps=12)
        fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=3)
        runs.append(predict(model.latent, cells))
    assert np.array_equal(*runs)


def test_the_defaults_have_the_dimensions_of_the_reference_around_the_bottleneck():
    model = DCA(100, Dca())
    assert model.encoder[0].out_features == model.mean.in_features == 64
