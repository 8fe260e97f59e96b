"""Both ways to evaluate the likelihood, held to models/likelihoods.py in float64 by autograd."""

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax, softplus

from sclatent.kernels.cuda import plain
from sclatent.kernels.cuda.kinds import LOG_MEAN, Kind, Terms
from sclatent.kernels.cuda.operators import FusedLogLikelihood
from sclatent.models.likelihoods import (
    Entries,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)

N_CELLS, N_GENES, N_ROWS = 11, 37, 3
KINDS = {
    "poisson": Kind("softmax", "none"),
    "nb": Kind("softmax", "log"),
    "nb-table": Kind("softmax", "log"),
    "nb-cell": Kind("softmax", "clamped"),
    "zinb": Kind("softmax", "log", True),
    "zinb-table": Kind("softmax", "log", True),
    "zinb-cell": Kind("softmax", "clamped", True),
    "dca-poisson": Kind("exponential", "none"),
    "dca-nb": Kind("exponential", "log"),
    "dca-nb-conddisp": Kind("exponential", "softplus", False, 1e-4, 1e4),
    "dca-nb-shared": Kind("exponential", "softplus", False, 1e-4, 1e4),
    "dca-zinb": Kind("exponential", "log", True),
    "dca-zinb-conddisp": Kind("exponential", "softplus", True, 1e-4, 1e4),
    "dca-zinb-shared": Kind("exponential", "softplus", True, 1e-4, 1e4),
}


def draw_terms(name: str, generator, spread: float = 2.0) -> Terms:
    """Draw the tensors that a kind wants; theta from 1e-4 to 1e6 where it may be that wide."""
    kind = KINDS[name]

    def normal(*shape, sd=spread):
        return (sd * torch.randn(shape, generator=generator)).requires_grad_()

    def uniform(*shape):
        low, high = -9.2, 13.8
        return (low + (high - low) * torch.rand(shape, generator=generator)).requires_grad_()

    cells = (N_CELLS, N_GENES)
    one = (N_CELLS, 1) if name.endswith("shared") else cells
    middle = 0.0 if kind.mean == "exponential" else 7.0
    log_library = middle + 2 * torch.randn(N_CELLS, generator=generator)
    terms = {"log_library": log_library.requires_grad_()}
    terms |= {"logits": normal(*cells), "bias": normal(N_GENES)}
    if kind.theta == "log":
        table = name.endswith("table")
        terms["theta"] = uniform(N_ROWS, N_GENES) if table else uniform(N_GENES)
        if table:
            terms["theta_row"] = torch.randint(N_ROWS, (N_CELLS,), generator=generator)
    elif kind.theta != "none":
        terms["theta"] = normal(*one, sd=6.0)
        if not name.endswith("shared"):
            terms["theta_bias"] = normal(N_GENES)
    if kind.zero_inflated:
        terms["pi"] = normal(*one)
        if not name.endswith("shared"):
            terms["pi_bias"] = normal(N_GENES)
    return Terms(**terms)


def draw_counts(generator) -> torch.Tensor:
    """Draw counts with an empty cell, every count up to 12, and counts that need 32 bits."""
    rate = torch.exp(2 * torch.randn(N_CELLS, N_GENES, generator=generator))
    counts = torch.poisson(rate, generator=generator).int()
    counts[0] = 0
    counts[1, :13] = torch.arange(13)
    counts[2, 3], counts[3, 5], counts[4, 7] = 65_536, 100_000, 2_000_000
    return counts


def reference(kind: Kind, counts, terms: Terms) -> torch.Tensor:
    """Return log p(x) as the models' distributions give it, in float64."""
    wide = Terms(*(t.double() if t is not None and t.is_floating_point() else t for t in terms))
    logits = wide.logits + (0 if wide.bias is None else wide.bias)
    log_mean = log_softmax(logits, 1) if kind.mean == "softmax" else logits.clamp(*LOG_MEAN)
    log_rate = log_mean + wide.log_library[:, None]
    row, gene = counts.nonzero(as_tuple=True)
    entries = Entries(row, gene, counts[row, gene].double())
    if kind.theta == "none":
        return Poisson(log_rate).log_prob(entries)
    value = wide.theta if wide.theta_row is None else wide.theta[wide.theta_row]
    if wide.theta_bias is not None:
        value = value + wide.theta_bias
    if kind.theta == "clamped":
        value = value.clamp(kind.lowest, kind.highest)
    elif kind.theta == "softplus":
        value = softplus(value).clamp(kind.lowest, kind.highest).log()
    if not kind.zero_inflated:
        return NegativeBinomial(log_rate, value).log_prob(entries)
    pi = (wide.pi + (0 if wide.pi_bias is None else wide.pi_bias)).expand_as(log_rate)
    return ZeroInflatedNegativeBinomial(log_rate, value, pi).log_prob(entries)


def spread_out(terms: Terms) -> Terms:
    """Give theta and extra zeros the shape (B, G), as the operators want them."""
    shape = terms.logits.shape
    wide = {
        name: value.expand(shape)
        for name, value in (("theta", terms.theta), ("pi", terms.pi))
        if value is not None and value.shape[-1] == 1
    }
    return terms._replace(**wide)


def on(device: str, terms: Terms) -> Terms:
    return Terms(*(None if term is None else term.to(device) for term in terms))


@pytest.fixture(params=["triton", "plain"])
def evaluate(request):
    """Return a function of kind, counts and terms."""
    if request.param == "plain":
        return lambda kind, counts, terms: plain.log_likelihood(kind, counts, spread_out(terms))
    device = request.getfixturevalue("triton_device")

    def run(kind, counts, terms):
        moved = on(device, spread_out(terms))
        return FusedLogLikelihood.apply(kind, counts.to(device), *moved).cpu()

    return run


def leaves(terms: Terms) -> dict:
    named = terms._asdict().items()
    return {name: term for name, term in named if term is not None and term.requires_grad}


def compare(evaluate, kind, counts, terms, generator, log_p_error=1e-5, gradient_error=1e-4):
    """Hold log p and all gradients to the reference."""
    weight = torch.rand(N_CELLS, generator=generator) + 0.5
    found, expected = evaluate(kind, counts, terms), reference(kind, counts, terms)
    assert ((found - expected) / expected).abs().max() < log_p_error
    names, tensors = zip(*leaves(terms).items(), strict=True)
    gradients = torch.autograd.grad((found * weight).sum(), tensors)
    references = torch.autograd.grad((expected * weight).sum(), tensors)
    for name, gradient, wanted in zip(names, gradients, references, strict=True):
        error = (gradient.double() - wanted.double()).abs().max()
        assert error < gradient_error * wanted.abs().max(), name


@pytest.mark.parametrize("name", KINDS)
def test_values_and_gradients_are_those_of_the_models(evaluate, name):
    generator = torch.Generator().manual_seed(0)
    counts, terms = draw_counts(generator), draw_terms(name, generator)
    compare(evaluate, KINDS[name], counts, terms, generator)


@pytest.mark.parametrize("name", KINDS)
def test_rates_may_be_tiny_or_huge(evaluate, name):
    generator = torch.Generator().manual_seed(1)
    counts, terms = draw_counts(generator), draw_terms(name, generator, spread=15.0)
    # In float32 a logit of 60 leaves its rate five digits.
    compare(evaluate, KINDS[name], counts, terms, generator, log_p_error=5e-5)


@pytest.mark.parametrize("log_theta", [-9.2, 0.0, 13.8])
def test_a_count_at_its_own_rate_keeps_its_precision(evaluate, log_theta):
    # Terms of millions cancel here, in every gene, to a few nats.
    generator = torch.Generator().manual_seed(2)
    counts = torch.randint(1, 3_000_000, (N_CELLS, N_GENES), generator=generator).int()
    logits, library = counts.double().log().float(), counts.double().sum(1).log().float()
    terms = Terms(library, logits, theta=torch.full((N_GENES,), log_theta))
    found, expected = (f(KINDS["nb"], counts, terms) for f in (evaluate, reference))
    assert ((found - expected) / expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["nb", "zinb-cell", "dca-zinb-conddisp"])
def test_sixteen_bit_counts_and_half_precision_logits_are_read_as_they_are(evaluate, name):
    generator = torch.Generator().manual_seed(3)
    terms = draw_terms(name, generator)
    matrices = ("logits", "theta", "pi")
    narrow = {
        key: value.detach().bfloat16().requires_grad_()
        for key, value in terms._asdict().items()
        if key in matrices and value is not None and value.dim() == 2
    }
    counts = draw_counts(generator).clamp(max=65_535)
    bits = torch.from_numpy(counts.numpy().astype(np.uint16).view(np.int16))
    terms = terms._replace(**narrow)
    found = evaluate(KINDS[name], bits, terms)
    expected = reference(KINDS[name], counts, terms)
    assert ((found - expected) / expected).abs().max() < 1e-5
    gradients = torch.autograd.grad(found.sum(), list(narrow.values()))
    references = torch.autograd.grad(expected.sum(), list(narrow.values()))
    for gradient, wanted in zip(gradients, references, strict=True):
        assert gradient.dtype == torch.bfloat16
        # One unit in the last place: the interpreter cuts off where a GPU rounds.
        assert torch.allclose(gradient.float(), wanted.float(), rtol=2**-7, atol=1e-3)


def test_equal_inputs_give_equal_bits(evaluate):
    generator = torch.Generator().manual_seed(4)
    counts, terms = draw_counts(generator), draw_terms("zinb-table", generator)
    tensors = list(leaves(terms).values())
    kind = KINDS["zinb-table"]
    first, second = (
        torch.autograd.grad(evaluate(kind, counts, terms).sum(), tensors) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
