"""Threads that share the work of a training step.

They take parts that are large beside the cost of handing them over, and meet a few times a step.
A thread that has to wait sleeps: beside another busy process it loses its fair share of a core, not
the many-fold of what a barrier after each operation costs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from queue import SimpleQueue

import torch


class Team:
    """A number of threads, the calling one among them.

    The parts that a piece of work is cut into depend on `size` alone, so the result does too.
    Used as a context, it ends its threads at the end.
    """

    def __init__(self, size: int = 1):
        self.size, self.pending = size, 0
        self.tasks = [SimpleQueue() for _ in range(size - 1)]
        self.done: SimpleQueue = SimpleQueue()
        self.threads = [
            threading.Thread(target=self.work, args=(tasks,), daemon=True) for tasks in self.tasks
        ]
        for thread in self.threads:
            thread.start()

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_) -> None:
        for tasks, thread in zip(self.tasks, self.threads, strict=True):
            tasks.put(None)
            thread.join()
        self.size, self.pending, self.tasks, self.threads = 1, 0, [], []

    def work(self, tasks: SimpleQueue) -> None:
        """Do what comes until None does."""
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        while (task := tasks.get()) is not None:
            try:
                task()
                self.done.put(None)
            except BaseException as error:
                self.done.put(error)

    def begin(self, task: Callable[[], None]) -> None:
        """Give a task to another thread, which does it before what comes later; do not wait."""
        if self.size == 1:
            task()
        else:
            self.tasks[-1].put(task)
            self.pending += 1

    def finish(self) -> None:
        """Wait for all that other threads do."""
        errors = [self.done.get() for _ in range(self.pending)]
        self.pending = 0
        for error in filter(None, errors):
            raise error

    def run(self, tasks: list[Callable[[], None]]) -> None:
        """Do tasks at the same time, at most `size` of them, and return when all are done."""
        for queue, task in zip(self.tasks, tasks[1:], strict=False):
            queue.put(task)
            self.pending += 1
        try:
            tasks[0]()
        finally:
            self.finish()

    def each(self, function: Callable[[int], None]) -> None:
        """Call a function with the number of each thread, in that thread."""
        self.run([lambda i=i: function(i) for i in range(self.size)])

    def deal(self, function: Callable[[slice], None], n: int, step: int = 1) -> None:
        """Call a function with the slice of each part of `n` things.

        A thread that is done with one part takes the next, so that one which is busy otherwise
        takes fewer. There are twice as many parts as threads, or one for a single thread; they
        begin at multiples of `step`.
        """
        n_parts = 2 * self.size if self.size > 1 else 1
        parts = iter(cut(n, step, n_parts))

        def take() -> None:
            for part in parts:
                function(part)

        self.run([take] * self.size)

    def share(self, function: Callable[[int, slice], None], n: int, step: int = 1) -> None:
        """Call a function with the number and the slice of each part of `n` things.

        Parts are as equal as can be; they begin at multiples of `step`.
        """
        parts = enumerate(cut(n, step, self.size))
        self.run([lambda i=i, part=part: function(i, part) for i, part in parts])


def cut(n: int, step: int, n_parts: int) -> list[slice]:
    """Cut `n` things in parts as equal as can be, which begin at multiples of `step`."""
    steps = -(-n // step)
    cuts = [min(n, step * (steps * part // n_parts)) for part in range(n_parts + 1)]
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]
