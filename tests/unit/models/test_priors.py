import math

import numpy as np
import pytest
import torch

from sclatent.models.networks import Gaussian, kl_standard_normal, log_normal
from sclatent.models.priors import GaussianMixture, StandardNormal, VampPrior, spread_rows
from sclatent.models.scvi import Scvi, build_scvi

ROWS = np.arange(120)
SMALL = {"n_latent": 4, "n_hidden": 16, "n_components": 5}


def mixture(mean, variance, weight) -> GaussianMixture:
    prior = GaussianMixture(*np.shape(mean)).double()
    prior.mean.data = torch.tensor(mean, dtype=torch.float64)
    prior.log_scale.data = torch.tensor(variance, dtype=torch.float64).log() / 2
    prior.logits.data = torch.tensor(weight, dtype=torch.float64).log()
    return prior


@pytest.fixture
def diagonal() -> GaussianMixture:
    """Two components on the diagonal, so that the two dimensions are correlated."""
    return mixture([[-2.0, -2.0], [2.0, 2.0]], [[0.3, 0.5], [0.4, 0.2]], [0.3, 0.7])


def square(width=9.0, n=601) -> tuple[torch.Tensor, float]:
    """Return the points of a grid in two dimensions, and the area of each."""
    axis = torch.linspace(-width, width, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), (2 * width / (n - 1)) ** 2


@torch.no_grad()
def test_a_mixtures_density_integrates_to_one(diagonal):
    points, area = square()
    assert (diagonal.log_prob(points).exp().sum() * area).item() == pytest.approx(1, abs=1e-9)


@torch.no_grad()
def test_a_mixtures_density_equals_that_of_torch_distributions(diagonal):
    mean, variance = diagonal.components()
    normal = torch.distributions.Independent(torch.distributions.Normal(mean, variance.sqrt()), 1)
    weights = torch.distributions.Categorical(logits=diagonal.logits)
    expected = torch.distributions.MixtureSameFamily(weights, normal)
    points = square(5, 21)[0]
    torch.testing.assert_close(diagonal.log_prob(points), expected.log_prob(points))


@torch.no_grad()
def test_the_monte_carlo_divergence_from_a_mixture_equals_quadrature(diagonal):
    points, area = square()
    mean = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    variance = torch.tensor([[0.6, 0.9]], dtype=torch.float64)
    log_q = log_normal(points, mean, variance)
    exact = ((log_q - diagonal.log_prob(points)) * log_q.exp()).sum().item() * area
    torch.manual_seed(0)
    mean, variance = mean.expand(200_000, 2), variance.expand(200_000, 2)
    _, drawn = diagonal.draw(mean, variance)
    error = drawn.std().item() / math.sqrt(len(drawn))
    assert abs(drawn.mean().item() - exact) < 5 * error
    assert error < 0.01 * exact


@torch.no_grad()
def test_a_mixture_is_not_a_product_of_mixtures_of_each_dimension(diagonal):
    mean, variance = diagonal.components()
    between = torch.tensor([[-2.0, 2.0]], dtype=torch.float64)  # each dimension alone is likely
    each = -0.5 * ((2 * math.pi * variance).log() + (between - mean).square() / variance)
    product = torch.logsumexp(diagonal.logits[:, None] + each, 0).sum()
    assert product > -4
    assert diagonal.log_prob(between) < product - 10


@torch.no_grad()
def test_a_mixtures_scale_is_not_its_variance():
    prior = mixture([[0.0]], [[9.0]], [1.0])
    assert prior.log_scale.item() == pytest.approx(math.log(3))
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert prior.log_prob(zero).item() == pytest.approx(-math.log(3 * math.sqrt(2 * math.pi)))
    assert prior.components()[1].item() == pytest.approx(9)


@torch.no_grad()
def test_one_component_at_zero_with_scale_one_is_the_standard_normal():
    prior = mixture(np.zeros((1, 3)), np.ones((1, 3)), [1.0])
    torch.manual_seed(0)
    z = torch.randn(50, 3, dtype=torch.float64) * 3
    torch.testing.assert_close(prior.log_prob(z), StandardNormal().log_prob(z), rtol=0, atol=1e-13)
    mean = torch.randn(1, 3, dtype=torch.float64).expand(100_000, 3)
    variance = (torch.rand(1, 3, dtype=torch.float64) + 0.1).expand(100_000, 3)
    _, drawn = prior.draw(mean, variance)
    exact = kl_standard_normal(mean[0], variance[0]).item()
    assert abs(drawn.mean().item() - exact) < 5 * drawn.std().item() / math.sqrt(len(drawn))


@torch.no_grad()
def test_one_standard_component_gives_the_loss_of_the_standard_vae_in_expectation(cells):
    models = {}
    for prior in ("normal", "mixture"):
        settings = Scvi(**{**SMALL, "n_components": 1}, prior=prior)
        models[prior] = build_scvi(cells, ROWS, settings, 0).eval()
    models["mixture"].load_state_dict(models["normal"].state_dict(), strict=False)
    models["mixture"].prior.mean.zero_()
    minibatch, losses = cells.take(ROWS[:60]), {}
    for name, model in models.items():
        torch.manual_seed(0)
        drawn = [model.loss(minibatch, 1.0) for _ in range(400)]
        losses[name] = np.array([[loss.reconstruction, loss.kl] for loss in drawn])
    assert np.array_equal(losses["normal"][:, 0], losses["mixture"][:, 0])
    exact, drawn = losses["normal"][0, 1], losses["mixture"][:, 1]
    assert drawn.std() > 0
    assert abs(drawn.mean() - exact) < 5 * drawn.std() / np.sqrt(len(drawn))


def test_gradients_reach_all_of_a_mixture(diagonal):
    diagonal.log_prob(torch.zeros(3, 2, dtype=torch.float64)).sum().backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in diagonal.parameters())


@pytest.fixture
def vamp(cells):
    return build_scvi(cells, ROWS, Scvi(**SMALL, prior="vamp", encode_covariates=True), seed=0)


@torch.no_grad()
@pytest.mark.parametrize("covariates", [0, 3])
def test_a_vampprior_of_one_pseudo_input_is_its_posterior(covariates):
    torch.manual_seed(0)
    encoder = Gaussian(6, 2, 8, n_covariates=covariates, dropout=0.3)
    prior = VampPrior(1, 6, covariates)
    u, s = torch.randn(1, 6), torch.randn(1, 3) if covariates else None
    prior.start_from(u, s)
    z = torch.randn(9, 2)
    expected = log_normal(z, *encoder.eval()(u, s))
    torch.testing.assert_close(prior.log_prob(z, encoder.train().settled), expected)


@torch.no_grad()
def test_the_vampprior_does_not_move_the_encoders_batch_statistics(vamp):
    before = {name: value.clone() for name, value in vamp.state_dict().items()}
    vamp.train()
    vamp.prior.log_prob(torch.randn(7, 4), vamp.encoder.settled)
    assert all(torch.equal(before[name], value) for name, value in vamp.state_dict().items())


def test_the_vampprior_starts_at_different_training_cells_with_their_batches(cells):
    train = ROWS[20:90]
    settings = Scvi(**{**SMALL, "n_components": 30}, prior="vamp", encode_covariates=True)
    prior = build_scvi(cells, train, settings, seed=1).prior
    logs = torch.log1p(cells.take(train).counts)
    distance = torch.cdist(prior.inputs.detach(), logs)
    nearest = distance.argmin(1)
    torch.testing.assert_close(prior.inputs.detach(), logs[nearest])
    assert len(nearest.unique()) == 30
    assert torch.equal(prior.covariates, cells.take(train[nearest.numpy()]).batch)


def test_gradients_reach_the_pseudo_inputs_through_the_encoder(cells, vamp):
    vamp.train().loss(cells.take(ROWS[:30]), 1.0).total.backward()
    assert (vamp.prior.inputs.grad.abs().sum(1) > 0).all()
    assert "covariates" not in dict(vamp.prior.named_parameters())


def test_more_components_than_cells_repeat_some():
    rows = np.array([3, 5, 8])
    assert set(spread_rows(rows, 10, 0)) <= {3, 5, 8}
    assert sorted(spread_rows(rows, 3, 0)) == [3, 5, 8]
