"""The tables of docs/methods.md, from the code: networks, patches and how each method is trained.

    python -m benchmarks.methods [--docs]

Nothing is trained and no weight is made. Without --docs the tables are printed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import into_docs  # noqa: E402
from segmentation.baselines import h_denseunet, mpunet, mueller, transfer  # noqa: E402
from segmentation.baselines.patch_recipe import PatchRecipe  # noqa: E402
from segmentation.methods import METHODS, options_for, recipe_of  # noqa: E402
from segmentation.training.options import TrainingOptions  # noqa: E402
from segmentation.training.recipe import Recipe  # noqa: E402
from segmentation.unet import MULTIPLE  # noqa: E402
from standard_space.grid import StandardGrid  # noqa: E402

PAGE = ROOT / "docs" / "methods.md"
NAME = "benchmarks/methods.py"
GRIDS = (128, 512)

LOSSES = {
    "three-way": "cross-entropy (target x 8) + 1 - Dice",
    "unet2d": "cross-entropy + 1 - Dice",
    "h-denseunet": "the same of the fused output, and half of it of the 2D network's",
    "mpunet": "cross-entropy",
    "unet3d": "cross-entropy + 1 - Dice",
    "vnet3d": "1 - Dice (squares below the line)",
    "mueller": "Tversky + cross-entropy, four classes",
    "transfer": "half 1 - Dice, half cross-entropy",
    "covid-segnet": "half 1 - Dice, half cross-entropy",
}
SCHEDULES = {
    "mueller": "down by ten on a plateau",
    "transfer": "four triangles",
}
USUAL_SCHEDULE = "warm-up and cosine"

Shape = tuple[int, ...]
Spacing = tuple[float, float, float]


def parameters_of(recipe: Recipe, options: TrainingOptions) -> int:
    """Return how many numbers all networks of a method train; no weight is made."""
    with torch.device("meta"):
        networks = [recipe.network(part, options) for part in recipe.parts]
    return sum(weights.numel() for network in networks for weights in network.parameters())


def patches_of(recipe: Recipe, options: TrainingOptions, grid_size: int) -> list[tuple[Shape, Spacing]]:
    """Return what a network sees at once in training: shape in voxels and their spacing, mm, by stage.

    Shapes are (z, y, x); of a 2D network (y, x) of a slice in plane.
    """
    own = StandardGrid(grid_size).spacing_mm
    if isinstance(recipe, PatchRecipe):
        return [(recipe.patch_shape(options, own), own)]
    if isinstance(recipe, h_denseunet.HDenseUNet):
        return [(h_denseunet.sub_volume(own, options.patch), own)]
    if isinstance(recipe, mueller.Mueller):
        return [mueller.working_grid(own, options)]
    if isinstance(recipe, transfer.TransferUNet):
        return [transfer.stack_grid(own, small, options.patch) for small in (True, False)]
    if isinstance(recipe, mpunet.MPUNet):
        step = mpunet.step_of(own)
        side = options.patch or max(1, math.floor(mpunet.EXTENT_MM / step / MULTIPLE + 0.5)) * MULTIPLE
        return [((side, side), (step, step, step))]
    side = options.patch_for(grid_size)
    return [((side, side), own)]


def networks_table() -> str:
    """Every method: its networks, their size and where they come from."""
    rows = []
    for method in METHODS:
        recipe, options = recipe_of(method), options_for(method)
        rows.append(
            (
                f"`{method}`",
                recipe.title,
                recipe.dimensions,
                str(options.width),
                f"{parameters_of(recipe, options):,}",
                recipe.source,
            )
        )
    return _table(("method", "name", "sees", "width", "parameters", "source"), rows, right=(3, 4))


def training_table() -> str:
    """Every method: its patches on two grids, its batch, loss and optimiser."""
    rows = []
    for method in METHODS:
        recipe, options = recipe_of(method), options_for(method)
        schedule = SCHEDULES.get(method, USUAL_SCHEDULE)
        rows.append(
            (
                f"`{method}`",
                _millimetres(patches_of(recipe, options, GRIDS[-1])),
                *(_voxels(patches_of(recipe, options, grid)) for grid in GRIDS),
                str(options.batch_size),
                f"{100 * options.positive_share:g} %",
                LOSSES[method],
                f"{_OPTIMISERS[options.optimiser]}, {options.peak_rate:g}, {schedule}",
            )
        )
    header = (
        "method",
        f"patch on grid {GRIDS[-1]}, mm",
        *(f"voxels, grid {grid}" for grid in GRIDS),
        "batch",
        "with infection",
        "loss",
        "optimiser, peak rate, schedule",
    )
    return _table(header, rows, right=(4, 5))


def tables() -> str:
    """Both tables, as the page holds them."""
    return f"{networks_table()}\n\n{training_table()}"


_OPTIMISERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}


def _voxels(patches: list[tuple[Shape, Spacing]]) -> str:
    return _then([" x ".join(str(side) for side in reversed(shape)) for shape, _ in patches])


def _millimetres(patches: list[tuple[Shape, Spacing]]) -> str:
    return _then(
        [
            " x ".join(
                f"{side * mm:.0f}"
                for side, mm in zip(reversed(shape), reversed(spacing[-len(shape) :]), strict=True)
            )
            for shape, spacing in patches
        ]
    )


def _then(texts: list[str]) -> str:
    return ", then ".join(dict.fromkeys(texts))


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> str:
    rule = "|" + "".join("---:|" if place in right else "---|" for place in range(len(header)))
    lines = ["| " + " | ".join(header) + " |", rule]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


@click.command()
@click.option("--docs", is_flag=True, help="Put the tables into docs/methods.md.")
def main(docs: bool) -> None:
    """Make the tables of docs/methods.md."""
    if docs:
        into_docs(PAGE, NAME, tables())
    else:
        click.echo(tables())


if __name__ == "__main__":
    main()
