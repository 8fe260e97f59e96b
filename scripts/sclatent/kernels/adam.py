"""Adam whose update is shared between threads.

The update is that of PyTorch's fused Adam (Kingma & Ba 2015, arXiv:1412.6980), on pieces of the
weights. Each weight is updated by itself, so the pieces make no difference to the result.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sclatent.kernels.team import Team

LANES = 64
"""Values that weights are cut in multiples of: more than any CPU computes at once."""


class Adam:
    """An optimiser with the interface of those of PyTorch.

    Parameters
    ----------
    groups
        Dicts with `params`, and what differs from the common settings.
    team
        Threads that share each step.
    lr, eps, weight_decay, betas
        Settings; the weight decay is added to the gradient.
    """

    def __init__(self, groups, team: Team, lr: float, eps: float, weight_decay: float):
        common = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
        self.param_groups = [{**common, **group} for group in groups]
        for group in self.param_groups:
            group["params"] = list(group["params"])
        self.team, weights = team, self.parameters()
        self.steps = torch.zeros(len(weights))
        self.n_steps = dict(zip(weights, self.steps.unbind(), strict=True))
        self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in weights}
        self.pieces = [
            [[self.piece(*of) for of in pieces] for pieces in cut(group["params"], team.size)]
            for group in self.param_groups
        ]

    def piece(self, weight: Tensor, part: slice) -> Piece:
        """Return a piece of a weight and of what belongs to it."""
        whole = part == slice(0, weight.numel())
        of = (weight.detach(), *self.moments[weight])
        of = of if whole else [tensor.view(-1)[part] for tensor in of]
        return Piece(weight, None if whole else part, *of, self.n_steps[weight])

    def parameters(self) -> list[Tensor]:
        """Return all weights, group by group."""
        return [weight for group in self.param_groups for weight in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for weight in self.parameters():
            weight.grad = None

    def norms(self) -> list[float]:
        """Return the norm of the gradients of each group."""
        return [
            math.sqrt(sum(squares(w.grad) for w in group["params"] if w.grad is not None))
            for group in self.param_groups
        ]

    def step(self) -> None:
        """Move the weights that have a gradient."""
        moving = [steps for weight, steps in self.n_steps.items() if weight.grad is not None]
        if len(moving) == len(self.steps):
            self.steps.add_(1)  # one operation for all
        else:
            torch._foreach_add_(moving, 1)

        def update(number: int) -> None:
            for group, pieces in zip(self.param_groups, self.pieces, strict=True):
                move(group, pieces[number])

        self.team.each(update)

    def state_dict(self) -> dict:
        """Return steps and moments of each weight, by its place, and the settings of the groups."""
        state = {
            place: {"step": self.n_steps[p], "exp_avg": first, "exp_avg_sq": second}
            for place, (p, (first, second)) in enumerate(self.moments.items())
        }
        settings = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        return {"state": state, "param_groups": settings}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` returned."""
        for place, weight in enumerate(self.parameters()):
            of = state["state"][place]
            self.n_steps[weight].copy_(of["step"])
            self.moments[weight][0].copy_(of["exp_avg"])
            self.moments[weight][1].copy_(of["exp_avg_sq"])
        for group, settings in zip(self.param_groups, state["param_groups"], strict=True):
            group.update(settings)


class Piece(NamedTuple):
    """A part of a weight's values, with their moments and the steps taken."""

    weight: Tensor
    part: slice | None  # None for the whole weight
    values: Tensor
    first: Tensor
    second: Tensor
    n_steps: Tensor

    def gradient(self) -> Tensor:
        """Return the part of the gradient."""
        whole = self.weight.grad
        return whole if self.part is None else whole.view(-1)[self.part]


def squares(gradient: Tensor) -> float:
    """Return the sum of the squares of a gradient."""
    flat = gradient.numpy().ravel()
    return float(np.dot(flat, flat))


@torch.no_grad()
def move(group: dict, pieces: list[Piece]) -> None:
    """Move pieces of a group's weights along their gradients, where there are any."""
    pieces = [piece for piece in pieces if piece.weight.grad is not None]
    if not pieces:
        return
    _, _, values, first, second, n_steps = map(list, zip(*pieces, strict=True))
    torch._fused_adam_(
        *(values, [piece.gradient() for piece in pieces], first, second),
        *([], n_steps),
        lr=group["lr"],
        beta1=0.9,
        beta2=0.999,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


def cut(weights: list[Tensor], n: int) -> list[list[tuple[Tensor, slice]]]:
    """Share weights out: `n` lists of (weight, slice of its values), about as many values in each.

    Pieces begin at multiples of `LANES`, so that a value is computed by the same instructions
    wherever its weight is cut.
    """
    total = sum(weight.numel() for weight in weights)
    bounds = [total * part // n for part in range(n + 1)]
    pieces = [[] for _ in range(n)]
    start = 0
    for weight in weights:
        for number, (first, last) in enumerate(pairwise(bounds)):
            a = min(max(round_up(first - start), 0), weight.numel())
            b = min(max(round_up(last - start), 0), weight.numel())
            if a < b:
                pieces[number].append((weight, slice(a, b)))
        start += weight.numel()
    return pieces


def round_up(n: int) -> int:
    """Return the next multiple of `LANES`."""
    return -(-n // LANES) * LANES
