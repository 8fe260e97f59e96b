import torch

from sclatent.models.networks import (
    Append,
    Gaussian,
    Layers,
    kl_normal,
    kl_standard_normal,
    log_normal,
    sample,
)


def normals():
    torch.manual_seed(0)
    mean, other = torch.randn(2, 5, 3, dtype=torch.float64)
    variance, other_variance = torch.rand(2, 5, 3, dtype=torch.float64) * 3 + 0.01
    return mean, variance, other, other_variance


def normal(mean, variance):
    return torch.distributions.Normal(mean, variance.sqrt())


def test_the_kl_terms_equal_those_of_torch_distributions():
    mean, variance, other, other_variance = normals()
    kl = torch.distributions.kl_divergence
    expected = kl(normal(mean, variance), torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_standard_normal(mean, variance), expected)
    expected = kl(normal(mean, variance), normal(other, other_variance)).sum(1)
    torch.testing.assert_close(kl_normal(mean, variance, other, other_variance), expected)


def test_a_divergence_from_itself_is_zero():
    mean, variance, *_ = normals()
    zero = torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(kl_normal(mean, variance, mean, variance), zero)


def test_the_log_density_equals_that_of_torch_distributions():
    mean, variance, x, _ = normals()
    expected = normal(mean, variance).log_prob(x).sum(1)
    torch.testing.assert_close(log_normal(x, mean, variance), expected)


def test_a_variance_is_not_taken_for_a_scale():
    x, mean, variance = torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), 4.0)
    density = log_normal(x, mean, variance)
    right, wrong = (torch.distributions.Normal(1.0, s).log_prob(x)[:, 0] for s in (2.0, 4.0))
    torch.testing.assert_close(density, right)
    assert abs(density - wrong) > 0.5
    torch.manual_seed(0)
    drawn = sample(mean.expand(100_000, 1), variance.expand(100_000, 1))
    assert abs(drawn.var().item() - 4) < 0.1


def test_gradients_pass_through_a_sample():
    mean, variance, *_ = normals()
    for tensor in (mean, variance):
        tensor.requires_grad_()
    torch.manual_seed(1)
    sample(mean, variance).sum().backward()
    torch.manual_seed(1)
    noise = torch.randn_like(mean)
    torch.testing.assert_close(mean.grad, torch.ones_like(mean))
    torch.testing.assert_close(variance.grad, noise / (2 * variance.detach().sqrt()))


def test_every_layer_sees_the_covariates():
    layers = Layers(4, 8, 3, 2, dropout=0.0)
    assert [linear.in_features for linear in layers.linear] == [6, 10, 10]


def test_the_settled_pass_is_that_of_evaluation_and_moves_nothing():
    torch.manual_seed(0)
    network, x = Gaussian(4, 2, 8, n_layers=2, n_covariates=3, dropout=0.5), torch.randn(9, 4)
    covariates = torch.randn(9, 3)
    network.train()(torch.randn(9, 4), covariates)  # moves the running statistics
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settled = network.settled(x, covariates)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    for ours, theirs in zip(settled, network.eval()(x, covariates), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_variance_has_a_floor():
    network = Gaussian(4, 2, 8).eval()
    torch.nn.init.constant_(network.log_variance.bias, -100)
    assert torch.all(network(torch.zeros(3, 4))[1] >= 1e-4)


def test_a_layer_is_linear_norm_relu():
    torch.manual_seed(0)
    layers, x, c = Layers(4, 8, 1, 2, dropout=0.3).eval(), torch.randn(6, 4), torch.randn(6, 2)
    linear, norm = layers.linear[0], layers.norm[0]
    hidden = torch.cat([x, c], 1) @ linear.weight.T + linear.bias
    scaled = (hidden - norm.running_mean) / (norm.running_var + 1e-3).sqrt()
    torch.testing.assert_close(layers(x, c), (scaled * norm.weight + norm.bias).clamp(min=0))
    assert norm.momentum == 0.01


def test_no_layers_put_the_covariates_beside_the_input():
    append, x, c = Append(4, 2), torch.randn(6, 4), torch.randn(6, 2)
    torch.testing.assert_close(append(x, c), torch.cat([x, c], 1))
    assert append.n_out == 6
