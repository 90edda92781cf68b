"""Loss, Dice and the learning rate's schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Total = Callable[[Tensor], Tensor]
"""Adds a tensor up over the processes of a distributed run, its gradient as well."""


def alone(sums: Tensor) -> Tensor:
    """The total of one process."""
    return sums


def loss_and_dice(
    logits: Tensor,
    truth: Tensor,
    counted: Tensor,
    positive_weight: float = 1.0,
    total: Total = alone,
) -> tuple[Tensor, Tensor]:
    """Return the loss and the batch's soft Dice.

    Loss = binary cross-entropy (mean over counted pixels, positive ones times `positive_weight`) + 1 - soft
    Dice; soft Dice = (2 sum p t + 1) / (sum p + sum t + 1) over the counted pixels of the whole batch.

    Parameters
    ----------
    logits, truth, counted : Tensor (B, 1, H, W)
        Truth and counted pixels are 0 or 1.
    total : callable
        See `Total`; the batch is then that of all processes together.
    """
    weight = torch.tensor(positive_weight, device=logits.device)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none", pos_weight=weight)
    probability, positive = torch.sigmoid(logits) * counted, truth * counted
    sums = total(
        torch.stack(
            [
                (entropy * counted).sum(),
                counted.sum(),
                (probability * positive).sum(),
                probability.sum() + positive.sum(),
            ]
        )
    )
    soft_dice = (2.0 * sums[2] + 1.0) / (sums[3] + 1.0)
    return sums[0] / sums[1].clamp(min=1.0) + 1.0 - soft_dice, soft_dice


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step (0-based): linear warm-up over a tenth, then a cosine to zero."""
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
