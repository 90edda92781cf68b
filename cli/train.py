"""The command `train`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, force_option, shared_options
from cli.options import DEVICE, FILE


@click.command(epilog=example("lungcast train cohort model --augmented augmented --steps 2000"))
@click.argument("cohort", type=FILE)
@click.argument("model", type=FILE)
@click.option("--augmented", type=FILE, help="Synthetic scans from `lungcast augment`, trained on as well.")
@click.option("--steps", type=int, help="Optimiser steps per view  [default: 2000]")
@click.option(
    "--epochs", type=float, help="Instead of --steps: epochs of 64 slices per original scan and view."
)
@click.option("--batch", "batch_size", default=8, show_default=True, help="Slices per step.")
@click.option("--width", default=16, show_default=True, help="Channels of the networks' first level.")
@click.option(
    "--synthetic-share", default=0.5, show_default=True, help="Share of slices from synthetic scans."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same weights on a CPU.",
)
@DEVICE
@force_option
@shared_options
def train(
    console: Console,
    cohort: Path,
    model: Path,
    augmented: Path | None,
    steps: int | None,
    epochs: float | None,
    batch_size: int,
    width: int,
    synthetic_share: float,
    seed: int,
    device: str,
    force: bool,
) -> None:
    """Train the three networks (axial, coronal, sagittal) on COHORT and write them into the folder MODEL."""
    from segmentation.sampling import items_of
    from segmentation.training import TrainingOptions
    from segmentation.training import train as train_model
    from standard_space.cohort import Cohort
    from standard_space.files import prepare_output_folder, write_mark
    from standard_space.version import lungcast_version

    options = TrainingOptions(
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        width=width,
        synthetic_share=synthetic_share,
        seed=seed,
    )
    originals = Cohort.open(cohort)
    synthetic = None if augmented is None else Cohort.open(augmented, sources=originals)
    prepare_output_folder(model, "model", force=force)
    with console.progress("train") as progress:
        trained = train_model(
            items_of(originals),
            [] if synthetic is None else items_of(synthetic),
            options=options,
            device=device,
            progress=progress,
            note=console.note,
        )
    trained.save(model)
    write_mark(model, "model", {"lungcast_version": lungcast_version(), "model_id": trained.model_id})
    count = f"{trained.training['originals']} scans and {trained.training['synthetic']} synthetic ones"
    losses = [f"{view} {points[-1]['loss']:.3f}" for view, points in trained.training["history"].items()]
    console.say(f"Trained on {count}; last mean loss {', '.join(losses)}:")
    console.wrote({"model": model})
