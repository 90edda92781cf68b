"""Training of the three networks, view by view [paper III-D]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segmentation.aggregation import DEFAULT_THRESHOLD, Aggregation, check_threshold
from segmentation.device import choose_device
from segmentation.model import ThreeWaySegmenter, new_network, seed_for
from segmentation.sampling import ScanPool, TrainingItem, draw_example
from segmentation.signal import REFERENCE_WINDOW
from segmentation.unet import MULTIPLE, UNet, channels_last
from segmentation.views import OFFSETS_MM, VIEWS
from standard_space.errors import DataError, UsageError
from standard_space.progress import Progress, silent
from standard_space.window import Window

DEFAULT_STEPS = 2000
SLICES_PER_SCAN = 64
"""An epoch draws this many slices per original scan, however many synthetic ones there are."""

SETTLING_SHARE = 0.3
"""Share of the steps, at the end, in which batch normalisation keeps its running statistics."""

PIXELS_PER_THREAD = 20_000
HISTORY_POINTS = 20


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; stored in the model.

    Parameters
    ----------
    steps : int, optional
        Optimiser steps per view.
    epochs : float, optional
        Instead of steps; an epoch is `SLICES_PER_SCAN` slices per original scan and view.
    batch_size : int
        Slices per step.
    learning_rate : float
        Peak of the schedule: linear warm-up over the first tenth, then a cosine down to zero.
    weight_decay : float
        Of AdamW.
    width : int
        Channels of the networks' first level.
    positive_share : float
        Share of slices drawn where there is infection, 0 to 1.
    synthetic_share : float
        Share of slices drawn from synthetic scans, when there are any, 0 to 1.
    patch : int, optional
        Side of the training patches, voxels; three eighths of the grid when absent.
    positive_weight : float
        Weight of infected pixels in the cross-entropy. With 1 the best Dice lies at probabilities far below
        2/3; the default brings it near the paper's rule (sum > 2).
    own_window : bool
        The networks see each scan at its own window, as in the paper; else at -600/1600, see `input_signal`.
    threshold : float
        Of the finished model, on the sum of the three probabilities.
    vary : bool
        Flips, rotations, scaling, intensity and noise on the fly.
    memory_mb : int
        For scans kept in memory; more scans than fit are exchanged in turn.
    seed : int
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    width: int = 16
    positive_share: float = 0.7
    synthetic_share: float = 0.5
    patch: int | None = None
    positive_weight: float = 8.0
    own_window: bool = False
    threshold: float = DEFAULT_THRESHOLD
    vary: bool = True
    memory_mb: int = 3000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise UsageError("give steps or epochs, not both")
        for name in (
            "steps",
            "epochs",
            "batch_size",
            "learning_rate",
            "width",
            "patch",
            "memory_mb",
            "positive_weight",
        ):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{name.replace('_', ' ')} must be above zero", got=value)
        for name in ("positive_share", "synthetic_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"the {name.replace('_', ' ')} must lie in 0..1", got=getattr(self, name))
        if self.patch is not None and self.patch % MULTIPLE:
            raise UsageError("the patch must be a multiple of 16", got=self.patch)
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError("the weight decay must not be negative", got=self.weight_decay)
        check_threshold(self.threshold)

    @property
    def input_window(self) -> Window | None:
        """The window that the networks see scans at; None is each scan's own."""
        return None if self.own_window else REFERENCE_WINDOW

    def steps_for(self, originals: int) -> int:
        """Return the optimiser steps per view for a number of original scans."""
        if self.epochs is not None:
            return max(1, math.ceil(self.epochs * originals * SLICES_PER_SCAN / self.batch_size))
        return DEFAULT_STEPS if self.steps is None else self.steps

    def patch_for(self, grid_size: int) -> int:
        """Return the side of the training patches on a grid, voxels, a multiple of 16."""
        if self.patch is not None:
            return self.patch
        return max(MULTIPLE, round(0.375 * grid_size / MULTIPLE) * MULTIPLE)


def train(
    originals: Sequence[TrainingItem],
    synthetic: Sequence[TrainingItem] = (),
    *,
    options: TrainingOptions | None = None,
    device: str | torch.device = "auto",
    progress: Progress = silent,
    note: Callable[[str], None] | None = None,
) -> ThreeWaySegmenter:
    """Train the three networks on a cohort and, optionally, its augmentation.

    Scans without infection annotation are left out. With the same seed, options and inputs the weights are
    bit-identical on the same processor and number of threads, and each view's weights do not depend on the
    others being trained.

    Parameters
    ----------
    originals, synthetic : sequence of TrainingItem
        All on one grid; `items_of` makes them from a cohort.
    options : TrainingOptions, optional
    device : str or torch.device
        "auto" takes a GPU when there is one.
    progress : Progress
        Called with ("view xy", steps done, steps) after each step.
    note : callable, optional
        Told in one sentence about scans left out.

    Raises
    ------
    DataError
        No annotated scan, scans on different grids, or training that diverged.
    UsageError
        A device that is not there.
    """
    options = options or TrainingOptions()
    chosen = choose_device(device)
    notes: list[str] = []

    def take_note(text: str) -> None:
        if text not in notes:
            notes.append(text)
            if note is not None:
                note(text)

    kinds = []
    for items in (originals, synthetic):
        for item in items:
            if not item.annotated:
                take_note(f"{item.name}: left out of training, it has no infection annotation")
        kinds.append([item for item in items if item.annotated])
    originals, synthetic = kinds
    if not originals and not synthetic:
        raise DataError("no scan to train on has an infection annotation", remedy="give infection masks")
    pools = _Pools(originals, synthetic, options, take_note)
    grid_size = pools.grid_size()
    steps = options.steps_for(len(originals) or len(synthetic))
    networks: dict[str, UNet] = {}
    history: dict[str, list[dict[str, float]]] = {}
    pixels = options.batch_size * options.patch_for(grid_size) ** 2
    with _threads_worth(pixels, chosen):
        for view in VIEWS:
            networks[view], history[view] = _train_view(
                view, pools, options, steps=steps, grid_size=grid_size, device=chosen, progress=progress
            )
    training = {
        "options": asdict(options),
        "seed": options.seed,
        "steps_per_view": dict.fromkeys(VIEWS, steps),
        "patch": options.patch_for(grid_size),
        "device": chosen.type,
        "originals": len(originals),
        "synthetic": len(synthetic),
        "history": history,
        "notes": notes,
        "patients": pools.patients(),
    }
    return ThreeWaySegmenter(
        networks,
        grid_size,
        aggregation=Aggregation(threshold=options.threshold),
        input_window=options.input_window,
        training=training,
    )


def loss_and_dice(
    logits: Tensor, infection: Tensor, counted: Tensor, positive_weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the loss and the batch's soft Dice.

    Loss = binary cross-entropy (mean over counted pixels, infected ones times `positive_weight`) + 1 - soft
    Dice; soft Dice = (2 sum p t + 1) / (sum p + sum t + 1) over the counted pixels of the whole batch.

    Parameters
    ----------
    logits, infection, counted : Tensor (B, 1, H, W)
        Truth and counted pixels are 0 or 1.
    """
    weight = torch.tensor(positive_weight, device=logits.device)
    entropy = functional.binary_cross_entropy_with_logits(
        logits, infection, reduction="none", pos_weight=weight
    )
    entropy = (entropy * counted).sum() / counted.sum().clamp(min=1.0)
    probability, truth = torch.sigmoid(logits) * counted, infection * counted
    soft_dice = (2.0 * (probability * truth).sum() + 1.0) / (probability.sum() + truth.sum() + 1.0)
    return entropy + 1.0 - soft_dice, soft_dice


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step (0-based): linear warm-up over a tenth, then a cosine to zero."""
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class _Pools:
    """Original and synthetic scans, mixed at the stated share."""

    def __init__(
        self,
        originals: Sequence[TrainingItem],
        synthetic: Sequence[TrainingItem],
        options: TrainingOptions,
        note: Callable[[str], None],
    ) -> None:
        self._share = options.synthetic_share if originals else 1.0
        kinds = [items for items in (originals, synthetic) if items]
        budget = options.memory_mb * 2**20 // len(kinds)
        seed = seed_for(options.seed, "order")
        window = options.input_window
        self._pools = [
            ScanPool(items, VIEWS, seed=seed, budget_bytes=budget, input_window=window, note=note)
            for items in kinds
        ]

    def restart(self) -> None:
        for pool in self._pools:
            pool.restart()
            pool.fill()

    def batch(
        self, view: str, rng: np.random.Generator, options: TrainingOptions, patch: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return stacks (B, slices, H, W), truth and counted pixels (B, 1, H, W)."""
        examples = []
        for _ in range(options.batch_size):
            pool = self._pools[1 if len(self._pools) > 1 and rng.random() < self._share else 0]
            examples.append(
                draw_example(
                    pool.draw(rng),
                    view,
                    rng,
                    patch=patch,
                    positive_share=options.positive_share,
                    offsets_mm=OFFSETS_MM,
                    vary=options.vary,
                )
            )
        return (
            torch.stack([example.stack for example in examples]),
            torch.stack([example.infection for example in examples]),
            torch.stack([example.counted for example in examples]),
        )

    def grid_size(self) -> int:
        sizes = []
        for pool in self._pools:
            pool.fill()
            sizes.append(pool.grid_size)
        if len(set(sizes)) != 1:
            raise DataError("original and synthetic scans lie on different grids", got=sizes)
        return sizes[0]

    def patients(self) -> list[dict[str, Any]]:
        merged: dict[str, set[str]] = {}
        for pool in self._pools:
            for patient, images in pool.patients.items():
                merged.setdefault(patient, set()).update(images)
        return [{"patient_sha256": key, "image_sha256": sorted(merged[key])} for key in sorted(merged)]


def _train_view(
    view: str,
    pools: _Pools,
    options: TrainingOptions,
    *,
    steps: int,
    grid_size: int,
    device: torch.device,
    progress: Progress,
) -> tuple[UNet, list[dict[str, float]]]:
    network = channels_last(new_network(view, options.width, options.seed).to(device))
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    patch = options.patch_for(grid_size)
    pools.restart()
    history: list[dict[str, float]] = []
    losses: list[float] = []
    settle_at = round((1.0 - SETTLING_SHARE) * steps)
    for step, (stack, infection, counted) in enumerate(_batches(view, pools, options, patch, steps, device)):
        if step == settle_at:
            _fix_batch_statistics(network)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, steps, options.learning_rate)
        stack = stack.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(stack)
        loss, soft_dice = loss_and_dice(
            logits.float(), infection.to(device), counted.to(device), options.positive_weight
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise DataError(
                f"training of view {view} diverged at step {step + 1}", remedy="use a smaller learning rate"
            )
        if (step + 1) * HISTORY_POINTS // steps > step * HISTORY_POINTS // steps:
            mean_loss = sum(losses) / len(losses)
            history.append({"step": step + 1, "loss": mean_loss, "soft_dice": float(soft_dice.detach())})
            losses.clear()
        progress(f"view {view}", step + 1, steps)
    return network.cpu().eval(), history


@contextmanager
def _threads_worth(pixels: int, device: torch.device) -> Iterator[None]:
    """Use no more of PyTorch's CPU threads than a step of this many pixels feeds.

    Measured on 2 cores, width 8: a step of 8 x 48^2 pixels takes 35 ms with one thread and 61 ms with two; one
    of 8 x 80^2 takes 73 and 64 ms.
    """
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(1, min(before, pixels // PIXELS_PER_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fix_batch_statistics(network: UNet) -> None:
    """Let batch normalisation use its running statistics from now on, as it will when predicting.

    Lung fills a patch to very different degrees, so the statistics of a batch of few patches differ much from
    the running ones: a network that never trained with those loses a tenth of Dice when it predicts.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def _batches(
    view: str, pools: _Pools, options: TrainingOptions, patch: int, steps: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield batches. For a GPU the next is drawn meanwhile, by one thread, which keeps the order.

    On a CPU a second thread would fight the network's own for the cores (a third slower on two cores).
    """
    rng = np.random.default_rng(seed_for(options.seed, view, "slices"))
    if device.type == "cpu":
        for _ in range(steps):
            yield pools.batch(view, rng, options, patch)
        return
    with ThreadPoolExecutor(max_workers=1) as worker:
        coming = worker.submit(pools.batch, view, rng, options, patch)
        for step in range(steps):
            batch = coming.result()
            if step + 1 < steps:
                coming = worker.submit(pools.batch, view, rng, options, patch)
            yield batch
