import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.special import logsumexp

from sclatent.errors import InputError
from sclatent.models import posterior
from sclatent.models.dca import Dca, build_dca
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import Cells
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

ROWS = np.arange(120)
SMALL = {"n_latent": 4, "n_hidden": 16, "n_components": 3}
LINE = {"n_latent": 1, "n_hidden": 8, "n_components": 3}
SCVIS = [
    {},
    {"likelihood": "zinb", "dispersion": "gene-cell", "library": "latent"},
    {"prior": "vamp", "encode_covariates": True, "dispersion": "gene-batch"},
    {"decoder": "linear", "prior": "mixture", "likelihood": "poisson"},
]


@pytest.fixture
def few() -> Cells:
    """Eight cells of two batches and two types over five genes."""
    counts = np.random.default_rng(1).poisson(1.5, (8, 5)).astype(np.int32)
    code = np.arange(8) % 2
    return Cells(csr_matrix(counts), code, code, ["a", "b"], classes=["first", "second"])


def scvi(cells, seed=0, **options):
    """Return an untrained model whose counts depend visibly on the latent state."""
    model = build_scvi(cells, np.arange(len(cells.batch)), Scvi(**options), seed)
    with torch.no_grad():
        head = model.share[0] if model.settings.decoder == "linear" else model.share
        head.weight.mul_(3)
    return model.eval()


def every_kind(cells):
    models = [scvi(cells, **SMALL, **options) for options in SCVIS]
    models.append(build_scanvi(scvi(cells, **SMALL), cells, Scanvi(), 0))
    return [*models, build_dca(cells, ROWS, Dca(n_latent=4, n_hidden=16), 0)]


@torch.no_grad()
def log_p(model, cells, row, z, log_library=None):
    """Return log p(x | z, l) of one cell at many latent states (N, 1), (N,) float64."""
    minibatch = cells.take(np.full(len(z), row))
    if log_library is None:
        log_library = minibatch.library_size.log()
    counts = model.decode(minibatch, z, log_library)
    return counts.log_prob(minibatch.entries).double().numpy()


def pooled(model, cells, n_samples=500, n_times=64):
    """Return the estimate of each of eight cells from many runs, and four standard errors."""
    found = posterior.likelihood(model, cells, np.tile(np.arange(8), n_times), n_samples)
    mean = logsumexp(found.log_likelihood.reshape(n_times, 8), 0) - math.log(n_times)
    return mean, 4 / np.sqrt(found.ess.reshape(n_times, 8).sum(0)).astype(float)


GRID = torch.linspace(-9, 9, 2001)[:, None]


@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_importance_sampling_equals_quadrature_over_a_line(few, prior):
    model = scvi(few, **LINE, prior=prior)
    found, error = pooled(model, few)
    with torch.no_grad():
        prior = model.prior.log_prob(GRID).double().numpy()
    for row in range(8):
        exact = logsumexp(log_p(model, few, row, GRID) + prior) + math.log(18 / 2000)
        assert found[row] == pytest.approx(exact, abs=error[row])
    assert error.max() < 0.07


def test_importance_sampling_equals_quadrature_with_a_latent_library(few):
    model = scvi(few, **LINE, library="latent")
    found, error = pooled(model, few)
    z = torch.linspace(-6, 6, 241)
    for row in range(8):
        mean, sd = model.library.mean[row % 2], model.library.variance[row % 2].sqrt()
        u = torch.linspace(-6, 6, 121)
        both = torch.cartesian_prod(z, u)
        values = log_p(model, few, row, both[:, :1], mean + sd * both[:, 1:])
        standard = -0.5 * (both.double().square().sum(1).numpy()) - math.log(2 * math.pi)
        exact = logsumexp(values + standard) + math.log(12 / 240 * 12 / 120)
        assert found[row] == pytest.approx(exact, abs=error[row])
    assert error.max() < 0.07


def test_scanvis_likelihood_equals_brute_force(few):
    model = build_scanvi(scvi(few, **LINE), few, Scanvi(), 0).eval()
    found, error = pooled(model, few)
    torch.manual_seed(3)
    with torch.no_grad():
        y = torch.eye(2).repeat(60000, 1)
        mean, variance = model.decoder(torch.randn(120000, 1), y)
        z1 = mean + variance.sqrt() * torch.randn_like(mean)
    for row in range(8):
        values = log_p(model, few, row, z1)
        exact = logsumexp(values) - math.log(len(values))
        brute = np.exp(values - exact).std() / math.sqrt(len(values))
        assert found[row] == pytest.approx(exact, abs=error[row] + 4 * brute)
        assert error[row] + 4 * brute < 0.1


def test_more_samples_raise_the_estimate_and_steady_it(few):
    model = scvi(few, **LINE)
    estimates = {
        k: np.stack([posterior.likelihood(model, few, np.arange(8), k, s)[1] for s in range(30)])
        for k in (1, 5, 50)
    }
    means = [values.mean() for values in estimates.values()]
    spreads = [values.std(0).mean() for values in estimates.values()]
    assert means == sorted(means)
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[2] < spreads[0] / 3


def test_the_elbo_is_below_the_likelihood_and_the_losss_own(cells):
    for model in every_kind(cells)[:5]:
        found = posterior.likelihood(model, cells, ROWS, 40)
        assert (found.elbo <= found.log_likelihood).all()
        assert (found.ess >= 1 - 1e-5).all()
        assert (found.ess <= 40 + 1e-4).all()
    model = every_kind(cells)[0]
    minibatch = cells.take(ROWS)
    with torch.no_grad():
        losses = [model.loss(minibatch, 1.0).total.item() for _ in range(300)]
    elbo = posterior.likelihood(model, cells, ROWS, 300).elbo.mean()
    assert elbo == pytest.approx(-np.mean(losses), abs=6 * np.std(losses) / math.sqrt(300))
    assert np.std(losses) < 3


def test_weights_of_any_size_are_summed_safely(few):
    class Shifted(torch.nn.Module):
        """A sample whose log weights are far from 0 and apart."""

        varies = False

        def draws(self, minibatch, n):
            for log_w in (-2000.0, -1000.0, -1001.0)[:n]:
                log_ratio = torch.full((len(minibatch),), log_w)
                yield posterior.Draw(None, None, self, log_ratio)

        def constant(self, entries):
            return torch.zeros(())

        def log_prob(self, entries, constant):
            return constant.expand(8)

    model = Shifted()
    found = posterior.likelihood(model, few, np.arange(8), 3)
    one = 1 + math.exp(-1)
    np.testing.assert_allclose(found.log_likelihood, -1000 + math.log(one / 3), rtol=1e-6)
    np.testing.assert_allclose(found.ess, one**2 / (1 + math.exp(-2)), rtol=1e-6)
    np.testing.assert_allclose(found.elbo, -4001 / 3, rtol=1e-6)


def test_the_likelihood_is_that_of_samples_drawn_and_judged_one_by_one(cells):
    minibatch = cells.take(ROWS)
    for model in every_kind(cells):
        torch.manual_seed(4)
        with torch.no_grad():
            drawn = [next(model.eval().draws(minibatch, 1)) for _ in range(20)]
            log_p = [one.counts.log_prob(minibatch.entries).double() for one in drawn]
        log_w = torch.stack([p + one.log_ratio for p, one in zip(log_p, drawn, strict=True)])
        found = posterior.likelihood(model, cells, ROWS, 20, seed=4)
        np.testing.assert_allclose(found.elbo, log_w.mean(0), rtol=0, atol=1e-4)
        expected = log_w.logsumexp(0) - math.log(20)
        np.testing.assert_allclose(found.log_likelihood, expected, rtol=0, atol=1e-4)


def test_dca_samples_nothing(cells):
    model = build_dca(cells, ROWS, Dca(n_latent=4, n_hidden=16), 0)
    found = posterior.likelihood(model, cells, ROWS, 7)
    minibatch = cells.take(ROWS)
    with torch.no_grad():
        log_p = next(model.draws(minibatch, 1)).counts.log_prob(minibatch.entries).numpy()
    np.testing.assert_allclose(found.log_likelihood, log_p, rtol=1e-5)
    assert np.array_equal(found.elbo, found.log_likelihood)
    assert (found.ess == 7).all()


def test_dcas_denoised_expression_is_its_mean(cells):
    model = build_dca(cells, ROWS, Dca(n_latent=4, n_hidden=16), 0)
    mean = predict(lambda minibatch: next(model.eval().draws(minibatch, 1)).counts.mean, cells)
    for batch in ("own", "average", "b"):
        found = posterior.denoise(model, cells, ROWS, "observed", batch, 2)
        np.testing.assert_allclose(found, mean, rtol=1e-5)


def test_expression_sums_to_the_library_size(cells):
    for model in every_kind(cells)[:5]:
        for batch in ("own", "average"):
            found = posterior.denoise(model, cells, ROWS, 500.0, batch, 2)
            np.testing.assert_allclose(found.sum(1), 500, rtol=1e-4)
        found = posterior.denoise(model, cells, ROWS, "observed", n_samples=2)
        np.testing.assert_allclose(found.sum(1), cells.library_size, rtol=1e-4)


def test_a_latent_library_size_is_the_one_drawn(cells):
    model = scvi(cells, **SMALL, library="latent")
    found = posterior.denoise(model, cells, ROWS, "latent", "own", 1, seed=5)
    torch.manual_seed(5)
    with torch.no_grad():
        drawn = next(model.draws(cells.take(ROWS), 1))
    np.testing.assert_allclose(found.sum(1), drawn.log_library.exp()[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found, drawn.counts.mean, rtol=1e-4)


def test_averaging_over_batches_is_the_mean_of_the_single_ones(cells):
    for model in every_kind(cells):
        average, a, b = (
            posterior.denoise(model, cells, ROWS, batch=batch, n_samples=2, seed=1)
            for batch in ("average", "a", "b")
        )
        np.testing.assert_allclose(average, (a + b) / 2, rtol=1e-4)


def test_the_own_batch_is_the_batch_of_the_cell(cells):
    model = scvi(cells, **SMALL)
    own, a, b = (
        posterior.denoise(model, cells, ROWS, batch=batch, n_samples=0) for batch in ("own", *"ab")
    )
    np.testing.assert_allclose(own, np.where(cells.batch[:, None] == 0, a, b), rtol=1e-5)


def test_another_batch_changes_its_own_genes_and_leaves_the_others(cells):
    model = build_scvi(cells, ROWS[:100], Scvi(n_latent=4, n_hidden=16), seed=0)
    plan = Training(minibatch=32, n_steps=300, max_epochs=100)
    fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=0)
    a, b = (posterior.denoise(model, cells, ROWS, batch=batch).mean(0) for batch in "ab")
    others = np.setdiff1d(np.arange(40), np.arange(20, 30))
    change = np.log2(b / a) - np.median(np.log2(b / a)[others])
    assert (change[20:30] > 1).all()  # planted: 2, four times as many in b
    assert (np.abs(change[others]) < 0.5).all()


def test_no_sample_means_the_mean_latent_state(cells):
    model = scvi(cells, **SMALL)
    found = posterior.denoise(model, cells, ROWS, "observed", "own", 0)
    minibatch = cells.take(ROWS)
    with torch.no_grad():
        z = model.latent(minibatch)
        expected = model.decode(minibatch, z, minibatch.library_size.log()).mean
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cells_and_genes_can_be_chosen(cells):
    model, genes = scvi(cells, **SMALL), [3, 1]
    some = ROWS[50:60]
    every = posterior.denoise(model, cells, ROWS, n_samples=0)
    found = posterior.denoise(model, cells, some, n_samples=0, genes=genes)
    np.testing.assert_allclose(found, every[some][:, genes], rtol=1e-5)
    assert posterior.predictive_samples(model, cells, some, 3, genes).shape == (3, 10, 2)


@pytest.mark.parametrize("batch", ["A", "c"])
def test_an_unknown_batch_is_named_with_the_nearest_one(cells, batch):
    with pytest.raises(InputError, match=f"no batch '{batch}'.*[Tt]here are: a, b"):
        posterior.denoise(scvi(cells, **SMALL), cells, ROWS, batch=batch)


@pytest.mark.parametrize("options", SCVIS[:2], ids=str)
def test_predictive_samples_have_the_models_mean_and_zeros(cells, options):
    model, rows = scvi(cells, **SMALL, **options), ROWS[:20]
    found = posterior.predictive_samples(model, cells, rows, 2000)
    torch.manual_seed(9)
    with torch.no_grad():
        draws = [drawn.counts for drawn in model.draws(cells.take(rows), 2000)]
        if "likelihood" in options:
            kept = [counts.dropout_logit.neg().sigmoid() for counts in draws]
            zeros = [counts.counts.log_zero().exp() for counts in draws]
        else:
            kept = [torch.ones(())] * 2000
            zeros = [counts.log_zero().exp() for counts in draws]
        both = list(zip(draws, kept, zeros, strict=True))
        mean = np.mean([(d.mean * k).numpy() for d, k, _ in both], 0)
        zero = np.mean([(1 - k + k * z).numpy() for _, k, z in both], 0)
    assert (found == np.round(found)).all()
    error = np.sqrt(2 / 2000) * found.std(0)
    assert (np.abs(found.mean(0) - mean) < 6 * error + 1e-3).all()
    np.testing.assert_allclose(found.mean(), mean.mean(), rtol=0.03)
    np.testing.assert_allclose((found == 0).mean(0), zero, atol=0.07)


def test_latent_samples_have_the_mean_and_variance_of_q(cells):
    model = scvi(cells, **SMALL)
    found = posterior.latent_samples(model, cells, ROWS, 2000)
    assert found.shape == (2000, 120, 4)
    with torch.no_grad():
        mean, variance = model.posterior(cells.take(ROWS))
    error = (found.mean(0) - mean.numpy()) / (variance.sqrt().numpy() / math.sqrt(2000))
    assert np.abs(error).max() < 5
    np.testing.assert_allclose(found.var(0), variance, rtol=0.25)
    np.testing.assert_allclose(predict(model.latent, cells), mean, rtol=1e-5)


def test_the_same_seed_gives_the_same_bits(cells):
    for model in every_kind(cells):
        questions = [
            lambda seed, model=model: posterior.latent_samples(model, cells, ROWS, 2, seed),
            lambda seed, model=model: posterior.denoise(model, cells, ROWS, n_samples=2, seed=seed),
            lambda seed, model=model: posterior.likelihood(model, cells, ROWS, 3, seed),
            lambda seed, model=model: posterior.predictive_samples(
                model, cells, ROWS, 2, seed=seed
            ),
        ]
        for ask in questions:
            first, again = np.asarray(ask(4)), np.asarray(ask(4))
            assert first.dtype == np.float32
            assert np.array_equal(first, again)
            assert np.isfinite(first).all()


def test_the_noise_outside_is_left_alone_and_training_is_switched_off(cells):
    model = scvi(cells, **SMALL).train()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    posterior.latent_samples(model, cells, ROWS, 2)
    assert torch.equal(torch.rand(3), expected)
    assert not model.training


def test_small_minibatches_give_the_same_answers(cells):
    model = scvi(cells, **SMALL)
    wide = posterior.denoise(model, cells, ROWS, n_samples=0, size=1000)
    narrow = posterior.denoise(model, cells, ROWS, n_samples=0, size=7)
    np.testing.assert_allclose(wide, narrow, rtol=1e-4)
