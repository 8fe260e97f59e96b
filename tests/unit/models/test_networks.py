import torch

from sclatent.models.networks import Layers, kl_standard_normal, log_normal


def test_the_kl_term_equals_that_of_torch_distributions():
    torch.manual_seed(0)
    mean, variance = torch.randn(5, 3), torch.rand(5, 3) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, variance.sqrt()), normal(0.0, 1.0))
    torch.testing.assert_close(kl_standard_normal(mean, variance), expected.sum(1))


def test_the_log_density_equals_that_of_torch_distributions():
    torch.manual_seed(0)
    x, mean, variance = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5, 3) + 0.1
    expected = torch.distributions.Normal(mean, variance.sqrt()).log_prob(x).sum(1)
    torch.testing.assert_close(log_normal(x, mean, variance), expected)


def test_every_layer_sees_the_covariates():
    layers = Layers(4, 8, 3, 2, dropout=0.0)
    assert [linear.in_features for linear in layers.linear] == [6, 10, 10]
