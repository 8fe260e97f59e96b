import numpy as np
import pytest
import torch
from scipy import stats

from sclatent.models.networks import kl_standard_normal
from sclatent.models.scvi import SCVI, Scvi, build_scvi
from sclatent.training.loader import Sizes
from sclatent.training.loop import evaluate, fit, predict
from sclatent.training.plan import Training

SMALL = Scvi(n_latent=4, n_hidden=16)
ROWS = np.arange(120)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
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
    if likelihood == "zinb":
        pi = torch.sigmoid(model.dropout_logit(hidden)).double().detach().numpy()
        log_p = np.log((x == 0) * pi + (1 - pi) * np.exp(log_p))
    kl = kl_standard_normal(mean, variance).mean().item()
    assert loss.reconstruction.item() == pytest.approx(-log_p.sum(1).mean(), rel=1e-5)
    assert loss.total.item() == pytest.approx(-log_p.sum(1).mean() + 0.3 * kl, rel=1e-5)


def test_the_decoder_sees_the_batch_and_the_encoder_does_not(cells):
    model = SCVI(Sizes(40, 2), SMALL).eval()
    minibatch = cells.take(ROWS[:10])
    other = minibatch._replace(batch=minibatch.batch.flip(1))
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
    kind = (np.asarray(cells.counts[:, :10].sum(1)).ravel() > 40).astype(float)
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
