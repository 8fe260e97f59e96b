import pytest
import torch
from torch import nn

from sclatent.kernels.latent import normal_density, normal_draw, normal_heads
from sclatent.models.networks import kl_standard_normal, log_normal


def given(n: int, variances: int = 0) -> list:
    """Return matrices of 7 cells and 5 dimensions, the last ones positive."""
    torch.manual_seed(0)
    values = [torch.randn(7, 5) for _ in range(n)]
    values = [x.exp() if i >= n - variances else x for i, x in enumerate(values)]
    return [x.requires_grad_() for x in values]


def gradients(found, given):
    """Return the gradients of a sum in which every value has a weight of its own."""
    found = found if isinstance(found, tuple) else (found,)
    weighted = [(x * torch.linspace(-1, 2, x.numel()).view(x.shape)).sum() for x in found]
    return torch.autograd.grad(sum(weighted), given)


def plain_draw(mean, variance):
    return mean + variance.sqrt() * torch.randn_like(mean), kl_standard_normal(mean, variance)


@pytest.mark.parametrize(
    ("fast", "plain", "arguments"),
    [
        (normal_draw, plain_draw, given(2, variances=1)),
        (normal_density, log_normal, given(3, variances=1)),
    ],
)
def test_draw_and_density_are_those_of_the_plain_model_with_their_gradients(fast, plain, arguments):
    results = []
    for function in (fast, plain):
        torch.manual_seed(1)
        found = function(*arguments)
        results.append((found, gradients(found, arguments)))
    torch.testing.assert_close(*results)


def test_so_are_the_heads():
    (hidden,) = given(1)
    mean, log_variance = nn.Linear(5, 3), nn.Linear(5, 3)
    weights = [hidden, *mean.parameters(), *log_variance.parameters()]
    fast = normal_heads(hidden, mean, log_variance, 0.01)
    plain = mean(hidden), log_variance(hidden).exp() + 0.01
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(gradients(fast, weights), gradients(plain, weights))
