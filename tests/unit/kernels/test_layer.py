import pytest
import torch
from torch import nn

from sclatent.kernels.layer import layer


def plain(norm, x):
    return torch.relu(norm(x))


def activation(norm, x, p):
    return layer(x, None, None, norm, p)


def made(n_cells=40, n_hidden=6):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(n_hidden, momentum=0.01, eps=1e-3)
    nn.init.normal_(norm.weight, 1.0)
    nn.init.normal_(norm.bias)
    return norm, torch.randn(n_cells, n_hidden).mul(3).add(5).requires_grad_()


def test_it_is_batch_normalisation_and_relu_with_their_gradients():
    results = []
    for function in (plain, lambda norm, x: activation(norm, x, 0.0)):
        norm, x = made()
        out = function(norm, x)
        (out * torch.arange(6.0)).square().sum().backward()
        results.append((out, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_with_a_linear_map_and_columns_beside_it_is_the_same_as_layer_by_layer():
    results = []
    for fast in (False, True):
        torch.manual_seed(1)
        linear, norm = nn.Linear(5 + 2, 6), nn.BatchNorm1d(6)
        x, columns = torch.randn(30, 5, requires_grad=True), torch.randn(30, 2)
        if fast:
            out = layer(x, columns, linear, norm, 0.0)
        else:
            out = plain(norm, linear(torch.cat([x, columns], 1)))
        (out * torch.arange(6.0)).square().sum().backward()
        # the bias before a normalisation has no gradient but rounding
        weights = (linear.weight, norm.weight, norm.bias, x)
        results.append((out, *(weight.grad for weight in weights), *norm.buffers()))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_dropout_keeps_the_share_and_the_mean_and_draws_anew_each_time():
    norm, x = made(2000, 50)
    nn.init.constant_(norm.bias, 10.0)  # so that ReLU stops nothing
    nn.init.ones_(norm.weight)
    outs = [activation(norm, x, 0.3) for _ in range(2)]
    kept = [out > 0 for out in outs]
    assert kept[0].float().mean().item() == pytest.approx(0.7, abs=0.01)
    assert (kept[0] & kept[1]).float().mean().item() == pytest.approx(0.49, abs=0.01)
    full = activation(norm, x, 0.0)
    torch.testing.assert_close(outs[0][kept[0]], full[kept[0]] / 0.7)
    for axis in (0, 1):
        shares = kept[0].float().mean(axis)
        assert shares.std() < 4 * (0.21 / kept[0].shape[axis]) ** 0.5


def test_the_gradient_passes_where_the_value_did():
    norm, x = made()
    torch.manual_seed(3)
    out = activation(norm, x, 0.5)
    out.sum().backward()
    torch.manual_seed(3)
    again = activation(norm, x, 0.5)
    assert torch.equal(out, again)
    assert norm.bias.grad.tolist() == pytest.approx(2 * (out > 0).sum(0), rel=1e-5)


def test_a_value_that_is_not_finite_is_seen():
    norm, x = made()
    norm.weight.data[2] = float("nan")
    assert activation(norm, x, 0.1)[:, 2].isnan().all()
