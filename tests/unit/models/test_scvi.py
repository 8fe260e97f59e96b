from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from sclatent.models.networks import kl_standard_normal
from sclatent.models.scvi import SCVI, Scvi, build_scvi, loadings
from sclatent.training.loader import Covariates, Sizes
from sclatent.training.loop import evaluate, fit, predict
from sclatent.training.plan import Training

SMALL = Scvi(n_latent=4, n_hidden=16)
ROWS = np.arange(120)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_the_loss_is_the_negative_elbo(cells, likelihood):
    model = SCVI(Sizes(40, 2), Scvi(likelihood, n_latent=4, n_hidden=16)).eval()
    minibatch = cells.take(ROWS[:30])
    torch.manual_seed(1)
    loss = model.loss(minibatch, kl_weight=0.3)
    torch.manual_seed(1)
    mean, variance = model.posterior(minibatch)
    z = mean + variance.sqrt() * torch.randn_like(mean)
    hidden = model.decoder(z, minibatch.batch)
    share = torch.softmax(model.share(hidden), 1).double().detach().numpy()
    mu, x = share * minibatch.library_size.numpy(), minibatch.counts.numpy()
    theta = model.dispersion.log_theta.exp().double().detach().numpy()
    log_p = stats.nbinom.logpmf(x, theta, theta / (theta + mu))
    if likelihood == "poisson":
        log_p = stats.poisson.logpmf(x, mu)
    if likelihood == "zinb":
        pi = torch.sigmoid(model.dropout_logit(hidden)).double().detach().numpy()
        log_p = np.log((x == 0) * pi + (1 - pi) * np.exp(log_p))
    kl = kl_standard_normal(mean, variance).mean().item()
    assert loss.reconstruction.item() == pytest.approx(-log_p.sum(1).mean(), rel=1e-5)
    assert loss.total.item() == pytest.approx(-log_p.sum(1).mean() + 0.3 * kl, rel=1e-5)


def test_the_decoder_sees_the_batch_and_the_encoder_does_not(cells):
    model = SCVI(Sizes(40, 2), SMALL).eval()
    minibatch = cells.take(ROWS[:10])
    other = minibatch.replace(batch=minibatch.batch.flip(1))
    assert torch.equal(model.latent(minibatch), model.latent(other))
    z = model.latent(minibatch)
    log_library = minibatch.library_size.log()
    here, there = (model.decode(m, z, log_library).mean for m in (minibatch, other))
    assert not torch.equal(here, there)


def test_a_single_batch_is_no_covariate():
    assert SCVI(Sizes(40, 1), SMALL).decoder.linear[0].in_features == SMALL.n_latent


def test_training_lowers_the_loss_and_separates_the_types(cells):
    plan = Training(minibatch=32, n_steps=200)
    model = build_scvi(cells, ROWS[:100], SMALL, seed=0)
    before = evaluate(model, cells, ROWS[100:], 32, 0).total
    curve = fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=0)
    assert min(row["validation_loss"] for row in curve) < before - 2
    latent = predict(model.latent, cells)
    kind = (np.asarray(cells.counts.to_csr()[:, :10].sum(1)).ravel() > 40).astype(float)
    fitted = latent @ np.linalg.lstsq(latent, kind - kind.mean(), rcond=None)[0]
    assert np.corrcoef(fitted, kind)[0, 1] > 0.8


def test_the_same_seed_gives_the_same_bits(cells):
    plan = Training(minibatch=32, n_steps=12)
    runs = []
    for _ in range(2):
        model = build_scvi(cells, ROWS[:100], SMALL, seed=3)
        fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=3)
        runs.append(predict(model.latent, cells))
    assert np.array_equal(*runs)


@pytest.fixture
def described(cells):
    """The cells with a covariate of three categories, one absent from 0 to 99, and two numbers.

    The second number is the same in all of them.
    """
    kind = np.where(ROWS < 100, ROWS % 2, 2)
    numbers = np.stack([np.where(ROWS < 100, 1000.0 + ROWS, -5e4), np.full(120, 37.2)], 1)
    covariates = Covariates(
        {"sex": ["f", "m", "x"]},
        ["age", "degrees"],
        np.eye(3, dtype=np.float32)[kind],
        numbers.astype(np.float32),
    )
    return replace(cells, covariates=covariates)


def changed(minibatch, field: str):
    value = getattr(minibatch, field)
    value = value.flip(1) if field != "continuous" else value + torch.tensor([50.0, 0.0])
    return minibatch.replace(**{field: value})


@pytest.mark.parametrize("decoder", ["layers", "linear"])
@pytest.mark.parametrize("field", ["batch", "categorical", "continuous"])
@pytest.mark.parametrize("encoded", [False, True])
def test_covariates_change_the_rate_and_the_latent_only_when_encoded(
    described, field, encoded, decoder
):
    settings = replace(SMALL, encode_covariates=encoded, library="latent", decoder=decoder)
    model = build_scvi(described, ROWS[:100], settings, seed=0).eval()
    minibatch = described.take(ROWS[:10])
    other = changed(minibatch, field)
    z, log_library = model.latent(minibatch), minibatch.library_size.log()
    rates = [model.decode(m, z, log_library).mean for m in (minibatch, other)]
    assert (rates[0] - rates[1]).abs().max() > 1e-4
    assert torch.equal(z, model.latent(other)) is not encoded
    sizes = [model.library.encoder(*model.inputs(m))[0] for m in (minibatch, other)]
    assert torch.equal(*sizes) is not encoded


def test_numbers_are_standardised_with_the_training_cells_only(described):
    model = build_scvi(described, ROWS[:100], SMALL, seed=0)
    numbers, _ = model.covariates(described.take(ROWS[:100]))
    np.testing.assert_allclose(numbers[:, 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(numbers[:, 0].var(correction=0), 1, rtol=1e-5)
    elsewhere = described.covariates.values.copy()
    elsewhere[100:] *= 7
    other = replace(described, covariates=replace(described.covariates, values=elsewhere))
    again = build_scvi(other, ROWS[:100], SMALL, seed=0)
    assert torch.equal(model.number_mean, again.number_mean)
    assert torch.equal(model.number_sd, again.number_sd)


def test_a_number_that_is_the_same_in_all_training_cells_is_zero(described):
    model = build_scvi(described, ROWS[:100], SMALL, seed=0)
    minibatch = described.take(ROWS[:10])
    assert not model.covariates(minibatch)[0][:, 1].any()
    warmer = minibatch.replace(continuous=minibatch.continuous + 1)
    assert model.covariates(warmer)[0][:, 1].abs().max() < 2


@pytest.mark.parametrize("encoded", [False, True])
def test_a_category_absent_from_the_training_cells_does_no_harm(described, encoded):
    settings = replace(SMALL, encode_covariates=encoded, n_layers=2)
    model = build_scvi(described, ROWS[:90], settings, seed=0)
    column = SMALL.n_latent + 2 + 2 + 2  # after z, two numbers, two batches, two categories
    before = model.decoder.linear[0].weight[:, column].detach().clone()
    plan = Training(minibatch=32, n_steps=30)
    curve = fit(model, described, ROWS[:90], ROWS[90:100], plan, seed=0)
    assert np.isfinite([row["validation_loss"] for row in curve]).all()
    after = model.decoder.linear[0].weight[:, column].detach()
    torch.testing.assert_close(after, before, rtol=0.01, atol=1e-3)  # weight decay alone
    model.eval()
    absent = described.take(ROWS[100:])
    absent = absent.replace(continuous=described.take(ROWS[:20]).continuous)
    seen = absent.replace(categorical=torch.eye(3)[[0] * 20])
    torch.manual_seed(0)
    losses = [model.loss(minibatch, 1.0).total.item() for minibatch in (absent, seen)]
    assert losses[0] < losses[1] + 20


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp"])
@pytest.mark.parametrize("library", ["observed", "latent"])
def test_a_drawn_log_ratio_is_that_of_priors_and_posteriors(cells, prior, library):
    settings = replace(SMALL, prior=prior, library=library, n_components=3)
    model = build_scvi(cells, ROWS, settings, seed=0).eval()
    minibatch = cells.take(ROWS[:9])
    drawn = next(model.draws(minibatch, 1))
    normal = torch.distributions.Normal
    mean, variance = model.posterior(minibatch)
    log_q = normal(mean, variance.sqrt()).log_prob(drawn.z).sum(1)
    expected = model.prior.log_prob(drawn.z, model.encoder.settled) - log_q
    if library == "latent":
        size_mean, size_variance = model.library.encoder(*model.inputs(minibatch))
        code = torch.from_numpy(cells.batch[:9])
        p = normal(model.library.mean[code, None], model.library.variance[code, None].sqrt())
        q = normal(size_mean, size_variance.sqrt())
        expected = expected + (p.log_prob(drawn.log_library) - q.log_prob(drawn.log_library))[:, 0]
    torch.testing.assert_close(drawn.log_ratio, expected, rtol=1e-4, atol=1e-4)


def test_a_linear_decoder_is_linear_in_z_with_the_loadings_as_slopes(cells):
    model = build_scvi(cells, ROWS, replace(SMALL, decoder="linear"), seed=0).eval()
    minibatch, z = cells.take(ROWS[:5]), torch.randn(5, 4)
    hidden = [model.share(model.decoder(point, minibatch.batch)) for point in (z, z + 1)]
    slopes = torch.from_numpy(loadings(model).sum(1))
    torch.testing.assert_close(hidden[1] - hidden[0], slopes.expand(5, 40))


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-cell"])
def test_the_likelihood_is_in_single_precision_also_under_autocast(cells, dispersion):
    settings = replace(SMALL, likelihood="zinb", dispersion=dispersion, library="latent")
    model = build_scvi(cells, ROWS, settings, seed=0)
    minibatch = cells.take(ROWS[:30])
    with torch.autocast("cpu", torch.bfloat16):
        inputs, columns = model.inputs(minibatch)
        assert model.encoder(inputs, columns)[0].dtype == torch.bfloat16
        drawn = next(model.draws(minibatch, 1))
    assert {values.dtype for values in drawn.counts} == {torch.float32}
    share = drawn.counts.mean / drawn.log_library.float().exp()
    torch.testing.assert_close(share.sum(1), torch.ones(30), rtol=1e-5, atol=0)
    assert drawn.counts.log_prob(minibatch.entries).dtype == torch.float32
