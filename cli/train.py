"""The command `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.console import Console, example, force_option, shared_options
from cli.options import DEVICE, ENCODER_WEIGHTS, FILE, METHOD
from cli.scoring_options import rule_option


@click.command(epilog=example("lungcast train cohort model --augmented augmented --validation-share 0.2"))
@click.argument("cohort", type=FILE)
@click.argument("model", type=FILE)
@METHOD
@click.option(
    "--augmented",
    type=FILE,
    multiple=True,
    help="Synthetic scans from `lungcast augment`, trained on as well; may be repeated.",
)
@click.option("--synthetic-share", type=float, default=0.5, show_default=True, help="Share of their slices.")
@click.option(
    "--on-the-fly",
    metavar="SHARE",
    type=float,
    help="Share of slices from progressions made meanwhile, none twice; needs --fits.",
)
@click.option("--fits", type=FILE, help="Stored fits of COHORT, for --on-the-fly.")
@click.option("--target", type=click.Choice(["infection", "lungs"]), default="infection", show_default=True)
@click.option(
    "--views", help="Train these here, others elsewhere.  [default: all: xy,yz,xz; rivals have none]"
)
@click.option("--steps", type=int, help="Optimiser steps per network (one per view).  [default: 2000]")
@click.option(
    "--epochs", type=float, help="Instead of --steps: epochs of 64 slices per original scan and view."
)
@click.option(
    "--batch", "batch_size", type=int, help="Slices or patches per step.  [default: 8; rivals: 2, 8 or 16]"
)
@click.option(
    "--patch",
    type=int,
    help="Side of training patches, voxels.  [default: 3/8 of the grid; rivals: theirs, in mm]",
)
@click.option(
    "--width", type=int, help="Channels of the networks' first level.  [default: 16; rivals: as published]"
)
@click.option(
    "--optimiser", type=click.Choice(["adamw", "adam", "sgd"]), help="[default: adamw; rivals: as published]"
)
@click.option("--learning-rate", type=float, help="Peak.  [default: 0.002; 0.001 with adam, 0.02 with sgd]")
@click.option("--weight-decay", type=float, help="[default: 0.0001; rivals: as published]")
@click.option(
    "--positive-share",
    type=float,
    help="Share of slices drawn where there is something to find.  [default: 0.7; rivals: as published]",
)
@click.option(
    "--positive-weight",
    type=float,
    help="Of the target's pixels in the cross-entropy.  [default: 8; 2 for lungs; 1 for rivals that have it]",
)
@click.option(
    "--validation", type=FILE, help="Cohort to keep the best weights by and to tune the threshold on."
)
@click.option("--validation-share", type=float, help="Instead: this share of COHORT's patients.")
@click.option("--validate-every", type=int, help="Steps between validations.  [default: a twentieth of all]")
@click.option("--patience", type=int, help="Stop a view after so many validations without a better Dice.")
@rule_option("--aggregation")
@click.option(
    "--slice-offsets-mm", metavar="MM,...", help="Of the slices in a stack.  [default: -5,-2,0,2,5]"
)
@click.option("--no-preprocess", is_flag=True, help="Of --method mueller: without its preprocessing.")
@ENCODER_WEIGHTS
@click.option(
    "--memory-mb", default=3000, show_default=True, help="For scans kept in memory; others take turns."
)
@click.option("--compile", "compiled", is_flag=True, help="Run the networks through torch.compile.")
@click.option(
    "--checkpoint-minutes", type=float, default=5.0, show_default=True, help="What a crash can cost at most."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same weights on a CPU.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run in MODEL, whose options are stored, or begin it; --steps extends it.",
)
@DEVICE
@force_option
@shared_options()
@click.pass_context
def train(
    context: click.Context,
    console: Console,
    cohort: Path,
    model: Path,
    views: str | None,
    steps: int | None,
    checkpoint_minutes: float,
    resume: bool,
    device: str,
    force: bool,
    **chosen: Any,
) -> None:
    """Train the three networks (axial, coronal, sagittal) on COHORT and write them into the folder MODEL.

    --method trains a rival instead, on the same scans, by the same rules.

    A run that was interrupted, however it ended, is continued with --resume to the same weights. Under torchrun
    its processes share every step; with several GPUs each view gets its own.
    """
    from segmentation.training.coverage import drawn_said
    from segmentation.training.distributed import rank_here
    from segmentation.training.request import absolute, offsets_in, opened, options_of, resumed
    from segmentation.training.run import train_views
    from segmentation.training.run_folder import stored_run
    from standard_space.errors import UsageError
    from standard_space.folders import check_apart

    if resume and force:
        raise UsageError("--resume and --force exclude each other")
    console.quiet = console.quiet or rank_here() > 0
    for name in ("fits", "validation", "encoder_weights"):
        chosen[name] = absolute(chosen[name])
    chosen["slice_offsets_mm"] = offsets_in(chosen["slice_offsets_mm"])
    chosen["preprocess"] = False if chosen.pop("no_preprocess") else None
    chosen["augmented"] = [absolute(folder) for folder in chosen["augmented"]]
    stored = stored_run(model) if resume else None
    if stored is None:
        arguments = {**chosen, "steps": steps}
        if resume:
            console.note(f"{model} holds no run yet: it is begun")
    else:
        typed = click.core.ParameterSource.COMMANDLINE
        flags = {"preprocess": "no_preprocess"}
        named = {
            name: value
            for name, value in chosen.items()
            if context.get_parameter_source(flags.get(name, name)) is typed
        }
        arguments = resumed(stored, named, steps)
    options = options_of({**arguments, "checkpoint_minutes": checkpoint_minutes})
    check_apart(model, [cohort, *arguments["augmented"], *filter(None, [arguments["validation"]])])
    what = opened(cohort, arguments, options)
    try:
        with console.progress("train") as progress:
            trained = train_views(
                **what,
                views=None if views is None else [view.strip() for view in views.split(",") if view.strip()],
                options=options,
                device=device,
                folder=model,
                resume=resume,
                force=force,
                arguments=arguments,
                progress=progress,
                note=console.note,
            )
    except KeyboardInterrupt:
        console.problem(f"interrupted; continue with `lungcast train {cohort} {model} --resume`")
        raise click.exceptions.Exit(130) from None
    if trained is None:
        console.say("The other views are still to be trained:")
        console.wrote({"training": model / "training"})
        return
    losses = []
    for view, rows in trained.training["history"].items():
        last = [row["loss"] for row in rows if row["kind"] == "training"]
        losses.append(f"{view} {last[-1]:.3f}")
    console.say(f"Trained on {drawn_said(trained.training)}; last mean loss {', '.join(losses)}:")
    for key, name in (("validation", "Validation"), ("tuning", "Tuned since by `lungcast tune`")):
        tuned = trained.scores.get(key)
        if tuned is not None:
            console.say(
                f"{name}: median Dice {tuned['median_dice']:.3f} of {tuned['scans']} scans at "
                f"{tuned['rule']}, t = {tuned['threshold']:g}"
            )
    console.wrote({"model": model, "history": model / "history.csv", "curves": model / "curves.png"})
