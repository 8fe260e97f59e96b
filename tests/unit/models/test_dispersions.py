from dataclasses import replace

import numpy as np
import pytest
import torch

from sclatent.models.dispersions import (
    HIGHEST,
    LOWEST,
    BatchDispersion,
    CellDispersion,
    GeneDispersion,
    LabelDispersion,
)
from sclatent.models.scvi import Scvi, build_scvi

ROWS = np.arange(120)
HIDDEN = torch.zeros(8, 16)


@pytest.fixture
def minibatch(cells):
    """Eight cells: batches 0 and 1 in turn; labels 0, 1, hidden, hidden, and again."""
    label = torch.tensor([0, 1, -1, -1] * 2)
    batch = torch.eye(2)[torch.arange(8) % 2]
    return cells.take(ROWS[:8]).replace(label=label, batch=batch)


def test_a_theta_per_gene_is_the_same_in_every_cell(minibatch):
    module = GeneDispersion(40)
    assert torch.equal(module(HIDDEN, minibatch), module.log_theta.clamp(LOWEST, HIGHEST))


def test_a_theta_per_gene_and_batch_is_that_of_the_cells_batch(minibatch):
    module = BatchDispersion(40, 2)
    expected = module.log_theta[[0, 1] * 4]
    torch.testing.assert_close(module(HIDDEN, minibatch), expected, rtol=0, atol=0)


def test_cells_whose_label_is_hidden_share_the_last_theta(minibatch):
    module = LabelDispersion(40, 2)
    expected = module.log_theta[[0, 1, 2, 2] * 2]
    torch.testing.assert_close(module(HIDDEN, minibatch), expected, rtol=0, atol=0)


def test_a_theta_per_cell_is_log_linear_in_the_hidden_state(minibatch):
    module, hidden = CellDispersion(40, 16), torch.randn(8, 16)
    expected = hidden @ module.log_theta.weight.T + module.log_theta.bias
    torch.testing.assert_close(module(hidden, minibatch), expected)


@pytest.mark.parametrize(
    ("module", "rows", "unused"),
    [(BatchDispersion(40, 3), [0, 1], [2]), (LabelDispersion(40, 3), [0, 1, 3], [2])],
)
def test_gradients_reach_only_the_rows_in_use(minibatch, module, rows, unused):
    batch = torch.nn.functional.pad(minibatch.batch, (0, module.log_theta.shape[0] - 2))[:, :3]
    module(HIDDEN, minibatch.replace(batch=batch)).sum().backward()
    assert (module.log_theta.grad[rows] > 0).all()
    assert not module.log_theta.grad[unused].any()


@pytest.mark.parametrize("value", [-50.0, 50.0])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
def test_theta_stays_within_its_bounds(minibatch, cells, dispersion, value):
    settings = Scvi(dispersion=dispersion, n_latent=4, n_hidden=16)
    module = build_scvi(cells, ROWS, settings, seed=0).dispersion
    torch.nn.init.constant_(list(module.parameters())[-1], value)
    theta = module(HIDDEN, minibatch).exp()
    assert theta.min() >= 0.99e-4
    assert theta.max() <= 1e6
    assert torch.equal(theta, theta[:1].expand_as(theta))


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
def test_each_starts_at_the_moments_of_the_data(minibatch, cells, dispersion):
    settings = Scvi(dispersion=dispersion, n_latent=4, n_hidden=16)
    plain = build_scvi(cells, ROWS, replace(settings, dispersion="gene"), seed=0)
    module = build_scvi(cells, ROWS, settings, seed=0).dispersion
    found = module(HIDDEN, minibatch)
    torch.testing.assert_close(found.expand(8, 40), plain.dispersion.log_theta.expand(8, 40))


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-label", "gene-cell"])
@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_the_model_uses_the_theta_that_it_says(cells, minibatch, likelihood, dispersion):
    settings = Scvi(likelihood, dispersion, n_latent=4, n_hidden=16)
    model = build_scvi(cells, ROWS, settings, seed=0).eval()
    z = torch.randn(8, 4)
    hidden = model.decoder(z, minibatch.batch)
    decoded = model.decode(minibatch, z, minibatch.library_size.log())
    assert torch.equal(decoded.log_theta, model.dispersion(hidden, minibatch))
