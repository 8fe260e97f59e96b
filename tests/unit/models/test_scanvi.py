import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special, stats

from sclatent.models.networks import kl_standard_normal, log_normal
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi, build_scvi
from sclatent.training.loader import Sizes
from sclatent.training.loop import evaluate, fit, predict
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
    without = model.loss(minibatch.replace(label=torch.full((20,), -1)), 1.0).total
    assert with_labels > without
    assert math.isfinite(without.item())


@pytest.mark.parametrize("labelled", [0, 1])
def test_a_minibatch_with_few_labels_can_be_learnt_from(cells, labelled):
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 2, Scanvi()).train()
    label = torch.full((20,), -1)
    label[:labelled] = 1
    loss = model.loss(cells.take(ROWS[:20]).replace(label=label), 1.0)
    loss.total.backward()
    assert math.isfinite(loss.total.item())


def brute_force(model, minibatch, kl_weight: float) -> np.ndarray:
    """Return the negative ELBO and the loss per cell, type by type with scipy; no cross-entropy.

    Draws z1, then z2 for each type, from torch's random numbers.
    """
    scvi, elbo = model.scvi, model.settings.elbo

    def log_density(x, mean, variance):
        return stats.norm.logpdf(x, mean, np.sqrt(variance)).sum(1)

    def kl(mean, variance):
        return 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(1)

    mean, variance = scvi.posterior(minibatch)
    z1 = mean + variance.sqrt() * torch.randn_like(mean)
    log_q = special.log_softmax(model.logits(model.classifier(z1)).numpy().astype(float), axis=1)
    counts = scvi.decode(minibatch, z1, minibatch.library_size.log())
    mu, theta = counts.mean.numpy().astype(float), counts.log_theta.double().exp().numpy()
    log_x = stats.nbinom.logpmf(minibatch.counts, theta, theta / (theta + mu)).sum(1)
    noise = torch.randn(model.n_labels * len(z1), z1.shape[1]).view(model.n_labels, *z1.shape)
    loss = -log_x + log_density(z1.numpy(), mean.numpy(), variance.numpy())
    labels = minibatch.label.numpy()
    for cell in range(len(z1)):
        known = elbo == "paper" and labels[cell] >= 0
        q = np.eye(model.n_labels)[labels[cell]] if known else np.exp(log_q[cell])
        for label, weight in enumerate(q):
            y = torch.eye(model.n_labels)[[label]]
            mean2, variance2 = model.encoder(z1[[cell]], y)
            z2 = mean2 + variance2.sqrt() * noise[label, [cell]]
            log_p = log_density(z1[[cell]].numpy(), *(v.numpy() for v in model.decoder(z2, y)))
            loss[cell] -= weight * log_p[0]
            kl_y = math.log(weight * model.n_labels) if weight else 0.0
            loss[cell] += kl_weight * weight * (kl(mean2.numpy(), variance2.numpy())[0] + kl_y)
    return loss


@torch.no_grad()
@pytest.mark.parametrize("elbo", ["scvi-tools", "paper"])
@pytest.mark.parametrize("kl_weight", [0.3, 1.0])
def test_the_loss_equals_a_loop_over_the_types_with_scipy(cells, elbo, kl_weight):
    settings = Scanvi(elbo=elbo, classification_weight=0.0)
    torch.manual_seed(3)
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 3, settings).eval()
    minibatch = cells.take(ROWS[:12])
    assert (minibatch.label >= 0).any()
    assert (minibatch.label < 0).any()
    torch.manual_seed(0)
    loss = model.loss(minibatch, kl_weight).total.item()
    torch.manual_seed(0)
    assert loss == pytest.approx(brute_force(model, minibatch, kl_weight).mean(), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("labelled", ["minibatch", "drawn"])
def test_the_cross_entropy_of_labelled_cells_is_added_with_its_weight(cells, labelled):
    torch.manual_seed(3)
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 2, Scanvi(classification_weight=7.0)).eval()
    minibatch, others = cells.take(ROWS[:12]), cells.take(ROWS[[21, 41, 43]])
    if labelled == "drawn":
        minibatch = minibatch.replace(labelled=others)
    learnt = others if labelled == "drawn" else cells.take(ROWS[1:12:2])
    logits = model.logits(model.classifier(model.latent(learnt))).numpy().astype(float)
    error = -special.log_softmax(logits, axis=1)[range(len(logits)), learnt.label].mean()
    torch.manual_seed(0)
    loss = model.loss(minibatch, 1.0).total.item()
    torch.manual_seed(0)
    expected = brute_force(model, minibatch, 1.0).mean() + 7.0 * error
    assert loss == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_in_the_papers_elbo_a_labelled_cell_uses_its_label_only(cells):
    torch.manual_seed(3)
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 3, Scanvi("scvi", "paper", 0.0)).eval()
    minibatch = cells.take(ROWS[1:20:2])
    values = []
    for bias in (0.0, 9.0):  # what the classifier believes does not matter
        torch.nn.init.constant_(model.logits.bias[0], bias)
        torch.manual_seed(0)
        values.append(model.loss(minibatch, 1.0).total)
    assert torch.equal(*values)
    weights = model.type_weights(model.classify(torch.randn(10, 4)), minibatch.label).exp()
    assert torch.equal(weights, torch.eye(3)[minibatch.label])


@torch.no_grad()
def test_both_elbos_are_the_same_where_no_cell_is_labelled(cells):
    torch.manual_seed(3)
    scvi, hidden, values = SCVI(Sizes(40, 2), SMALL), torch.full((20,), -1), []
    for elbo in ("paper", "scvi-tools"):
        torch.manual_seed(4)
        model = SCANVI(scvi, 3, Scanvi(elbo=elbo)).eval()
        torch.manual_seed(0)
        values.append(model.loss(cells.take(ROWS[:20]).replace(label=hidden), 0.7).total)
    assert torch.equal(*values)


@pytest.mark.parametrize("elbo", ["scvi-tools", "paper"])
def test_gradients_are_finite_where_the_classifier_is_certain(cells, elbo):
    model = SCANVI(SCVI(Sizes(40, 2), SMALL), 2, Scanvi(elbo=elbo)).train()
    torch.nn.init.constant_(model.logits.bias[0], 500.0)
    model.loss(cells.take(ROWS[:20]), 1.0).total.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    "options",
    [
        {"library": "latent", "likelihood": "zinb"},
        {"dispersion": "gene-batch"},
        {"dispersion": "gene-label"},
        {"dispersion": "gene-cell", "encode_covariates": True},
        {"adversary": 1.0},
        {"prior": "vamp", "n_components": 3},
        {"decoder": "linear"},
    ],
    ids=str,
)
@pytest.mark.parametrize("elbo", ["scvi-tools", "paper"])
@pytest.mark.parametrize("labelled", ["minibatch", "balanced"])
def test_it_trains_on_top_of_every_scvi(cells, options, elbo, labelled):
    plan = Training(minibatch=50, n_steps=8, min_epochs=4)
    scvi = build_scvi(cells, ROWS[:100], replace(SMALL, **options), seed=0)
    model = SCANVI(scvi, 2, Scanvi(elbo=elbo))
    before = evaluate(model, cells, ROWS[100:], 50, 0).total
    curve = fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=0, labelled=labelled)
    assert curve[-1]["validation_loss"] < before
    assert len(plan.optimise(model).param_groups) == 1 + ("adversary" in options)


@pytest.mark.parametrize("start", ["scvi", "scratch"])
def test_it_predicts_the_types_of_hidden_cells(cells, start):
    plan = Training(minibatch=32, n_steps=120)
    scvi = build_scvi(cells, ROWS[:100], SMALL, seed=0)
    if start == "scvi":
        fit(scvi, cells, ROWS[:100], ROWS[100:], plan, seed=0)
    else:
        plan = replace(plan, n_steps=240, max_epochs=60, patience=60)
    model = SCANVI(scvi, 2, Scanvi())
    fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=0)
    predicted = predict(model.probabilities, cells).argmax(1)
    truth = np.asarray(cells.counts.to_csr()[:, :10].sum(1)).ravel() > 40
    hidden = cells.label < 0
    assert (predicted[hidden] == truth[hidden]).mean() > 0.9
