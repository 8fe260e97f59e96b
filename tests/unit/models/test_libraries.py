import numpy as np
import pytest
import torch

from sclatent.models.libraries import LatentLibrary, ObservedLibrary
from sclatent.models.scvi import Scvi, build_scvi

ROWS = np.arange(120)
LATENT = Scvi(n_latent=4, n_hidden=16, library="latent", dropout=0.0)


def test_the_observed_library_is_the_log_of_the_total_and_costs_nothing(cells):
    minibatch = cells.take(ROWS[:10])
    library = ObservedLibrary().draw(minibatch.counts, minibatch, None)
    expected = torch.tensor(np.log(cells.counts[:10].sum(1)), dtype=torch.float32)
    torch.testing.assert_close(library.log_size, expected)
    assert not library.kl.any()
    assert not library.log_ratio.any()


def test_the_prior_is_the_mean_and_variance_of_the_log_totals_of_each_batch(cells):
    train = ROWS[:90]
    library = build_scvi(cells, train, LATENT, seed=0).library
    logs = np.log(cells.library_size[train])
    for code in (0, 1):
        chosen = logs[cells.batch[train] == code]
        assert library.mean[code].item() == pytest.approx(chosen.mean(), rel=1e-6)
        assert library.variance[code].item() == pytest.approx(chosen.var(), rel=1e-5)
    assert library.mean[0] != library.mean[1]


@torch.no_grad()
def test_its_divergence_is_that_from_the_prior_of_the_cells_batch(cells):
    model = build_scvi(cells, ROWS, LATENT, seed=0).eval()
    minibatch = cells.take(ROWS[:10])
    inputs, columns = model.inputs(minibatch)
    torch.manual_seed(0)
    library = model.library.draw(inputs, minibatch, columns)
    mean, variance = (v[:, 0] for v in model.library.encoder(inputs, columns))
    code = torch.from_numpy(cells.batch[:10])
    prior = (model.library.mean[code], model.library.variance[code].sqrt())
    normal = torch.distributions.Normal
    q, p = normal(mean, variance.sqrt()), normal(*prior)
    torch.testing.assert_close(library.kl, torch.distributions.kl_divergence(q, p))
    size = library.log_size[:, 0]
    torch.testing.assert_close(library.log_ratio, p.log_prob(size) - q.log_prob(size))


@torch.no_grad()
def test_the_kl_term_of_the_library_is_not_multiplied_by_the_kl_weight(cells):
    model = build_scvi(cells, ROWS, LATENT, seed=0).eval()
    minibatch = cells.take(ROWS[:10])
    library_kl = model.library.draw(*model.inputs(minibatch)[:1], minibatch, None).kl.mean()
    losses = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        losses.append(model.loss(minibatch, weight))
    z_kl = losses[0].kl - library_kl
    torch.testing.assert_close(losses[0].total - losses[0].reconstruction, library_kl)
    torch.testing.assert_close(losses[1].total - losses[0].total, z_kl, rtol=1e-4, atol=1e-4)


def test_a_batch_of_equal_totals_or_without_training_cells_does_no_harm():
    library = LatentLibrary(4, 3, 8, 0, 0.0)
    totals = np.array([50.0, 50.0, 20.0, 90.0])
    library.start_from(totals, np.array([0, 0, 1, 1]))
    assert library.variance.min() > 0
    assert library.mean[2].item() == pytest.approx(np.log(totals).mean())
    assert library.variance[2].item() == pytest.approx(np.log(totals).var())
