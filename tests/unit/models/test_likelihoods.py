"""The densities of counts and their gradients, against mpmath, scipy and torch.distributions.

Precision is stated as ``|error| <= relative * |truth| + floor``, in nats. mpmath (40 digits) is the
truth, at the rounded inputs. Floors are needed where the truth is a difference of far larger
terms: the gradient of theta where theta >> mu, of the logit where |logit| is 30, and, in float32,
the log probability of a zero that is nearly certain under a logit of 30.
"""

import itertools

import numpy as np
import pytest
import torch
from mpmath import digamma, exp, log, loggamma, mpf, workdps
from scipy import stats
from scipy.sparse import csr_matrix

from sclatent.data.compact import compact
from sclatent.models.likelihoods import (
    Entries,
    NegativeBinomial,
    Normal,
    Poisson,
    ZeroInflatedNegativeBinomial,
    dispersion_from_moments,
    log_factorial,
)

RATES = (1e-5, 1e-2, 1.0, 30.0, 1e3, 1e6)
THETAS = (1e-4, 1e-2, 1.0, 30.0, 1e4, 1e6)
LOGITS = (-30.0, -5.0, 0.0, 5.0, 30.0)
COUNTS = (0, 1, 2, 7, 60, 2000, 1_000_000)
KINDS = {"poisson": 1, "nb": 2, "zinb": 3}  # and their numbers of parameters
FLOORS = {torch.float64: (1e-6, 1e-8), torch.float32: (2e-6, 1e-4)}


def entries_of(counts: np.ndarray, dtype=torch.float32) -> Entries:
    row, gene = np.nonzero(counts)
    return Entries(
        torch.tensor(row), torch.tensor(gene), torch.tensor(counts[row, gene], dtype=dtype)
    )


def make(kind: str, parameters: list):
    return {
        "poisson": Poisson,
        "nb": NegativeBinomial,
        "zinb": ZeroInflatedNegativeBinomial,
    }[kind](*parameters)


def grid(kind: str, dtype) -> tuple[list, np.ndarray]:
    """Return log rate, log theta, logit and counts, one combination a cell, one gene each."""
    axes = [np.log(RATES), np.log(THETAS), LOGITS][: KINDS[kind]]
    *parameters, counts = np.array(list(itertools.product(*axes, COUNTS))).T
    tensors = [torch.tensor(values[:, None], dtype=dtype) for values in parameters]
    return [tensor.requires_grad_() for tensor in tensors], counts[:, None]


@workdps(40)
def truth(log_rate: float, log_theta: float, logit: float | None, count: float) -> list[float]:
    """Return log p and its derivatives by log mu, log theta and the logit."""
    mu, theta, x = exp(mpf(log_rate)), exp(mpf(log_theta)), mpf(count)
    total = theta + mu
    value = theta * log(theta / total) + x * log(mu / total)
    value += loggamma(x + theta) - loggamma(theta) - loggamma(x + 1)
    by_rate = theta * (x - mu) / total
    by_theta = log(theta / total) + (mu - x) / total + digamma(x + theta) - digamma(theta)
    by_theta *= theta
    if logit is None:
        return [float(number) for number in (value, by_rate, by_theta)]
    pi = 1 / (1 + exp(-mpf(logit)))
    if count:
        return [float(n) for n in (value + log(1 - pi), by_rate, by_theta, -pi)]
    p = pi + (1 - pi) * exp(value)
    share = (1 - pi) * exp(value) / p  # of the zeros, those that are no dropout
    by_logit = pi * (1 - pi) * (1 - exp(value)) / p
    return [float(n) for n in (log(p), share * by_rate, share * by_theta, by_logit)]


@workdps(40)
def poisson_truth(log_rate: float, count: float) -> list[float]:
    mu, x = exp(mpf(log_rate)), mpf(count)
    return [float(x * mpf(log_rate) - mu - loggamma(x + 1)), float(x - mu)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_reach_the_stated_precision_over_the_whole_range(kind, dtype):
    parameters, counts = grid(kind, dtype)
    value = make(kind, parameters).log_prob(entries_of(counts, dtype))
    gradients = torch.autograd.grad(value.sum(), parameters)
    assert {tensor.dtype for tensor in (value, *gradients)} == {dtype}
    ours = np.column_stack([value.detach(), *(g[:, 0] for g in gradients)]).astype(float)
    inputs = torch.cat(parameters, 1).double().tolist()
    if kind == "poisson":
        true = [poisson_truth(*p, x) for p, x in zip(inputs, counts[:, 0], strict=True)]
    else:
        rows = [(*p, None)[:3] for p in inputs]
        true = [truth(*p, x) for p, x in zip(rows, counts[:, 0], strict=True)]
    relative, floor = FLOORS[dtype]
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, np.array(true), rtol=relative, atol=floor)
    if kind != "zinb" or dtype is torch.float64:
        np.testing.assert_allclose(ours[:, 0], np.array(true)[:, 0], rtol=relative, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_equal_those_of_torch_distributions(kind):
    parameters, counts = grid(kind, torch.float64)
    ours = make(kind, parameters).log_prob(entries_of(counts, torch.float64))
    x = torch.tensor(counts[:, 0])
    log_rate, log_theta, logit = (*(p[:, 0] for p in parameters), None, None)[:3]
    if kind == "poisson":
        theirs = torch.distributions.Poisson(log_rate.exp()).log_prob(x)
    else:
        theirs = torch.distributions.NegativeBinomial(
            log_theta.exp(), logits=log_rate - log_theta
        ).log_prob(x)
    if kind == "zinb":
        kept = torch.nn.functional.logsigmoid(-logit) + theirs
        lost = torch.nn.functional.logsigmoid(logit)
        theirs = torch.where(x == 0, torch.logaddexp(lost, kept), kept)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)
    ours, theirs = (torch.autograd.grad(v.sum(), parameters) for v in (ours, theirs))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-6)


def test_the_negative_binomial_equals_scipys():
    (log_rate, log_theta), counts = grid("nb", torch.float64)
    ours = NegativeBinomial(log_rate, log_theta).log_prob(entries_of(counts, torch.float64))
    mu, theta = (p.detach().exp().numpy() for p in (log_rate, log_theta))
    theirs = stats.nbinom.logpmf(counts, theta, theta / (theta + mu))[:, 0]
    exact = (mu / theta > 1e-8)[:, 0]  # below, scipy's 1 - p keeps too few digits
    np.testing.assert_allclose(ours.detach()[exact], theirs[exact], rtol=1e-6)


def test_the_poisson_equals_scipys():
    (log_rate,), counts = grid("poisson", torch.float64)
    ours = Poisson(log_rate).log_prob(entries_of(counts, torch.float64)).detach()
    expected = stats.poisson.logpmf(counts, log_rate.detach().exp().numpy())[:, 0]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_normal_equals_that_of_scipy_and_its_gradient_is_the_error(dtype):
    means, values = (-300.0, -1e-5, 0.0, 0.7, 30.0), (0.0, -2.5, 0.1, 7.0, 300.0)
    pairs = np.array(list(itertools.product(means, values)))
    mean = torch.tensor(pairs[:, :1], dtype=dtype, requires_grad=True)
    counts = torch.tensor(pairs[:, 1:], dtype=dtype).numpy()
    value = Normal(mean).log_prob(entries_of(counts, dtype))
    (gradient,) = torch.autograd.grad(value.sum(), mean)
    rounded = mean.detach().double().numpy()
    assert value.dtype == gradient.dtype == dtype
    relative = 1e-6 if dtype is torch.float32 else 1e-12
    np.testing.assert_allclose(
        value.detach(), stats.norm.logpdf(counts.astype(float), rounded)[:, 0], rtol=relative
    )
    np.testing.assert_allclose(gradient, counts - rounded, rtol=relative)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["gene", "cell and gene", "one"])
def test_every_shape_of_theta_and_logit_gives_the_sum_over_the_genes(kind, shape):
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.5, 6.0, (8, 5)))
    size = {"gene": (5,), "cell and gene": (8, 5), "one": (8, 1)}[shape]
    log_theta = random.normal(0, 2, size)
    logit = random.normal(0, 2, (8, 1) if shape == "one" else (8, 5))
    log_rate = random.normal(1, 1, (8, 5))
    tensors = [torch.tensor(values, requires_grad=True) for values in (log_rate, log_theta, logit)][
        : KINDS[kind]
    ]
    value = make(kind, tensors).log_prob(entries_of(counts, torch.float64))
    mu, theta = np.exp(log_rate), np.exp(log_theta)
    expected = stats.nbinom.pmf(counts, theta, theta / (theta + mu))
    if kind == "poisson":
        expected = stats.poisson.pmf(counts, mu)
    if kind == "zinb":
        pi = 1 / (1 + np.exp(-logit))
        expected = (counts == 0) * pi + (1 - pi) * expected
    np.testing.assert_allclose(value.detach(), np.log(expected).sum(1), rtol=1e-9)
    assert torch.autograd.gradcheck(
        lambda *p: make(kind, p).log_prob(entries_of(counts, torch.float64)), tensors
    )


def test_a_cell_without_counts_and_a_minibatch_without_any_have_a_likelihood():
    counts = np.zeros((3, 4))
    counts[1, 2] = 5
    log_rate = torch.zeros(3, 4, requires_grad=True)
    for chosen in (counts, np.zeros((3, 4))):
        value = NegativeBinomial(log_rate, torch.zeros(4)).log_prob(entries_of(chosen))
        expected = stats.nbinom.logpmf(chosen, 1, 0.5).sum(1)
        np.testing.assert_allclose(value.detach(), expected, rtol=1e-6)
        (gradient,) = torch.autograd.grad(value.sum(), log_rate)
        np.testing.assert_allclose(gradient, (chosen - 1) / 2, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_stay_finite_beyond_the_range(kind):
    counts = np.array([[0, 1, 1_000_000, 0]])
    for log_theta in (-9.2, 0.0, 13.8):
        parameters = [
            torch.tensor([[-80.0, 14.0, 3.0, 30.0]], requires_grad=True),
            torch.full((4,), log_theta, requires_grad=True),
            torch.tensor([[80.0, -80.0, 0.0, -80.0]], requires_grad=True),
        ][: KINDS[kind]]
        value = make(kind, parameters).log_prob(entries_of(counts)).sum()
        gradients = torch.autograd.grad(value, parameters)
        assert all(torch.isfinite(tensor).all() for tensor in (value, *gradients))


@pytest.mark.parametrize("x", [0, 1, 5, 1022, 1023, 1024, 1025, 10**6])
def test_factorials_looked_up_and_computed_agree_with_scipys(x):
    from scipy.special import gammaln

    expected = pytest.approx(gammaln(x + 1.0), rel=1e-14)
    assert log_factorial(torch.tensor([float(x)])).item() == expected


@pytest.mark.parametrize("mu", [0.2, 3.0, 50.0])
@pytest.mark.parametrize("theta", [0.3, 2.0, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_mean_variance_and_zeros_of_the_formulas(kind, mu, theta):
    torch.manual_seed(0)
    n, pi = 200_000, 0.3
    parameters = [torch.full((n, 1), float(np.log(mu))), torch.full((1,), float(np.log(theta)))]
    parameters.append(torch.full((n, 1), float(np.log(pi / (1 - pi)))))
    distribution = make(kind, parameters[: KINDS[kind]])
    x = distribution.sample().double()[:, 0].numpy()
    variance = mu if kind == "poisson" else mu + mu**2 / theta
    zeros = np.exp(-mu) if kind == "poisson" else (theta / (theta + mu)) ** theta
    mean = mu
    if kind == "zinb":
        variance = (1 - pi) * (variance + pi * mu**2)
        mean, zeros = (1 - pi) * mu, pi + (1 - pi) * zeros
    # Five standard errors; that of the variance from the sample's fourth moment.
    fourth = np.sqrt(np.mean((x - mean) ** 4) / n)
    assert distribution.mean[0, 0].item() == pytest.approx(mu, rel=1e-5)
    assert abs(x.mean() - mean) < 5 * np.sqrt(variance / n)
    assert abs(x.var() - variance) < 5 * fourth
    assert abs((x == 0).mean() - zeros) < 5 * np.sqrt(zeros * (1 - zeros) / n) + 1e-9
    assert np.array_equal(x, np.round(x))


def test_normal_samples_have_unit_variance_around_the_mean():
    torch.manual_seed(0)
    x = Normal(torch.full((100_000, 1), 2.5)).sample()
    assert x.mean().item() == pytest.approx(2.5, abs=0.02)
    assert x.var().item() == pytest.approx(1, abs=0.03)


def test_the_probabilities_of_all_counts_sum_to_one():
    counts = np.arange(2000.0)[:, None]
    ones = torch.ones(2000, 1, dtype=torch.float64)
    for kind, n in KINDS.items():
        parameters = [ones * 1.5, ones * -0.5, ones * -1.0][:n]
        log_p = make(kind, parameters).log_prob(entries_of(counts, torch.float64))
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_the_dispersion_from_moments_is_near_the_truth():
    random = np.random.default_rng(0)
    library = random.lognormal(8, 0.3, 4000)
    truth = np.array([0.5, 2.0, 8.0])
    mean = library[:, None] * np.array([0.002, 0.004, 0.008])
    counts = csr_matrix(random.poisson(random.gamma(truth, mean / truth)))
    moments = compact(counts).moments(np.arange(4000))
    estimate = dispersion_from_moments(moments, library).exp().numpy() / 2
    np.testing.assert_allclose(estimate, truth, rtol=0.5)
