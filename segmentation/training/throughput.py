"""How many slices a second training takes, by the real step on real examples."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from segmentation.device import choose_device
from segmentation.training.checkpoint import ViewState
from segmentation.training.items import TrainingItem
from segmentation.training.loop import ViewTrainer, threads_kept, use_threads_worth
from segmentation.training.mixture import Mixture
from segmentation.training.options import TrainingOptions
from segmentation.views import VIEWS

WARM_STEPS = 3
"""Before the clock: scans are read, memory is got, kernels are chosen."""

STEPS = 10**9
"""Of the run that is only begun: its learning rate stays next to nothing."""


def measure_throughput(
    items: Sequence[TrainingItem],
    options: TrainingOptions,
    *,
    device: str | torch.device = "auto",
    seconds: float = 10.0,
    view: str = VIEWS[0],
) -> float:
    """Return slices per second of one view: drawing, varying, moving to the device, forward and backward pass.

    Parameters
    ----------
    items : sequence of TrainingItem
        At least one scan of the grid and size to be measured.
    options : TrainingOptions
    device : str or torch.device
    seconds : float
        To measure for, after `WARM_STEPS` steps; at least one step is measured.

    Raises
    ------
    DataError
        No scan can be used.
    """
    chosen = choose_device(device)
    mixture = Mixture(items, (), None, options, lambda text: None, ahead=chosen.type != "cpu")
    trainer = ViewTrainer(ViewState(view), options, STEPS, chosen)
    begun, taken = 0.0, 0
    with threads_kept() as most:
        voxels = math.prod(trainer.recipe.example_shape(options, mixture.grid_size))
        use_threads_worth(options.batch_size * voxels, chosen, most)
        batches = mixture.batches(view, range(STEPS), chosen)
        for taken, batch in enumerate(batches, start=1 - WARM_STEPS):
            trainer.step(batch)
            now = time.perf_counter()
            if taken == 0:
                begun = now
            elif taken > 0 and now - begun >= seconds:
                break
        batches.close()
    return taken * options.batch_size / (time.perf_counter() - begun)
