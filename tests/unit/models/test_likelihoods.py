import numpy as np
import pytest
import torch
from scipy import stats
from scipy.sparse import csr_matrix

from sclatent.models.likelihoods import (
    Entries,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    dispersion_from_moments,
)


def entries_of(counts: np.ndarray) -> Entries:
    row, gene = np.nonzero(counts)
    value = torch.tensor(counts[row, gene], dtype=torch.float32)
    return Entries(torch.tensor(row), torch.tensor(gene), value)


@pytest.mark.parametrize("theta", [1e-3, 0.1, 1.0, 30.0, 1e4, 1e6])
@pytest.mark.parametrize("mu", [1e-3, 0.5, 20.0, 5e3])
def test_the_negative_binomial_equals_scipys(theta, mu):
    counts = np.array([[0, 1, 2, 7, 60, 2000]])
    expected = stats.nbinom.logpmf(counts, theta, theta / (theta + mu)).sum()
    log_rate = torch.full(counts.shape, np.log(mu), dtype=torch.float32)
    log_theta = torch.full((counts.shape[1],), np.log(theta), dtype=torch.float32)
    value = NegativeBinomial(log_rate, log_theta).log_prob(entries_of(counts)).item()
    assert value == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("logit", [-30.0, -2.0, 0.0, 3.0])
def test_the_zero_inflated_negative_binomial_is_the_mixture(logit):
    counts, mu, theta = np.array([[0, 0, 1, 5, 40]]), 3.0, 0.7
    share = 1 / (1 + np.exp(-logit))
    mixture = (counts == 0) * share + (1 - share) * stats.nbinom.pmf(
        counts, theta, theta / (theta + mu)
    )
    shape = counts.shape
    value = ZeroInflatedNegativeBinomial(
        torch.full(shape, np.log(mu), dtype=torch.float32),
        torch.full(shape[1:], np.log(theta), dtype=torch.float32),
        torch.full(shape, logit),
    ).log_prob(entries_of(counts))
    assert value.item() == pytest.approx(np.log(mixture).sum(), rel=1e-5)


@pytest.mark.parametrize("mu", [1e-5, 0.5, 20.0, 1e6])
def test_the_poisson_equals_scipys(mu):
    counts = np.array([[0, 1, 2, 7, 60, 2000, 1_000_000]])
    log_rate = torch.full(counts.shape, np.log(mu), dtype=torch.float32)
    value = Poisson(log_rate).log_prob(entries_of(counts)).item()
    assert value == pytest.approx(stats.poisson.logpmf(counts, mu).sum(), rel=2e-5)


def test_the_poissons_gradients_stay_finite_at_the_extremes():
    log_rate = torch.tensor([[-11.5, 18.0, 3.0]], requires_grad=True)
    value = Poisson(log_rate).log_prob(entries_of(np.array([[1, 0, 1_000_000]])))[0]
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(log_rate.grad).all()


@pytest.mark.parametrize("inflated", [False, True])
def test_a_dispersion_per_cell_equals_scipys(inflated):
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.5, 6.0, (8, 5)))
    mu, theta = random.lognormal(1, 1, (8, 5)), random.lognormal(0, 2, (8, 5))
    log_rate, log_theta = (torch.tensor(np.log(a), dtype=torch.float32) for a in (mu, theta))
    expected = stats.nbinom.pmf(counts, theta, theta / (theta + mu))
    if inflated:
        logit = torch.tensor(random.normal(0, 2, (8, 5)), dtype=torch.float32)
        pi = torch.sigmoid(logit).numpy()
        expected = (counts == 0) * pi + (1 - pi) * expected
        value = ZeroInflatedNegativeBinomial(log_rate, log_theta, logit)
        value = value.log_prob(entries_of(counts)).sum()
    else:
        value = NegativeBinomial(log_rate, log_theta).log_prob(entries_of(counts)).sum()
    assert value.item() == pytest.approx(np.log(expected).sum(), rel=1e-5)


def test_a_dispersion_per_cell_that_is_the_same_in_all_cells_is_one_per_gene():
    random = np.random.default_rng(0)
    counts = random.poisson(2.0, (6, 5))
    log_rate = torch.tensor(random.normal(0, 1, (6, 5)), dtype=torch.float32)
    log_theta = torch.tensor(random.normal(0, 1, 5), dtype=torch.float32, requires_grad=True)
    for shape in ((5,), (6, 5)):
        each = log_theta.expand(shape)
        value = NegativeBinomial(log_rate, each).log_prob(entries_of(counts)).sum()
        (gradient,) = torch.autograd.grad(value, log_theta)
        if shape == (5,):
            first, slope = value, gradient
    torch.testing.assert_close(value, first)
    torch.testing.assert_close(gradient, slope)


@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("theta", [1e-4, 1.0, 1e6])
def test_values_and_gradients_stay_finite_at_the_extremes(theta, per_cell):
    counts = np.array([[0, 1, 1_000_000]])
    log_rate = torch.tensor([[-30.0, 14.0, 3.0]], requires_grad=True)
    shape = (1, 3) if per_cell else (3,)
    log_theta = torch.full(shape, np.log(theta), dtype=torch.float32, requires_grad=True)
    logit = torch.tensor([[40.0, -40.0, 0.0]], requires_grad=True)
    value = ZeroInflatedNegativeBinomial(log_rate, log_theta, logit)
    value = value.log_prob(entries_of(counts)).sum()
    value.backward()
    tensors = (value, log_rate.grad, log_theta.grad, logit.grad)
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


def test_gradients_equal_those_of_torch_distributions():
    random = np.random.default_rng(0)
    counts = random.poisson(2.0, (6, 5))
    log_rate = torch.tensor(random.normal(0, 1, (6, 5)), dtype=torch.float32, requires_grad=True)
    log_theta = torch.tensor(random.normal(0, 1, 5), dtype=torch.float32, requires_grad=True)
    ours = torch.autograd.grad(
        NegativeBinomial(log_rate, log_theta).log_prob(entries_of(counts)).sum(),
        [log_rate, log_theta],
    )
    reference = torch.distributions.NegativeBinomial(
        total_count=log_theta.double().exp(), logits=log_rate.double() - log_theta.double()
    )
    theirs = torch.autograd.grad(
        reference.log_prob(torch.tensor(counts)).sum(), [log_rate, log_theta]
    )
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)


def test_the_dispersion_from_moments_is_near_the_truth():
    random = np.random.default_rng(0)
    library = random.lognormal(8, 0.3, 4000)
    truth = np.array([0.5, 2.0, 8.0])
    mean = library[:, None] * np.array([0.002, 0.004, 0.008])
    counts = csr_matrix(random.poisson(random.gamma(truth, mean / truth)))
    estimate = dispersion_from_moments(counts, library).exp().numpy() / 2
    np.testing.assert_allclose(estimate, truth, rtol=0.5)
