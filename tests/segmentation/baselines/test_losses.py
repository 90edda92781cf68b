from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segmentation.baselines.losses import dice_ce, tversky_ce
from segmentation.training.losses import loss_and_dice

SHAPE = (2, 1, 4, 5, 6)


def drawn(classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and voxels that count, a part of them."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((2, classes, 4, 5, 6), generator=generator)
    labels = torch.randint(0, max(classes, 2), SHAPE, generator=generator).float()
    counted = (torch.rand(SHAPE, generator=generator) < 0.6).float()
    return logits, labels, counted


@pytest.mark.parametrize("squared", [False, True])
def test_the_dice_is_monais_where_everything_counts(squared: bool) -> None:
    losses = pytest.importorskip("monai.losses")
    logits, truth, _ = drawn(1)
    dice = losses.DiceLoss(sigmoid=True, batch=True, squared_pred=squared, smooth_nr=1.0, smooth_dr=1.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth)
    for share in (0.0, 0.5, 1.0):
        expected = share * dice(logits, truth) + (1.0 - share) * entropy
        loss, _ = dice_ce(logits, truth, torch.ones_like(truth), dice_share=share, squared=squared)
        torch.testing.assert_close(loss, expected)


def test_the_soft_dice_is_that_of_the_three_way_method() -> None:
    logits, truth, counted = drawn(1)
    expected, soft = loss_and_dice(logits, truth, counted)
    loss, dice = dice_ce(logits, truth, counted, dice_share=0.5)
    torch.testing.assert_close(dice, soft)
    torch.testing.assert_close(2.0 * loss, expected)
    torch.testing.assert_close(dice_ce(logits, truth, counted, squared=True)[1], soft)


def test_the_tversky_loss_is_summed_over_classes_and_averaged_over_examples() -> None:
    pytest.importorskip("monai")
    logits, labels, counted = drawn(4)
    expected = 0.0
    for example in range(2):
        kept = counted[example, 0] > 0
        probability = torch.softmax(logits[example], 0)[:, kept]
        truth = torch.stack([(labels[example, 0][kept] == k).float() for k in range(4)])
        hit = (probability * truth).sum(1)
        missed, wrong = ((1 - probability) * truth).sum(1), (probability * (1 - truth)).sum(1)
        expected += float((1 - hit / (hit + 0.5 * missed + 0.5 * wrong)).sum()) / 2
    kept = counted[:, 0] > 0
    entropy = functional.cross_entropy(logits.movedim(1, -1)[kept], labels[:, 0][kept].long())
    loss, _ = tversky_ce(logits, labels, counted)
    assert float(loss) == pytest.approx(expected + float(entropy), rel=1e-4)


def test_the_dice_beside_the_tversky_loss_is_that_of_the_last_class() -> None:
    pytest.importorskip("monai")
    _, labels, counted = drawn(4)
    right = 20.0 * functional.one_hot(labels[:, 0].long(), 4).movedim(-1, 1).float()
    assert float(tversky_ce(right, labels, counted)[1]) > 0.999
    others = right.clone()
    others[:, :3] = others[:, [1, 2, 0]]
    loss, dice = tversky_ce(others, labels, counted)
    assert float(dice) > 0.999
    assert float(loss) > 3.0


def test_only_counted_voxels_matter() -> None:
    pytest.importorskip("monai")
    for classes in (1, 4):
        logits, labels, counted = drawn(classes)
        elsewhere = torch.where(counted > 0, logits, 9.0 - logits)
        named = torch.where(counted > 0, labels, 1.0 - labels.clamp(max=1.0))
        function = dice_ce if classes == 1 else tversky_ce
        for one, other in zip(
            function(logits, labels, counted), function(elsewhere, named, counted), strict=True
        ):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("classes", [1, 4])
def test_two_processes_together_have_the_loss_of_the_whole_batch(classes: int) -> None:
    pytest.importorskip("monai")
    logits, labels, counted = drawn(classes)
    function = dice_ce if classes == 1 else tversky_ce
    halves: list[Tensor] = []

    def note(sums: Tensor) -> Tensor:
        halves.append(sums)
        return sums

    for k in range(2):
        function(logits[k : k + 1], labels[k : k + 1], counted[k : k + 1], total=note)
    loss, dice = function(logits[:1], labels[:1], counted[:1], total=lambda sums: sums + halves[1])
    whole_loss, whole_dice = function(logits, labels, counted)
    torch.testing.assert_close(loss, whole_loss)
    torch.testing.assert_close(dice, whole_dice)


@pytest.mark.parametrize("classes", [1, 4])
def test_a_batch_in_which_nothing_counts_has_a_finite_loss(classes: int) -> None:
    pytest.importorskip("monai")
    logits, labels, _ = drawn(classes)
    logits.requires_grad_()
    function = dice_ce if classes == 1 else tversky_ce
    loss, _ = function(logits, labels, torch.zeros_like(labels))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
