import copy

import pytest
import torch
from torch import nn

from sclatent.kernels.adam import LANES, Adam, cut
from sclatent.kernels.team import Team

COMMON = {"lr": 0.01, "eps": 0.01, "weight_decay": 1e-3}


def models():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 50), nn.Linear(50, 3), nn.Linear(2, 2))
    return model, copy.deepcopy(model)


def learn(model, optimiser, n_steps=5):
    for step in range(n_steps):
        x = torch.linspace(-1, 1, 28).view(4, 7) * (step + 1)
        optimiser.zero_grad()
        model[1](model[0](x)).square().sum().backward()  # the last layer has no part
        optimiser.step()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_it_is_pytorchs_adam_bit_for_bit(size):
    ours, theirs = models()
    with Team(size) as team:
        groups = [{"params": ours[0].parameters()}, {"params": ours[1:].parameters(), "lr": 0.1}]
        optimiser = Adam(groups, team, **COMMON)
        learn(ours, optimiser)
        groups = [{"params": theirs[0].parameters()}, {"params": theirs[1:].parameters()}]
        groups[1]["lr"] = 0.1
        learn(theirs, torch.optim.Adam(groups, fused=True, **COMMON))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_goes_on_from_its_state_as_if_it_had_not_stopped():
    ours, other = models()
    with Team(2) as team:
        first = Adam([{"params": ours.parameters()}], team, **COMMON)
        learn(ours, first, 3)
        second = Adam([{"params": other.parameters()}], team, **COMMON)
        other.load_state_dict(ours.state_dict())
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for model, optimiser in ((ours, first), (other, second)):
            learn(model, optimiser, 2)
    for a, b in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_norms_are_those_of_the_gradients_group_by_group():
    model, _ = models()
    with Team(2) as team:
        groups = [{"params": model[0].parameters()}, {"params": model[1].parameters()}]
        optimiser = Adam(groups, team, **COMMON)
        model[1](model[0](torch.ones(4, 7))).square().sum().backward()
        expected = [
            torch.cat([w.grad.view(-1) for w in layer.parameters()]).norm().item()
            for layer in model[:2]
        ]
        assert optimiser.norms() == pytest.approx(expected, rel=1e-5)


def test_every_value_of_every_weight_is_in_one_piece():
    weights = [torch.zeros(3, 4), torch.zeros(1), torch.zeros(500)]
    pieces = cut(weights, 4)
    for weight in weights:
        seen = [
            i for part in pieces for w, s in part if w is weight for i in range(len(w.view(-1)))[s]
        ]
        assert sorted(seen) == list(range(weight.numel()))
    sizes = [sum(s.stop - s.start for _, s in part) for part in pieces]
    assert max(sizes) - min(sizes) <= 2 * LANES
