"""Losses of rival methods that count marked voxels only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from segmentation.training.losses import Total, alone


def dice_ce(
    logits: Tensor,
    truth: Tensor,
    counted: Tensor,
    *,
    dice_share: float = 0.5,
    squared: bool = False,
    total: Total = alone,
) -> tuple[Tensor, Tensor]:
    """Return a weighted sum of Dice loss and binary cross-entropy, and the soft Dice.

    Loss = share x (1 - soft Dice) + (1 - share) x cross-entropy (mean over counted voxels); soft Dice =
    (2 sum p t + 1) / (sum p + sum t + 1) over the counted voxels of the whole batch. MONAI's `DiceLoss` is the
    same where everything counts (``sigmoid=True, batch=True, smooth_nr=1, smooth_dr=1``), but it cannot add up
    over processes.

    Parameters
    ----------
    logits, truth, counted : Tensor (B, 1, ...)
        Truth and counted voxels are 0 or 1.
    dice_share : float
        0 to 1.
    squared : bool
        The loss has sum p^2 + sum t^2 below the line, as in V-Net; the returned soft Dice stays as above.
    total : callable
        See `Total`; the batch is then that of all processes together.
    """
    logits = logits.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability, positive = torch.sigmoid(logits) * counted, truth * counted
    sums = total(
        torch.stack(
            [
                (entropy * counted).sum(),
                counted.sum(),
                (probability * positive).sum(),
                probability.sum() + positive.sum(),
                (probability * probability).sum() + positive.sum(),
            ]
        )
    )
    soft_dice = (2.0 * sums[2] + 1.0) / (sums[3] + 1.0)
    minimised = (2.0 * sums[2] + 1.0) / (sums[4] + 1.0) if squared else soft_dice
    mean_entropy = sums[0] / sums[1].clamp(min=1.0)
    return dice_share * (1.0 - minimised) + (1.0 - dice_share) * mean_entropy, soft_dice


def tversky_ce(
    logits: Tensor, labels: Tensor, counted: Tensor, total: Total = alone
) -> tuple[Tensor, Tensor]:
    """Return Tversky loss plus categorical cross-entropy over classes, and the soft Dice of the last class.

    As in MIScnn (Müller and Kramer, BMC Medical Imaging 2021, 10.1186/s12880-020-00543-7): alpha = beta = 1/2, the
    Tversky loss summed over the classes and averaged over the examples, the cross-entropy averaged over voxels.
    The Dice is that of the whole batch, (2 sum p t + 1) / (sum p + sum t + 1).

    Parameters
    ----------
    logits : Tensor (B, K, ...)
    labels : Tensor (B, 1, ...)
        Class of each voxel, 0 to K - 1, of any dtype; K - 1 is the target.
    counted : Tensor (B, 1, ...)
        0 or 1.
    total : callable
        See `Total`; the batch is then that of all processes together.
    """
    from monai.losses import TverskyLoss

    logits, classes = logits.float(), logits.shape[1]
    # One above the classes: MONAI and torch both leave it out.
    marked = torch.where(counted > 0.5, labels.long(), classes)
    tversky = TverskyLoss(softmax=True, to_onehot_y=True, reduction="none", ignore_index=classes)
    # MONAI makes its one-hot truth in the dtype of the labels.
    lost = tversky(logits, marked.to(logits.dtype))
    entropy = functional.cross_entropy(logits, marked[:, 0], ignore_index=classes, reduction="sum")
    probability = torch.softmax(logits, 1)[:, -1:] * counted
    positive = (labels == classes - 1) * counted
    sums = total(
        torch.stack(
            [
                lost.sum(),
                torch.full_like(entropy, len(logits)),
                entropy,
                counted.sum(),
                (probability * positive).sum(),
                probability.sum() + positive.sum(),
            ]
        )
    )
    loss = sums[0] / sums[1] + sums[2] / sums[3].clamp(min=1.0)
    return loss, (2.0 * sums[4] + 1.0) / (sums[5] + 1.0)
