"""What tells one method from another: its networks, what they learn from, and how they answer.

Everything else (which scans are drawn, checkpoints, validation, tuning, results) is the same for all methods. The
method by name is in `segmentation.methods`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.training.cut import CutScan
from segmentation.training.examples import Batch, Example
from segmentation.training.losses import Total, alone, learning_rate_at
from segmentation.training.options import TrainingOptions
from standard_space.errors import UsageError
from standard_space.progress import Progress, silent

Forward = Callable[[Tensor], Tensor]
"""A network ready on a device: input float32 (B, C, ...) there, output float32 there."""

Row = dict[str, Any]
"""Of the history; see `segmentation.training.history`."""


@dataclass(frozen=True)
class Turn:
    """Whose turn it is when an example is drawn.

    Attributes
    ----------
    options : TrainingOptions
    grid_size : int
        Of the standard grid the scan lies on.
    step, steps : int
        The optimiser step the example is for, from 0, and all of the run.
    vary : bool
        Vary the example at random; not for validation.
    validation : bool
        The example is scored and not learned from: it counts where an infection is looked for in the end.
    """

    options: TrainingOptions
    grid_size: int
    step: int
    steps: int
    vary: bool = True
    validation: bool = False


@dataclass(frozen=True)
class Crop:
    """The part of a scan that is to be segmented.

    Attributes
    ----------
    signal : float32 Tensor (z, y, x)
        On the device, at the model's input window.
    air : float
        Signal of air, which lies beyond the volume.
    spacing_mm : tuple of float
        (z, y, x).
    """

    signal: Tensor
    air: float
    spacing_mm: tuple[float, float, float]


class Recipe(ABC):
    """A method of segmentation, without state: the same object serves every run.

    Attributes
    ----------
    name : str
        Of ``--method``.
    title : str
        In tables.
    source : str
        Where it is published, with its DOI.
    dimensions : str
        "2D", "2.5D" or "3D".
    parts : tuple of str
        Its networks by name. Each is trained by itself; none depends on another.
    defaults : dict
        Fields of `TrainingOptions` where the method differs from their defaults; what a user gives wins.
    rules : tuple of str
        Rules that can make one probability of its views, the usual one first; see `segmentation.aggregation`.
    pixel_cut : float
        Above this probability a pixel counts as found when weights are compared on validation examples.
    needs_lungs : bool
        Cut scans come with right and left lung, `CutScan.lungs`.
    freezes : bool
        Some layers get no gradient in some steps, see `prepare`.
    channels_last : bool
        On a CPU its volumes and weights have their channels last in training. Measured on one core, narrow: steps
        of 3D U-Net, V-Net and Mueller's network take 38 to 49 % less time, COVID-SegNet's 41 % more.
    targets : tuple of str
        What it can be trained to find.
    ignores : tuple of str
        Fields of `TrainingOptions` that mean nothing to it, and may not be given.
    view_count : int
        Probabilities that its networks give of a scan, which a rule makes one of.
    stride : tuple of int
        Along each axis of an example: how many voxels become one in the deepest layer.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    dimensions: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ("network",)
    defaults: ClassVar[Mapping[str, Any]] = {}
    rules: ClassVar[tuple[str, ...]] = ("mean",)
    pixel_cut: ClassVar[float] = 0.5
    needs_lungs: ClassVar[bool] = False
    freezes: ClassVar[bool] = False
    channels_last: ClassVar[bool] = False
    targets: ClassVar[tuple[str, ...]] = ("infection",)
    ignores: ClassVar[tuple[str, ...]] = ()
    view_count: ClassVar[int] = 1
    stride: ClassVar[tuple[int, ...]]

    def check(self, options: TrainingOptions, grid_size: int, world: int = 1) -> None:
        """Refuse options that cannot be trained with, before anything is written.

        Parameters
        ----------
        grid_size : int
            Of the standard grid that the scans lie on.
        world : int
            Processes that share every step.

        Raises
        ------
        UsageError
            Fewer examples a step than processes, or too little in the deepest layer for batch normalisation.
        DataError
            A file that the user brings cannot be used.
        """
        if options.batch_size < world:
            raise UsageError(
                "every process needs an example of each step",
                got=f"batch {options.batch_size}, {world} processes",
                remedy=f"use --batch {world} or more",
            )
        sides = self.example_shape(options, grid_size)
        deepest = math.prod(math.ceil(side / step) for side, step in zip(sides, self.stride, strict=True))
        if options.batch_size // world * deepest < 2:
            raise UsageError(
                "batch normalisation needs more than one value in the deepest level",
                got=f"batch {options.batch_size} of patches of {sides[-1]}, {world} processes",
                remedy="use a larger --batch or --patch",
            )

    @abstractmethod
    def example_shape(self, options: TrainingOptions, grid_size: int) -> tuple[int, ...]:
        """Return the voxels of a training example along its axes; at the end, where that changes on the way."""

    @abstractmethod
    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        """Return a part's network for a width, its weights drawn from torch's own generator, which is seeded.

        Of the options only what is kept with a model may count: `TrainingOptions.width` and
        `TrainingOptions.slice_offsets_mm`.
        """

    def start(self, network: nn.Module, options: TrainingOptions) -> str | None:
        """Put in weights that the user brings, before the first step; return a sentence for the notes.

        Raises
        ------
        DataError
            The weights cannot be read or do not fit.
        """
        return None

    @abstractmethod
    def example(self, cut: CutScan, part: str, rng: np.random.Generator, turn: Turn) -> Example:
        """Draw an example of a scan: a pure function of the arguments.

        Returns
        -------
        Example
            ``stack`` (C, ...) as the network takes it; ``truth`` and ``counted`` (1, ...) on the grid of the
            network's output. All examples of a step have the same shapes.
        """

    @abstractmethod
    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of a step and its soft Dice of the target (detached from nothing).

        Parameters
        ----------
        output : float32 Tensor
            Of the network for ``batch.stack``.
        total : callable
            Adds up over the processes of a distributed run.
        """

    def probability(self, output: Tensor) -> Tensor:
        """Return the target's probability (B, 1, ...) of a network's output; a single logit's by default."""
        return torch.sigmoid(output)

    def positives(self, truth: Tensor) -> Tensor:
        """Return 1 where the truth of examples is the target, else 0; the truth itself by default."""
        return truth

    def optimiser(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """Return the optimiser that the options name."""
        parameters, rate, decay = network.parameters(), options.peak_rate, options.weight_decay
        if options.optimiser == "sgd":
            return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
        if options.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)

    def learning_rate(self, step: int, steps: int, options: TrainingOptions, rows: Sequence[Row]) -> float:
        """Return the learning rate of a step, from 0; warm-up and cosine by default.

        Parameters
        ----------
        rows : sequence of dict
            The history so far; it is kept with a checkpoint, so that a resumed run gets the same rate.
        """
        return learning_rate_at(step, steps, options.peak_rate)

    def prepare(self, network: nn.Module, step: int, steps: int) -> None:  # noqa: B027
        """Change what is trained, before a step: to freeze and release layers. Nothing by default.

        Parameters
        ----------
        step, steps : int
            The step, from 0, and all of the run as it was begun: an extension changes nothing that is done.
        """


class Rival(Recipe):
    """A method that sees the lungs' box of a scan and a margin around it, in training and in prediction."""

    @abstractmethod
    def probabilities(
        self,
        networks: Mapping[str, Forward],
        crop: Crop,
        options: TrainingOptions,
        progress: Progress = silent,
    ) -> Tensor:
        """Return the target's probability by view, float32 Tensor (views, z, y, x) on the crop's grid and device.

        Runs without gradients, networks in evaluation mode.

        Parameters
        ----------
        networks : dict of str to Forward
            By part.
        options : TrainingOptions
            The model was trained with.
        progress : Progress
            Called with (what, done, total) after each pass.
        """
