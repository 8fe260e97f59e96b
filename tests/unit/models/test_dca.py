from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.sparse import csr_matrix
from torch import nn

from sclatent.data.compact import compact
from sclatent.data.compressed import BLOCK
from sclatent.data.stored import StoredCounts, write_counts
from sclatent.models.dca import DCA, Dca, build_dca
from sclatent.models.heads import OUTPUTS
from sclatent.training.loader import Cells
from sclatent.training.loop import Loss, evaluate, fit, predict
from sclatent.training.plan import Training

LIKELIHOODS = list(OUTPUTS)
WITH_THETA = [name for name in LIKELIHOODS if "nb" in name]
WITH_PI = [name for name in LIKELIHOODS if name.startswith("zinb")]
ROWS = np.arange(120)


def small(likelihood: str = "nb-conddisp", **settings) -> Dca:
    return Dca(likelihood, n_latent=4, n_hidden=16, **settings)


def denoised(model):
    return lambda minibatch: next(model.draws(minibatch, 1)).counts.mean


def numpy(tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def biases(model) -> list:
    """Return the biases of the heads, and theta per gene, which stands in for one."""
    return [weight for name, weight in model.output.named_parameters() if "weight" not in name]


def dense_log_prob(x, counts: torch.Tensor) -> torch.Tensor:
    """Return log p(counts) of each cell by the formula, gene by gene."""
    if not hasattr(x, "log_rate"):
        return torch.distributions.Normal(x.mean, 1).log_prob(counts).sum(1)
    if not hasattr(x, "log_theta"):
        return torch.distributions.Poisson(x.log_rate.exp()).log_prob(counts).sum(1)
    logits = x.log_rate - x.log_theta
    theta = x.log_theta.exp().expand_as(logits)
    log_p = torch.distributions.NegativeBinomial(theta, logits=logits).log_prob(counts)
    if hasattr(x, "dropout_logit"):
        pi = torch.sigmoid(x.dropout_logit)
        log_p = torch.log((counts == 0) * pi + (1 - pi) * log_p.exp())
    return log_p.sum(1)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_loss_equals_scipys(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood), seed=0).eval()
    minibatch, output = cells.take(ROWS[:30]), model.output
    hidden = model.decoder(model.latent(minibatch))
    x, size = numpy(minibatch.counts), numpy(minibatch.library_size / model.median_size)
    mean = numpy(output.mean(hidden[0]))
    if likelihood == "normal":
        log_p = stats.norm.logpdf(x, mean * size)
    elif likelihood == "poisson":
        log_p = stats.poisson.logpmf(x, np.exp(mean) * size)
    else:
        if likelihood in ("nb", "zinb"):
            theta = numpy(output.theta.log_theta.exp())
        else:
            linear = hidden[1] @ output.theta.weight.T + output.theta.bias
            theta = numpy(torch.nn.functional.softplus(linear))
        log_p = stats.nbinom.logpmf(x, theta, theta / (theta + np.exp(mean) * size))
    if likelihood == "zinb-elempi":
        pi = numpy(torch.sigmoid(output.mean(hidden[0]) * output.pi.weight + output.pi.bias))
    elif likelihood.startswith("zinb"):
        pi = numpy(torch.sigmoid(hidden[2] @ output.pi.weight.T + output.pi.bias))
    if likelihood.startswith("zinb"):
        log_p = np.log((x == 0) * pi + (1 - pi) * np.exp(log_p))
    loss = model.loss(minibatch, kl_weight=0.3)
    assert loss.reconstruction.item() == pytest.approx(-log_p.sum(1).mean(), rel=1e-5)
    assert loss.total == loss.reconstruction
    assert loss.kl == 0


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_gradients_are_those_of_the_formula_gene_by_gene(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood), seed=0)
    minibatch = cells.take(ROWS[:30])
    weights = [weight for weight in model.output.parameters() if weight.requires_grad]
    x = next(model.draws(minibatch, 1)).counts
    x = type(x)(*(values.double() for values in x))  # or the sums differ by rounding
    values = (x.log_prob(minibatch.entries).sum(), dense_log_prob(x, minibatch.counts).sum())
    found, expected = (torch.autograd.grad(value, weights, retain_graph=True) for value in values)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("extreme", [-1e5, 1e5])
def test_gradients_stay_finite_where_the_heads_are_clipped(cells, likelihood, extreme):
    model = build_dca(cells, ROWS, small(likelihood), seed=0)
    for bias in biases(model):
        nn.init.constant_(bias, extreme)
    loss = model.loss(cells.take(ROWS[:30]), 1.0).total
    loss.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if name != "normal"])
@pytest.mark.parametrize(("extreme", "mean", "theta"), [(-1e5, 1e-5, 1e-4), (1e5, 1e6, 1e4)])
def test_mean_and_theta_are_clipped_where_the_reference_clips(
    cells, likelihood, extreme, mean, theta
):
    model = build_dca(cells, ROWS, small(likelihood), seed=0)
    for bias in biases(model):
        nn.init.constant_(bias, extreme)
    minibatch = cells.take(ROWS[:30])
    x = next(model.draws(minibatch, 1)).counts
    unscaled = x.mean / model.size_factor(minibatch)
    torch.testing.assert_close(unscaled, torch.full_like(unscaled, mean), rtol=1e-4, atol=0)
    if likelihood in WITH_THETA:
        of_genes = likelihood in ("nb", "zinb") and extreme < 0
        expected = torch.full_like(x.log_theta, 1e-3 if of_genes else theta)
        torch.testing.assert_close(x.log_theta.exp(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("likelihood", WITH_THETA)
def test_theta_and_pi_have_the_shape_that_the_likelihood_says(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood), seed=0)
    x = next(model.draws(cells.take(ROWS[:30]), 1)).counts
    kind = likelihood.partition("-")[2]
    assert x.log_rate.shape == (30, 40)
    assert x.log_theta.shape == {"": (40,), "shared": (30, 1)}.get(kind, (30, 40))
    if likelihood in WITH_PI:
        assert x.dropout_logit.shape == {"shared": (30, 1)}.get(kind, (30, 40))


def test_pi_of_a_gene_is_a_function_of_its_own_mean_only(cells):
    model = build_dca(cells, ROWS, small("zinb-elempi"), seed=0).eval()
    x = next(model.draws(cells.take(ROWS[:30]), 1)).counts
    log_mean = x.log_rate - model.size_factor(cells.take(ROWS[:30])).log()
    logit = log_mean * model.output.pi.weight + model.output.pi.bias
    torch.testing.assert_close(x.dropout_logit, logit, rtol=1e-4, atol=1e-4)
    assert model.output.pi.weight.abs().max() <= (3 / 40) ** 0.5
    assert (model.output.pi.weight < 0).any()


@pytest.mark.parametrize(("likelihood", "n_branches"), [("nb-fork", 2), ("zinb-fork", 3)])
def test_the_branches_of_a_fork_share_nothing(cells, likelihood, n_branches):
    model = build_dca(cells, ROWS, small(likelihood), seed=0)
    heads = next(model.draws(cells.take(ROWS[:30]), 1)).counts
    assert len(model.decoder.branches) == len(heads) == n_branches
    for number, values in enumerate(heads):
        for other, branch in enumerate(model.decoder.branches):
            gradient = torch.autograd.grad(
                *(values.sum(), branch[0].weight), retain_graph=True, allow_unused=True
            )[0]
            assert (gradient is not None) == (number == other)


@pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if "fork" not in name])
def test_without_a_fork_all_heads_see_one_hidden_state(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood), seed=0).eval()
    hidden = model.decoder(model.latent(cells.take(ROWS[:30])))
    assert len(model.decoder.branches) == 1
    assert len(hidden) == model.output.n_heads
    assert all(state is hidden[0] for state in hidden)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_ridge_on_pi_is_in_the_total_only(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood, ridge=0.5), seed=0).eval()
    minibatch = cells.take(ROWS[:30])
    loss, expected = model.loss(minibatch, 1.0), torch.zeros(())
    if likelihood in WITH_PI:
        pi = torch.sigmoid(next(model.draws(minibatch, 1)).counts.dropout_logit)
        expected = 0.5 * pi.square().mean() * 40  # the reference has a mean over genes
    torch.testing.assert_close(loss.total - loss.reconstruction, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("likelihood", ["nb", "zinb-fork", "zinb-shared", "zinb-elempi"])
def test_weight_penalties_are_in_the_total_only_and_leave_biases_alone(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood, l1=0.003, l2=0.02), seed=0).eval()
    loss = model.loss(cells.take(ROWS[:30]), 1.0)
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
    if likelihood == "zinb-elempi":
        weights.append(model.output.pi.weight)
    weights = np.concatenate([numpy(weight).ravel() for weight in weights])
    expected = 40 * (0.003 * np.abs(weights).sum() + 0.02 * np.square(weights).sum())
    assert (loss.total - loss.reconstruction).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("option", ["dropout", "input_dropout"])
def test_dropout_acts_in_training_only(cells, option):
    model = build_dca(cells, ROWS, small(**{option: 0.3}), seed=0)
    plain = build_dca(cells, ROWS, small(), seed=0).eval()
    minibatch = cells.take(ROWS[:30])
    first, second = (model.loss(minibatch, 1.0).total for _ in range(2))
    assert first != second
    model.eval()
    plain.load_state_dict(model.state_dict())
    assert model.loss(minibatch, 1.0).total == plain.loss(minibatch, 1.0).total


def test_without_batch_normalisation_a_cell_does_not_see_the_others(cells):
    model = build_dca(cells, ROWS, small(batch_norm=False), seed=0)
    assert not [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d)]
    both, alone = (denoised(model)(cells.take(ROWS[:n])) for n in (30, 2))
    torch.testing.assert_close(both[:2], alone)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_random_start_is_that_of_the_reference(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood, start="random"), seed=0)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert all((bias == 0).all() for bias in biases(model))  # theta of a gene starts at 1
    for layer in layers:
        limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.5 * limit < layer.weight.abs().max() <= limit
        assert (layer.bias == 0).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_start_from_the_data_is_nearer_to_it(cells, likelihood):
    losses = [
        evaluate(build_dca(cells, ROWS, small(likelihood, start=start), 0), cells, ROWS, 64, 0)
        for start in ("data", "random")
    ]
    assert losses[0].total < losses[1].total


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_denoised_counts_are_the_mean_at_the_asked_library_size(cells, likelihood):
    model = build_dca(cells, ROWS, small(likelihood), seed=0).eval()
    minibatch = cells.take(ROWS[:30])
    z, median = model.latent(minibatch), model.median_size.log().expand(30, 1)
    own = next(model.draws(minibatch, 1)).counts.mean
    normalised = model.decode(minibatch, z, median).mean
    head = model.output.mean(model.decoder(z)[0])
    torch.testing.assert_close(normalised, head if likelihood == "normal" else head.exp())
    size = minibatch.library_size / model.median_size
    torch.testing.assert_close(own, normalised * size, rtol=1e-5, atol=1e-6)


def test_the_input_is_standardised_with_the_training_cells(cells):
    train = ROWS[:100]
    model = build_dca(cells, train, small(), seed=0)
    size = cells.library_size[train] / np.median(cells.library_size[train])
    logs = np.log1p(cells.counts[train].toarray() / size[:, None])
    assert model.median_size.item() == np.median(cells.library_size[train])
    np.testing.assert_allclose(model.input_mean, logs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.input_sd, logs.std(0), rtol=1e-4)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_constant_genes_give_no_nan(cells, likelihood):
    counts = cells.counts.to_csr().toarray()
    counts[:, 0] = 0
    counts[:100, 1] = 0  # found in validation cells only
    odd = Cells(csr_matrix(counts), cells.batch, cells.label, cells.batches)
    model = build_dca(odd, ROWS[:100], small(likelihood), seed=0)
    fit(model, odd, ROWS[:100], ROWS[100:], Training(minibatch=32, n_steps=8), seed=0)
    assert np.isfinite(predict(model.latent, odd)).all()
    assert np.isfinite(predict(denoised(model), odd)).all()


def test_genes_that_are_constant_after_normalisation_give_no_nan():
    counts = csr_matrix(np.tile(np.arange(1, 11, dtype=np.int32), (20, 1)))
    cells = Cells(counts, np.zeros(20, int), np.full(20, -1), ["a"])
    model = build_dca(cells, np.arange(20), small(), seed=0).eval()
    assert (model.input_sd == 1).all()
    assert np.isfinite(predict(model.latent, cells)).all()


def test_the_latent_has_a_row_per_cell_and_sees_no_batch(cells):
    model = build_dca(cells, ROWS, small(), seed=0).eval()
    assert predict(model.latent, cells).shape == (120, 4)
    minibatch = cells.take(ROWS[:10])
    other = minibatch.replace(batch=minibatch.batch.flip(1))
    assert torch.equal(model.latent(minibatch), model.latent(other))
    assert model.loss(minibatch, 1.0).total == model.loss(other, 1.0).total


def test_batch_normalisation_learns_a_centre_and_no_scale(cells):
    model = build_dca(cells, ROWS, small(), seed=0)
    fit(model, cells, ROWS[:100], ROWS[100:], Training(minibatch=32, n_steps=8), seed=0)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d)]
    assert len(norms) == 3
    assert all((norm.weight == 1).all() and (norm.bias != 0).any() for norm in norms)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_training_lowers_the_loss_and_denoises(cells, likelihood):
    kind = np.asarray(cells.counts.to_csr()[:, :10].sum(1)).ravel() > 40
    truth = np.ones((120, 40))
    truth[kind, :10] *= 8
    truth[cells.batch == 1, 20:30] *= 4
    plan = Training(minibatch=32, n_steps=200)
    model = build_dca(cells, ROWS[:100], small(likelihood), seed=0)
    before = evaluate(model, cells, ROWS[100:], 32, 0).total
    curve = fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=0)
    assert min(row["validation_loss"] for row in curve) < before - 2
    smooth = predict(denoised(model), cells)
    size = cells.library_size[:, None] / truth.sum(1, keepdims=True)
    raw_error = np.square(cells.counts.to_csr().toarray() - truth * size).mean()
    assert np.square(smooth - truth * size).mean() < 0.5 * raw_error


@pytest.mark.parametrize("likelihood", ["nb-conddisp", "zinb-fork"])
def test_the_same_seed_gives_the_same_bits(cells, likelihood):
    runs = []
    for _ in range(2):
        settings = small(likelihood, dropout=0.1, start="random")
        model = build_dca(cells, ROWS[:100], settings, seed=3)
        plan = Training(minibatch=32, n_steps=12)
        fit(model, cells, ROWS[:100], ROWS[100:], plan, seed=3)
        runs.append(predict(denoised(model), cells))
    assert np.array_equal(*runs)


def test_the_defaults_have_the_dimensions_of_the_reference_around_the_bottleneck():
    model = DCA(100, Dca())
    assert model.encoder[1].out_features == model.output.mean.in_features == 64


class MeanOverGenes(nn.Module):
    """A DCA whose loss is the reference's: a mean over genes."""

    def __init__(self, model: DCA):
        super().__init__()
        self.model = model

    def loss(self, minibatch, kl_weight, done=1.0):
        loss = self.model.loss(minibatch, kl_weight)
        return Loss(*(term / self.model.n_genes for term in loss[:3]))


def test_epsilon_and_clip_grow_with_the_genes_as_the_loss_does(cells):
    plan = Training(minibatch=32, n_steps=40, optimiser="rmsprop", learning_rate=1e-3)
    plan = replace(
        plan,
        precision="plain",
        schedule="plateau",
        plateau=1,
        warmup=0,
        clip_norm=0,
        weight_decay=0,
    )
    # A tight clip and large epsilon and margin, so that each has a part.
    there = replace(plan, epsilon=1e-3, clip_value=1e-3, plateau_margin=0.01)
    here = replace(plan, epsilon=0.04, clip_value=0.04, plateau_margin=0.4)
    models = [build_dca(cells, ROWS[:100], small(start="random"), seed=0) for _ in range(2)]
    curves = [
        fit(MeanOverGenes(models[0]), cells, ROWS[:100], ROWS[100:], there, seed=0),
        fit(models[1], cells, ROWS[:100], ROWS[100:], here, seed=0),
    ]
    rates = [[row["learning_rate"] for row in curve] for curve in curves]
    assert rates[0] == rates[1]
    assert min(rates[0]) < 1e-3
    weights = [model.state_dict().values() for model in models]
    for theirs, ours in zip(*weights, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


def test_a_start_from_disk_block_by_block_is_that_from_memory(tmp_path):
    random = np.random.default_rng(0)
    rate = random.gamma(1.0, 1.0, 20)
    counts = compact(csr_matrix(random.poisson(rate, (2 * BLOCK + 5, 20)).astype(np.int32)))
    write_counts(tmp_path, [counts.block], 20)
    nothing = np.zeros(counts.shape[0], int)
    train = np.flatnonzero(random.random(len(nothing)) < 0.9)
    models = [
        build_dca(Cells(held, nothing, nothing, ["a"]), train, small(), seed=0)
        for held in (counts, StoredCounts(tmp_path))
    ]
    weights = [model.state_dict().values() for model in models]
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    size = counts.library_size[train] / np.median(counts.library_size[train])
    logs = np.log1p(counts[train].toarray() / size[:, None])
    np.testing.assert_allclose(models[0].input_mean, logs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(models[0].input_sd, logs.std(0), rtol=1e-5)
