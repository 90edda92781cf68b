"""Toy scans on which every rival method must learn something within seconds."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from segmentation.training.cut import CutScan
from segmentation.training.examples import Batch
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Crop, Forward, Rival, Turn
from segmentation.views import VIEWS, plane_axes
from standard_space.grid import StandardGrid
from tests.segmentation.toys import ellipsoid

AIR = -0.25
GRID_SIZE = 64
SEEDS = (1, 2, 3, 4)
UNSEEN = 100


def toy_cut(seed: int, size: int = 32, grid_size: int = GRID_SIZE) -> CutScan:
    """Two lungs in a body and a lesion in each of them, `size` voxels a side, at a grid's spacing."""
    rng = np.random.default_rng(seed)
    shape = (size, size, size)
    body = ellipsoid(shape, (0.5, 0.5, 0.5), (0.6, 0.45, 0.48))
    right = ellipsoid(shape, (0.5, 0.5, 0.3), (0.4, 0.35, 0.17))
    left = ellipsoid(shape, (0.5, 0.5, 0.7), (0.4, 0.35, 0.17))
    truth = np.zeros(shape, np.bool_)
    for lung, x in ((right, 0.3), (left, 0.7)):
        centre = (*rng.uniform(0.35, 0.65, 2), x + rng.uniform(-0.05, 0.05))
        truth |= ellipsoid(shape, centre, tuple(rng.uniform(0.11, 0.16, 3))) & lung
    signal = np.full(shape, AIR, np.float32)
    signal[body] = 0.4
    signal[right | left] = -0.16
    signal[truth] = 0.16
    signal += rng.normal(0.0, 0.02, shape)
    lungs = right.astype(np.uint8) + 2 * left.astype(np.uint8)
    counted = right | left
    return CutScan(
        signal=torch.from_numpy(signal.astype(np.float16)),
        truth=torch.from_numpy(truth),
        counted=torch.from_numpy(counted),
        spacing_mm=StandardGrid(grid_size).spacing_mm,
        air=AIR,
        slices={view: np.flatnonzero(counted.any(axis=plane_axes(view))) for view in VIEWS},
        positive_slices={view: np.flatnonzero(truth.any(axis=plane_axes(view))) for view in VIEWS},
        lungs=torch.from_numpy(lungs),
    )


def crop_of(cut: CutScan) -> Crop:
    """A cut scan as a model that segments gets it."""
    return Crop(cut.signal.float(), cut.air, cut.spacing_mm)


def forwards(recipe: Rival, options: TrainingOptions) -> dict[str, Forward]:
    """Untrained networks in evaluation mode, by part."""
    torch.manual_seed(options.seed)
    return {part: recipe.network(part, options).eval() for part in recipe.parts}


def learns(
    recipe: Rival, options: TrainingOptions, steps: int, size: int = 32, grid_size: int = GRID_SIZE
) -> float:
    """Train every part for some steps; return the Dice in the lungs of an unseen toy.

    With no step it is that of an untrained model. Views are averaged.
    """
    cuts = [toy_cut(seed, size, grid_size) for seed in SEEDS]
    torch.manual_seed(options.seed)
    networks: dict[str, Forward] = {}
    for part in recipe.parts:
        network = recipe.network(part, options).train()
        optimiser = recipe.optimiser(network, options)
        for step in range(steps):
            recipe.prepare(network, step, steps)
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate(step, steps, options, [])
            turn = Turn(options, grid_size, step, steps, options.vary)
            draw = partial(recipe.example, part=part, turn=turn)
            batch = Batch.of(
                [
                    draw(cuts[(step + k) % len(cuts)], rng=np.random.default_rng([options.seed, step, k]))
                    for k in range(options.batch_size)
                ]
            )
            optimiser.zero_grad()
            loss, _ = recipe.loss(network(batch.stack), batch, options)
            loss.backward()
            optimiser.step()
        networks[part] = network.eval()
    unseen = toy_cut(UNSEEN, size, grid_size)
    with torch.no_grad():
        probability = recipe.probabilities(networks, crop_of(unseen), options).mean(dim=0)
    found = (probability > recipe.pixel_cut) & unseen.counted
    return float(2 * (found & unseen.truth).sum() / (found.sum() + unseen.truth.sum()).clamp(min=1))


def example_bytes(recipe: Rival, options: TrainingOptions, seed: int, grid_size: int = GRID_SIZE) -> bytes:
    """All that a recipe draws of a toy for a seed, in training."""
    turn = Turn(options, grid_size, 0, 10)
    example = recipe.example(
        toy_cut(5, grid_size=grid_size), recipe.parts[0], np.random.default_rng(seed), turn
    )
    return b"".join(volume.numpy().tobytes() for volume in (example.stack, example.truth, example.counted))


def parameters_of(network: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in network.parameters())
