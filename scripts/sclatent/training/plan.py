"""How a model is trained: the settings, and what follows from them at each step."""

import contextlib
import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits

from sclatent.kernels.adam import Adam
from sclatent.kernels.operators import Kernels, active
from sclatent.kernels.team import Team
from sclatent.training.order import slices


@dataclass(frozen=True)
class Training:
    """Settings of the loop, as in the config's section `training`."""

    threads: int = 1
    precision: str = "auto"
    minibatch: int = 128
    n_steps: int = 2500
    cells_seen: float = 0
    max_epochs: int = 50
    min_epochs: int = 10
    warmup: float = 0.25
    warmup_epochs: int = 0
    optimiser: str = "adam"
    learning_rate: float = 8e-3
    schedule: str = "cosine"
    plateau: int = 10
    plateau_margin: float = 1e-4
    epsilon: float = 0.01
    weight_decay: float = 1e-6
    clip_norm: float = 1000.0
    clip_value: float = 0.0
    keep: str = "best"
    patience: int = 5
    smoothing: float = 0.5
    cooldown: float = 0.15
    device: str = "cpu"
    checkpoint_minutes: float = 5.0
    memory_gb: float = 4.0
    pool_cells: int = 65_536

    def n_epochs(self, n_train: int, n_validation: int = 0) -> int:
        """Return the number of epochs.

        They take about `n_steps` steps or, where `cells_seen` is given, show that many cells,
        validation cells counted; within the two bounds.

        Parameters
        ----------
        n_train, n_validation
            Numbers of cells.
        """
        if self.cells_seen:
            wanted = round(self.cells_seen / (n_train + n_validation))
        else:
            wanted = math.ceil(self.n_steps / len(slices(n_train, self.minibatch)))
        return min(max(wanted, self.min_epochs), self.max_epochs)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Let models compute as the settings say: by the kernels of a CPU, or in plain PyTorch."""
        if self.precision == "plain" or self.device != "cpu":
            yield
            return
        n_threads, collecting = torch.get_num_threads(), gc.isenabled()
        torch.set_num_threads(1)  # the team shares the work out, in larger parts
        gc.collect()
        gc.freeze()  # a step leaves no cycles, and looking for them takes a tenth of its time
        gc.disable()
        try:
            limits = threadpool_limits(1, "blas")
            with limits, Team(self.threads) as team, Kernels(self.precision, team):
                yield
        finally:
            torch.set_num_threads(n_threads)
            gc.unfreeze()
            if collecting:
                gc.enable()

    def optimise(self, model) -> torch.optim.Optimizer | Adam:
        """Return an optimiser of a model's weights, those of its opponent in a group of their own.

        The opponent's learning rate is 1e-3 throughout.
        """
        opponent = getattr(model, "opponent", None)
        others = set() if opponent is None else set(opponent.parameters())
        groups = [{"params": [weight for weight in model.parameters() if weight not in others]}]
        if opponent is not None:
            groups.append({"params": list(opponent.parameters()), "lr": 1e-3})
        common = {"lr": self.learning_rate, "eps": self.epsilon, "weight_decay": self.weight_decay}
        if self.optimiser == "rmsprop":
            return torch.optim.RMSprop(groups, alpha=0.9, **common)
        if kernels := active():
            return Adam(groups, kernels.team, **common)
        return torch.optim.Adam(groups, fused=True, **common)


class Schedule:
    """Learning rate and KL weight at each step."""

    def __init__(self, n_epochs: int, steps_per_epoch: int, plan: Training):
        self.planned = self.n_steps = n_epochs * steps_per_epoch
        self.steps_per_epoch, self.plan, self.step = steps_per_epoch, plan, 0
        self.factor, self.lowest, self.waited = 1.0, math.inf, 0
        self.last_kl_weight, self.last_learning_rate = 0.0, 0.0
        self.reduction = 1.0  # of the learning rate, after a loss that was not finite
        self.turn: int | None = None  # the step from which on the training winds down

    def state(self) -> dict:
        """Return all that changes from step to step; `vars(schedule).update` puts it back."""
        return {name: value for name, value in vars(self).items() if name != "plan"}

    def advance(self) -> None:
        """Count one step, and remember what it was taken with."""
        self.last_kl_weight, self.last_learning_rate = self.kl_weight, self.learning_rate
        self.step += 1

    @property
    def done(self) -> float:
        """The share of the steps that are taken."""
        return self.step / self.n_steps

    @property
    def place(self) -> str:
        """Epoch and step that are under way, in words; the last ones when all are taken."""
        step = min(self.step, self.n_steps - 1)
        return f"epoch {step // self.steps_per_epoch + 1}, step {step + 1} of {self.n_steps}"

    @property
    def kl_weight(self) -> float:
        """The weight of the KL term: it grows linearly to 1 and stays there.

        With a share of the planned steps as warm-up it is 1 by the end of the last epoch, however
        few there are. With `warmup_epochs`, as in scvi-tools, it need not be.
        """
        if self.plan.warmup_epochs:
            return min(1.0, (self.step // self.steps_per_epoch) / self.plan.warmup_epochs)
        warmup = self.plan.warmup * self.planned
        return min(1.0, (self.step + 1) / warmup) if warmup else 1.0

    @property
    def learning_rate(self) -> float:
        """The step size.

        A cosine rises linearly to its largest value in a twentieth of the planned steps before it
        falls. On a plateau the step size falls to a tenth. Whatever it is, it falls to 0 along a
        further cosine once the training winds down.
        """
        largest = self.plan.learning_rate * self.reduction
        if self.turn is not None:
            largest *= cosine((self.step - self.turn) / max(1, self.n_steps - self.turn))
        if self.plan.schedule != "cosine":
            return largest * self.factor
        rise = max(1, self.planned // 20)
        if self.step < rise:
            return largest * (self.step + 1) / rise
        return largest * cosine((self.step - rise) / max(1, self.planned - rise))

    def wind_down(self) -> None:
        """Let the training end after the share of the planned steps that `cooldown` is."""
        if self.turn is None:
            n_epochs = round(self.plan.cooldown * self.planned / self.steps_per_epoch)
            self.turn = self.step
            self.n_steps = min(self.n_steps, self.step + n_epochs * self.steps_per_epoch)

    def consider(self, loss: float) -> None:
        """Look at the validation loss of an epoch; on a plateau, take smaller steps."""
        if loss < self.lowest - self.plan.plateau_margin:
            self.lowest, self.waited = loss, 0
            return
        self.waited += 1
        if self.plan.schedule == "plateau" and self.waited >= self.plan.plateau:
            self.factor, self.waited = self.factor * 0.1, 0


def cosine(share: float) -> float:
    """Return what falls from 1 to 0 along half a cosine, at a share of the way."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
