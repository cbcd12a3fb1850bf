"""Optimizer of the row network: orthogonalised momentum for the hidden convolutions, Adam for the rest, on one schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz iteration towards the nearest orthogonal matrix."""
NEWTON_SCHULZ_STEPS = 5
ADAM_LIKE_SCALE = 0.2
"""Brings the root mean square of an orthogonal update to that of an Adam step."""
WARM_UP_SHARE = 0.1


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan et al. 2024), each convolution taken as a matrix (out, in * kernel).

    :param parameters: convolution weights.
    :param lr: learning rate, comparable with one of Adam.
    :param momentum: of the gradient average.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter from its gradient."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalised(parameter.grad.lerp(average, group["momentum"]))
                longest = max(parameter.shape[0], parameter[0].numel())
                parameter.add_(update, alpha=-group["lr"] * ADAM_LIKE_SCALE * math.sqrt(longest))


def orthogonalised(gradient: Tensor) -> Tensor:
    """Approximately the nearest semi-orthogonal matrix, of the gradient's shape with all axes but the first flattened."""
    matrix = gradient.reshape(len(gradient), -1)
    tall = matrix.shape[0] > matrix.shape[1]
    matrix = matrix.T if tall else matrix
    matrix = matrix / (matrix.norm() + 1e-7)
    first, second, third = QUINTIC
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = matrix @ matrix.T
        matrix = first * matrix + (second * gram + third * gram @ gram) @ matrix
    return (matrix.T if tall else matrix).reshape(gradient.shape)


class RowOptimizer:
    """The optimizers of a row network under a linear warm-up and a cosine decay to zero.

    :param hidden: weights of the hidden convolutions.
    :param others: all other parameters.
    :param hidden_rate: largest learning rate of the hidden convolutions.
    :param other_rate: largest learning rate of the others.
    :param steps: length of the schedule.
    """

    def __init__(self, hidden: list[nn.Parameter], others: list[nn.Parameter], hidden_rate: float, other_rate: float, steps: int) -> None:
        self._parts: list[torch.optim.Optimizer] = [torch.optim.Adam(others, lr=other_rate, betas=(0.9, 0.99))]
        if hidden:
            self._parts.append(Muon(hidden, lr=hidden_rate))
        self._schedules = [torch.optim.lr_scheduler.LambdaLR(part, lambda step: one_cycle(step, steps)) for part in self._parts]

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One update and one step of the schedule."""
        for part, schedule in zip(self._parts, self._schedules, strict=True):
            part.step()
            schedule.step()


def one_cycle(step: int, steps: int) -> float:
    """Share of the largest learning rate at ``step`` of ``steps``."""
    warm_up = WARM_UP_SHARE * steps
    rest = max(0.0, (step - warm_up) / max(steps - warm_up, 1))
    return min(1.0, (step + 1) / max(warm_up, 1)) * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))
