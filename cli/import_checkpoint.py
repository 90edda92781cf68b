"""The command `import-checkpoint`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, force_option, shared_options
from cli.options import FILE


@click.command("import-checkpoint", epilog=example("lungcast import-checkpoint X.pth Y.pth Z.pth model"))
@click.argument("x", metavar="X.pth", type=FILE)
@click.argument("y", metavar="Y.pth", type=FILE)
@click.argument("z", metavar="Z.pth", type=FILE)
@click.argument("model", type=FILE)
@click.option(
    "--slice-offsets",
    type=click.Choice(["trained", "predicted"]),
    default="trained",
    show_default=True,
    help="±8, ±3 voxels along x and y as the networks were trained, or ±5, ±2 as the release predicts.",
)
@click.option(
    "--target",
    type=click.Choice(["infection", "lungs"]),
    default="infection",
    show_default=True,
    help="What the networks were trained to find.",
)
@force_option
@shared_options()
def import_checkpoint(
    console: Console,
    x: Path,
    y: Path,
    z: Path,
    model: Path,
    slice_offsets: str,
    target: str,
    force: bool,
) -> None:
    """Bring three checkpoints of the authors' release into the folder MODEL, for the 512^3 grid.

    Which patients they were trained on is not known to the model, so no scan can be said to be held out.
    """
    from segmentation.released import import_released
    from standard_space.files import prepare_output_folder
    from standard_space.folders import check_apart

    check_apart(model, (x, y, z))
    imported = import_released(
        {"X": x, "Y": y, "Z": z},
        offsets=slice_offsets,  # type: ignore[arg-type]
        target=target,
    )
    prepare_output_folder(model, "model", force=force)
    imported.save(model)
    console.say(f"Imported three networks of width {imported.width}, slice offsets as {slice_offsets}:")
    console.wrote({"model": model})
