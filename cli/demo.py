"""The demo: the whole road on a small phantom cohort."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import WITH_FORCE, Console, example, force_option, shared_options


@click.command(epilog=example("lungcast demo out"))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same demo on a CPU.",
)
@force_option
@shared_options(WITH_FORCE)
def demo(console: Console, out: Path, seed: int, force: bool) -> None:
    """Walk the whole road in under five minutes: phantom, fit, simulate, augment, train, segment, evaluate.

    Leaves OUT/report/index.html with figures of every step.
    """
    from segmentation.demo import run_demo
    from standard_space.files import prepare_output_folder

    prepare_output_folder(out, "demo", force=force)
    with console.progress("demo") as progress:
        result = run_demo(out, seed=seed, progress=progress, say=console.say)
    console.say(
        f"Median Dice on unseen patients: {result.model_dice:.2f}, "
        f"best HU threshold: {result.threshold_dice:.2f}. Open the report in a browser:"
    )
    console.wrote({"report": out / "report" / "index.html", "model": out / "model", "cohort": out / "cohort"})
