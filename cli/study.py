"""The command `study`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import KEPT, Console, example, force_option, shared_options
from cli.options import DEVICE, FILE
from segmentation.methods import METHODS


@click.command(
    epilog=example("lungcast study cohort study --methods three-way,unet2d --ratios 0,200 --folds 5 --jobs 2")
)
@click.argument("cohort", type=FILE)
@click.argument("out", type=FILE)
@click.option(
    "--methods", default="three-way", show_default=True, help=f"Between commas, of {', '.join(METHODS)}."
)
@click.option(
    "--ratios", default="0,200", show_default=True, help="Synthetic scans per original one, percent."
)
@click.option(
    "--folds", default="5", show_default=True, help="Of patients; several numbers compare them (2,3,4,5)."
)
@click.option("--only-folds", help="Run these folds only, such as 1,2.")
@click.option(
    "--seeds", default="0", show_default=True, help="Of training; each arm is trained with every one."
)
@click.option(
    "--generators",
    default="offline",
    show_default=True,
    help="Of synthetic scans: offline and on-the-fly (lungcast's), copy-paste, ellipsoids, observed (see "
    "--more). The first makes those of --ratios; the others are compared at 200 % with the first method.",
)
@click.option(
    "--without",
    default="",
    help="Parts to take away: normalise, combine, augment, vary, preprocess (of mueller).",
)
@click.option(
    "--choices", default="", help="Of the three-way method: offsets (of slices), rules (of aggregation)."
)
@click.option(
    "--test",
    "tests",
    multiple=True,
    metavar="NAME=COHORT",
    help="Another cohort every model is tested on; may be repeated.",
)
@click.option(
    "--more", type=FILE, help="Other scans of COHORT's patients, for the generator observed: the upper bound."
)
@click.option(
    "--steps", type=int, help="Optimiser steps per network, the same for every arm.  [default: 2000]"
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="[METHOD.]OPTION=VALUE",
    help="A training option, such as width=8 or unet3d.batch_size=2; may be repeated.",
)
@click.option(
    "--synthetic-share", type=float, help="Of training slices.  [default: as if all scans were pooled]"
)
@click.option("--shard", help="i/N: every N-th run only; other machines do the rest in the same OUT.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at once.")
@click.option("--keep-models", is_flag=True, help="Keep the weights of every run.")
@DEVICE
@force_option
@shared_options(KEPT)
def study(
    console: Console,
    cohort: Path,
    out: Path,
    methods: str,
    ratios: str,
    folds: str,
    only_folds: str | None,
    seeds: str,
    generators: str,
    without: str,
    choices: str,
    tests: tuple[str, ...],
    more: Path | None,
    steps: int | None,
    settings: tuple[str, ...],
    synthetic_share: float | None,
    shard: str | None,
    jobs: int,
    keep_models: bool,
    device: str,
    force: bool,
) -> None:
    """Train and test METHODS x RATIOS x FOLDS of COHORT's patients and write tables, plots and tests into OUT.

    Every arm gets the same folds, the same validation patients and the same number of steps. A study that was
    interrupted goes on when it is run again; finished runs are kept. A run that fails is named at the end (exit
    code 1) and the rest completes.
    """
    from segmentation.study.material import Inputs
    from segmentation.study.plan import StudyPlan
    from segmentation.study.run import run_study
    from segmentation.study.settings import parse_settings
    from simulator.augmentation_run import parse_shard

    given = parse_settings(settings)
    if steps is not None:
        given.setdefault("", {})["steps"] = steps
    plan = StudyPlan(
        methods=_words(methods),
        ratios=_numbers(ratios, float, "--ratios"),
        folds=_numbers(folds, int, "--folds"),
        seeds=_numbers(seeds, int, "--seeds"),
        generators=_words(generators),
        without=_words(without),
        choices=_words(choices),
        fold_subset=_numbers(only_folds or "", int, "--only-folds"),
        settings=given,
        synthetic_share=synthetic_share,
    )
    inputs = Inputs(
        cohort.resolve(),
        {name: path.resolve() for name, path in _named(tests)},
        out.resolve(),
        more and more.resolve(),
    )
    part = parse_shard(shard)
    with console.stages() as stage:
        outcome = run_study(
            inputs,
            plan,
            shard=part,
            jobs=jobs,
            device=device,
            keep_models=keep_models,
            force=force,
            stage=stage,
        )
    before = f", {outcome.kept} of them by an earlier call" if outcome.kept else ""
    console.say(f"{outcome.done} of {outcome.planned} runs are done{before}")
    if outcome.written:
        report = out / "report.md"
        console.wrote({"results": out / "results.csv", "costs": out / "costs.csv", "report": report})
    console.finish(outcome.failures)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str, kind, option: str):  # type: ignore[no-untyped-def]
    try:
        return tuple(kind(word.rstrip("%")) for word in _words(text))
    except ValueError:
        raise click.BadParameter(f"numbers between commas, not {text!r}", param_hint=option) from None


def _named(texts: tuple[str, ...]) -> list[tuple[str, Path]]:
    found = []
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or name == "own":
            raise click.BadParameter(f"NAME=COHORT (not named own), not {text!r}", param_hint="--test")
        found.append((name, Path(path)))
    if len({name for name, _ in found}) < len(found):
        raise click.BadParameter("each cohort needs a name of its own", param_hint="--test")
    return found
