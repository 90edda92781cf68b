"""The command `audit`: augmented volumes measured, held against limits, and set beside what was observed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import Console, example, shared_options, table
from cli.options import FILE, jobs_option, sources_option

if TYPE_CHECKING:
    from segmentation.realism import Auc, Realism
    from simulator.audit import Audit
    from simulator.fits import CohortFits

SHOWN_ROWS = (
    ("infected_ml", "infected, ml", ".1f"),
    ("share_above", "share above 0", ".2f"),
    ("mean", "mean signal", ".3f"),
    ("p05", "5th percentile", ".3f"),
    ("p50", "median", ".3f"),
    ("p95", "95th percentile", ".3f"),
)


@click.command(epilog=example("lungcast audit augmented --json audit.json --figures figures"))
@click.argument("aug", type=FILE)
@sources_option
@click.option(
    "--fits",
    "fits_path",
    type=FILE,
    help="Fits that AUG was made with. Default: AUG/fits.json where there is one.",
)
@click.option("--json", "json_path", type=FILE, help="Where to store every number of every volume.")
@click.option("--figures", type=FILE, help="Folder for figures.")
@click.option("--drop", is_flag=True, help="Remove flagged volumes for good. Without it nothing is touched.")
@click.option("--no-classifier", is_flag=True, help="Leave out telling real from synthetic patches.")
@click.option(
    "--max-growth",
    default=3.0,
    show_default=True,
    help="Flag volumes that grow or shrink more times than this a day.",
)
@click.option(
    "--max-z",
    default=5.0,
    show_default=True,
    help="Flag volumes more standard deviations than this away from the chain's mean.",
)
@click.option(
    "--tolerance",
    default=0.01,
    show_default=True,
    help="How far signals may lie beyond source and target, units of signal.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Of patches and classifier.",
)
@jobs_option
@shared_options()
def audit(
    console: Console,
    aug: Path,
    sources: Path | None,
    fits_path: Path | None,
    json_path: Path | None,
    figures: Path | None,
    drop: bool,
    no_classifier: bool,
    max_growth: float,
    max_z: float,
    tolerance: float,
    seed: int,
    jobs: int,
) -> None:
    """Measure every synthetic volume of AUG, flag implausible ones, and compare with the observed scans.

    Flags name infection where none may be, volumes that jump or are not what the chain foretells, and signals
    outside the range from source to target. A small classifier then tries to tell real from synthetic patches.

    An audit measures: flags alone leave exit code 0. Volumes that are damaged, or whose source is missing or
    altered, are named and give exit code 1; the rest is audited. --drop removes flagged volumes and records why:
    `augment` does not bring them back. Damaged ones stay, as `augment` makes them anew.
    """
    from simulator.audit import audit_cohort, ranges_line
    from simulator.audit_checks import Limits
    from simulator.audit_drop import drop_volumes
    from standard_space.cohort import open_with_sources
    from standard_space.files import check_output_file, write_json

    limits = Limits(z=max_z, growth_per_day=max_growth, signal=tolerance)
    check_output_file(json_path)
    cohort = open_with_sources(aug, sources)
    fits = _fits(aug, fits_path)
    with console.progress("audit") as progress:
        result = audit_cohort(
            cohort,
            fits=fits,
            limits=limits,
            patches=not no_classifier,
            seed=seed,
            jobs=jobs,
            progress=progress,
        )
    told = None
    if not no_classifier:
        from segmentation.realism import tell_apart

        with console.progress("real or synthetic") as progress:
            told = tell_apart(result.patches, seed=seed, progress=progress)
    written: dict[str, str | Path] = {}
    if json_path is not None:
        write_json(json_path, {**result.to_json(), "realism": None if told is None else told.to_json()})
        written["numbers"] = json_path
    if figures is not None and result.volumes:
        from simulator.audit_figures import draw_audit

        draw_audit(result, figures)
        written["figures"] = figures
    _say(console, result, ranges_line(result))
    if told is not None:
        _say_realism(console, told)
    if drop:
        dropped = drop_volumes(aug, result.flagged)
        console.say(f"dropped {len(dropped)} volumes; why is recorded in {aug.name}")
    elif result.flagged:
        console.say("nothing was removed; --drop removes the flagged volumes")
    if written:
        console.wrote(written)
    console.finish(result.failures, result.notes)


def _fits(aug: Path, fits_path: Path | None) -> CohortFits | None:
    from simulator.fits import CohortFits

    if fits_path is None:
        fits_path = aug / "fits.json"
        if not fits_path.is_file():
            return None
    return CohortFits.load(fits_path)


def _say(console: Console, result: Audit, ranges: str) -> None:
    summary = result.summary()
    rows = [["5th, 50th and 95th percentile over scans", "observed", "synthetic"]]
    for key, label, form in SHOWN_ROWS:
        cells = [
            "-" if values is None else "  ".join(format(value, form) for value in values)
            for values in (summary["observed"][key], summary["synthetic"][key])
        ]
        rows.append([label, *cells])
    console.say(
        f"{summary['volumes']} volumes of {summary['sources']} scans of {summary['patients']} patients, beside "
        f"{len(result.observed)} observed scans"
    )
    console.say(table(rows))
    if summary["signal_distance"] is not None:
        console.say(f"distance of the mean signal distributions: {summary['signal_distance']:.3f}")
    console.say(ranges)
    console.say(
        f"{summary['beyond_cohort']} volumes reach beyond all observed scans in some number (told, not flagged)"
    )
    console.say(f"flagged: {summary['flagged']} volumes")
    if result.flagged:
        flagged = [["volume", "reason", "measured", "value", "allowed"]]
        flagged += [
            [row.name, flag.reason, flag.what, f"{flag.value:.4g}", f"{flag.low:.4g} to {flag.high:.4g}"]
            for row in result.flagged
            for flag in row.flags
        ]
        console.say(table(flagged, left=(0, 1, 2)))


def _say_realism(console: Console, told: Realism) -> None:
    if told.network is not None and told.baseline is not None:
        console.say(
            f"real or synthetic, {told.patches_per_kind} patches of each kind, {told.folds} folds by patient, AUC "
            f"within patients (0.5: cannot be told apart): network {_auc(told.network)}, mean and spread alone "
            f"{_auc(told.baseline)}"
        )
    for line in told.notes:
        console.note(line)


def _auc(found: Auc) -> str:
    if found.low is None or found.high is None:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"
