from dataclasses import replace

import numpy as np
import pytest
import torch

from sclatent.models.adversary import Discriminator
from sclatent.models.scvi import SCVI, Scvi, build_scvi
from sclatent.training.loader import Sizes
from sclatent.training.loop import fit
from sclatent.training.plan import Training

ROWS = np.arange(120)
GAME = Scvi(n_latent=4, n_hidden=16, dropout=0.0, adversary=2.0, adversary_warmup=0.25)


@pytest.fixture
def game():
    torch.manual_seed(0)
    z = torch.randn(12, 4, requires_grad=True)
    return Discriminator(4, 3), z, torch.eye(3)[torch.arange(12) % 3]


def test_fooling_moves_the_encoder_and_not_the_discriminator(game):
    player, z, batch = game
    player.fool(z, batch).backward()
    assert z.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in player.parameters())


def test_recognising_moves_the_discriminator_and_not_the_encoder(game):
    player, z, batch = game
    player.recognise(z, batch).backward()
    assert z.grad is None
    assert all(weight.grad is not None for weight in player.parameters())


def test_each_player_gets_the_gradients_of_its_own_loss_when_both_are_summed(game):
    player, z, batch = game
    player.eval()
    (alone,) = torch.autograd.grad(player.fool(z, batch), z)
    weights = list(player.parameters())
    own = torch.autograd.grad(player.recognise(z, batch), weights)
    (player.fool(z, batch) + player.recognise(z, batch)).backward()
    torch.testing.assert_close(z.grad, alone)
    for weight, gradient in zip(weights, own, strict=True):
        torch.testing.assert_close(weight.grad, gradient)


def test_the_losses_are_cross_entropies_with_the_batch_and_with_the_others(game):
    player, z, batch = game
    log_p = torch.log_softmax(player.eval()(z), 1)
    true, others = (log_p * batch).sum(1), (log_p * (1 - batch)).sum(1) / 2
    torch.testing.assert_close(player.recognise(z, batch), -true.mean())
    torch.testing.assert_close(player.fool(z, batch), -others.mean())


def playing(settings):
    """A model in training whose layers act as in use, so that the noise is known."""
    model = SCVI(Sizes(40, 2), settings).eval()
    model.training = True
    return model


@pytest.mark.parametrize(
    ("done", "weight"), [(0.0, 0.0), (0.125, 1.0), (0.25, 2.0), (0.6, 2.0), (1.0, 2.0)]
)
def test_the_encoders_weight_rises_to_its_value_and_stays_there(cells, done, weight):
    model = playing(GAME)
    minibatch = cells.take(ROWS[:20])
    torch.manual_seed(0)
    loss = model.loss(minibatch, 0.5, done)
    torch.manual_seed(0)
    z = torch.randn(20, 4) * model.posterior(minibatch)[1].sqrt() + model.latent(minibatch)
    game = weight * model.opponent.fool(z, minibatch.batch)
    torch.testing.assert_close(loss.total, loss.reconstruction + 0.5 * loss.kl + game)
    torch.testing.assert_close(loss.opponent, model.opponent.recognise(z, minibatch.batch))


def test_without_a_rise_the_weight_is_whole_from_the_start(cells):
    model = playing(replace(GAME, adversary_warmup=0.0))
    fooled, _ = model.play(cells.take(ROWS[:20]), torch.zeros(20, 4), 0.0)
    assert fooled > 0


def test_the_validation_loss_is_the_elbo_without_the_game(cells):
    model = SCVI(Sizes(40, 2), GAME).eval()
    loss = model.loss(cells.take(ROWS[:20]), 0.5, 1.0)
    torch.testing.assert_close(loss.total, loss.reconstruction + 0.5 * loss.kl)
    assert loss.opponent is None


def test_the_discriminator_keeps_its_own_learning_rate(cells):
    model = SCVI(Sizes(40, 2), GAME)
    optimiser = Training(learning_rate=0.02).optimise(model)
    own, opponents = optimiser.param_groups
    assert (own["lr"], opponents["lr"]) == (0.02, 1e-3)
    held = [set(group["params"]) for group in (own, opponents)]
    assert held[1] == set(model.opponent.parameters())
    assert held[0] | held[1] == set(model.parameters())
    assert not held[0] & held[1]


def test_a_single_batch_has_no_adversary(cells):
    one = replace(cells, batch=np.zeros(120, int), batches=["a"])
    model = build_scvi(one, ROWS, GAME, seed=0)
    assert not hasattr(model, "opponent")
    assert len(Training().optimise(model).param_groups) == 1
    loss = model.eval().loss(one.take(ROWS[:20]), 1.0)
    torch.testing.assert_close(loss.total, loss.reconstruction + loss.kl)


def test_both_players_learn_in_training(cells):
    model = build_scvi(cells, ROWS, GAME, seed=0)
    before = [weight.detach().clone() for weight in model.opponent.parameters()]
    fit(model, cells, ROWS[:100], ROWS[100:], Training(minibatch=32, n_steps=40), seed=0)
    for old, weight in zip(before, model.opponent.parameters(), strict=True):
        assert not torch.equal(old, weight)
