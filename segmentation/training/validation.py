"""How good a view's network is on slices of patients it never learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from segmentation.methods import recipe_of
from segmentation.segmenter import seed_for
from segmentation.training.cut import cut_scan
from segmentation.training.examples import Batch, Example
from segmentation.training.items import TrainingItem, lacking, loaded_or_noted
from segmentation.training.options import TrainingOptions
from segmentation.training.pool import Note
from segmentation.training.recipe import Turn
from standard_space.errors import DataError

LEAST_POSITIVE_SHARE = 0.5
"""Of the examples that show the target: a Dice of examples without it says little."""

VALIDATED_VOXELS = 2**20
"""Patches of a volume resemble each other within: they hold more voxels than the three-way method's slices, of
which 64 for each of three views are half a million pixels on the grid of 128."""

FEWEST, MOST = 8, 64
"""Examples, however large or small they are."""


@dataclass(frozen=True)
class ValidationScore:
    """Dice of all validation slices taken together, over the pixels that count.

    Attributes
    ----------
    dice : float
        Of the pixels above the method's `Recipe.pixel_cut`.
    soft_dice : float
        Of the probabilities: 2 sum p t / (sum p + sum t).
    """

    dice: float
    soft_dice: float


class ValidationSlices:
    """Fixed slices of one view (of a rival: its examples), drawn once from the validation scans in turn, unvaried.

    Parameters
    ----------
    items : sequence of TrainingItem
    view : str
    options : TrainingOptions
    grid_size : int
        Of the scans trained on.
    note : callable
        Told about scans that are left out.

    Raises
    ------
    DataError
        A scan lies on another grid, or no scan shows the target.
    """

    def __init__(
        self,
        items: Sequence[TrainingItem],
        view: str,
        options: TrainingOptions,
        grid_size: int,
        note: Note,
    ) -> None:
        self._recipe = recipe_of(options.method)
        self._examples: list[Example] = []
        count = examples_for(options, len(items), self._recipe.example_shape(options, grid_size))
        for place, item in enumerate(items):
            numbers = range(place, count, len(items))
            self._examples += _draw(item, view, options, grid_size, numbers, note)
        self._batch = options.batch_size
        if not any(bool((self._recipe.positives(e.truth) * e.counted).any()) for e in self._examples):
            raise DataError(
                f"no validation scan shows the {options.target}", remedy="choose other validation scans"
            )

    @torch.no_grad()
    def score(self, network: nn.Module, device: torch.device) -> ValidationScore:
        """Score a network as it will predict: batch normalisation uses its running statistics."""
        training = network.training
        network.eval()
        found, soft = np.zeros(2), np.zeros(2)
        for first in range(0, len(self._examples), self._batch):
            batch = Batch.of(self._examples[first : first + self._batch])
            stack = batch.stack.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                output = network(stack)
            probability = self._recipe.probability(output.float()).cpu() * batch.counted
            truth = self._recipe.positives(batch.truth) * batch.counted
            for sums, guess in ((found, (probability > self._recipe.pixel_cut).float()), (soft, probability)):
                sums += float((guess * truth).sum()), float(guess.sum() + truth.sum())
        network.train(training)
        return ValidationScore(float(2 * found[0] / found[1]), float(2 * soft[0] / soft[1]))


def examples_for(options: TrainingOptions, scans: int, shape: Sequence[int]) -> int:
    """Return how many examples are validated on: one of each scan at least.

    Where the options give no number, as many as hold `VALIDATED_VOXELS` together, within `FEWEST` and `MOST`.

    Parameters
    ----------
    scans : int
        To validate on.
    shape : sequence of int
        Voxels of an example along its axes.
    """
    count = options.validation_slices
    if count is None:
        count = min(max(math.ceil(VALIDATED_VOXELS / math.prod(shape)), FEWEST), MOST)
    return max(count, scans)


def _draw(
    item: TrainingItem, view: str, options: TrainingOptions, grid_size: int, numbers: range, note: Note
) -> list[Example]:
    scan = loaded_or_noted(item, note)
    if scan is None:
        return []
    reason = lacking(item, options.target, scan)
    if reason is not None:
        note(f"{item.name}: left out of validation, {reason}")
        return []
    if scan.grid.size != grid_size:
        raise DataError(
            "the scans to train and to validate on lie on different grids",
            where=item.name,
            got=scan.grid.size,
            expected=grid_size,
        )
    try:
        recipe = recipe_of(options.method)
        cut = cut_scan(scan, options.target, options.input_window, sides=recipe.needs_lungs)
    except DataError as error:
        note(f"{item.name}: left out of validation, {error.what}")
        return []
    # As at the end of training: what changes on the way, a size of input, has then reached its last state.
    share = max(options.positive_share, LEAST_POSITIVE_SHARE)
    shown = replace(options, positive_share=share)
    turn = Turn(shown, grid_size, step=1, steps=1, vary=False, validation=True)
    return [
        _compact(
            recipe.example(
                cut,
                view,
                np.random.default_rng(seed_for(options.seed, view, "validation", str(number))),
                turn,
            )
        )
        for number in numbers
    ]


def _compact(example: Example) -> Example:
    """Return an example whose masks and labels take a byte: all of them are in memory throughout the training."""
    return Example(example.stack, example.truth.to(torch.uint8), example.counted.to(torch.uint8))
