import math

import numpy as np
import pytest
import torch

from sclatent.models.networks import kl_standard_normal, log_normal
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi, build_scvi
from sclatent.training.loader import Sizes
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

SMALL = Scvi(n_latent=4, n_hidden=16, dropout=0.0)
ROWS = np.arange(120)


def test_probabilities_sum_to_one(cells):
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 3, Scanvi()).eval()
    probabilities = predict(model.probabilities, cells)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_the_cross_entropy_of_a_uniform_classifier_is_log_k(cells):
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 5, Scanvi()).eval()
    torch.nn.init.zeros_(model.logits.weight)
    torch.nn.init.zeros_(model.logits.bias)
    log_prob = model.classify(torch.randn(7, 4))
    torch.testing.assert_close(log_prob, torch.full((7, 5), -math.log(5)))


def test_the_second_level_equals_a_loop_over_the_types(cells):
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 3, Scanvi()).eval()
    z1 = torch.randn(6, 4)
    torch.manual_seed(0)
    log_p, kl = model.second_level(z1)
    torch.manual_seed(0)
    noise = torch.randn(18, 4).view(3, 6, 4)
    for label in range(3):
        y = torch.eye(3)[torch.full((6,), label)]
        mean, variance = model.encoder(z1, y)
        z2 = mean + variance.sqrt() * noise[label]
        torch.testing.assert_close(kl[:, label], kl_standard_normal(mean, variance))
        torch.testing.assert_close(log_p[:, label], log_normal(z1, *model.decoder(z2, y)))


def test_hidden_labels_do_not_enter_the_loss(cells):
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 2, Scanvi()).eval()
    minibatch = cells.take(ROWS[:20])
    torch.manual_seed(0)
    with_labels = model.loss(minibatch, 1.0).total
    torch.manual_seed(0)
    without = model.loss(minibatch._replace(label=torch.full((20,), -1)), 1.0).total
    assert with_labels > without
    assert math.isfinite(without.item())


@pytest.mark.parametrize("labelled", [0, 1])
def test_a_minibatch_with_few_labels_can_be_learnt_from(cells, labelled):
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 2, Scanvi()).train()
    label = torch.full((20,), -1)
    label[:labelled] = 1
    loss = model.loss(cells.take(ROWS[:20])._replace(label=label), 1.0)
    loss.total.backward()
    assert math.isfinite(loss.total.item())


def test_it_predicts_the_types_of_hidden_cells(cells):
    plan = Training(minibatch=32, n_steps=120)
    scvi = build_scvi(cells, ROWS[:100], SMALL, seed=0)
    fit(scvi, cells, ROWS[:100], ROWS[100:], plan, seed=0)
    model = SCANVI(scvi, 2, Scanvi())
    fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=0)
    predicted = predict(model.probabilities, cells).argmax(1)
    truth = np.asarray(cells.counts[:, :10].sum(1)).ravel() > 40
    hidden = cells.label < 0
    assert (predicted[hidden] == truth[hidden]).mean() > 0.9
