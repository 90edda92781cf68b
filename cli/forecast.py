"""The command `forecast`: how well the simulator forecasts the scans that came."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import Console, example, shared_options, table
from cli.options import FILE, controls_of, jump_option, loss_option, morphology, seed_option

if TYPE_CHECKING:
    from simulator.forecast_cohort import CohortForecasts
    from simulator.forecast_record import Forecast


@click.command(epilog=example("lungcast forecast cohort --json forecast.json --figures figures --register"))
@click.argument("cohort", type=FILE)
@click.option("--json", "json_path", type=FILE, required=True, help="Where to store the scores.")
@click.option("--figures", type=FILE, help="Folder for one figure per forecast.")
@click.option(
    "--runs", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Draws of every forecast."
)
@seed_option
@jump_option
@click.option(
    "--register",
    is_flag=True,
    help="Register each scan's lungs to the one before (rigid, then affine). Else the scans lie as placed.",
)
@click.option(
    "--normalise-inspiration",
    is_flag=True,
    help="Scale infected volumes by the ratio of the lungs' volumes, in the fit and in the comparison.",
)
@loss_option
@morphology
@shared_options()
def forecast(
    console: Console,
    cohort: Path,
    json_path: Path,
    figures: Path | None,
    runs: int,
    seed: int,
    jump: int,
    register: bool,
    normalise_inspiration: bool,
    loss: str,
    spread: float,
    seeded_share: float,
    clustering: float,
    correlation_mm: float,
) -> None:
    """Fit each two scans of a patient in COHORT, play the second on to the day of the third, and score that.

    Beside two rivals: persistence (nothing changes) and a uniform dilation that is told the true volume.
    """
    from simulator.figure_style import save_figure
    from simulator.forecast_cohort import forecast_cohort
    from simulator.forecast_figures import forecast_figure
    from simulator.forecast_record import ForecastPicture, ForecastSettings
    from standard_space.cohort import Cohort
    from standard_space.files import check_output_file

    settings = ForecastSettings(
        runs=runs,
        seed=seed,
        jump=jump,
        register=register,
        normalise_inspiration=normalise_inspiration,
        loss=loss,
        controls=controls_of(spread, seeded_share, clustering, correlation_mm),
    )

    undrawn: dict[str, str] = {}

    def draw(picture: ForecastPicture) -> None:
        if figures is not None:
            made = picture.forecast
            name = f"{made.patient}_{made.earlier}_{made.source}_{made.target}.png"
            try:
                save_figure(forecast_figure(picture), figures / name)
            except OSError as error:  # a picture less is no reason to lose the forecasts
                undrawn[f"{made.name}, figure"] = str(error)

    check_output_file(json_path)
    opened = Cohort.open(cohort)
    with console.progress("forecast") as progress:
        result = forecast_cohort(opened, settings, on_forecast=draw, progress=progress)
    result.save(json_path)
    for made in result.forecasts:
        for line in made.problems:
            console.problem(f"{made.name}: {line}")
        if made.notes:
            console.note(f"{made.name}: {'; '.join(made.notes)}")
    if result.forecasts:
        console.say(table(_rows(result.forecasts)))
        for line in _summary_lines(result):
            console.say(line)
    console.say(f"{len(result.forecasts)} forecasts, {runs} runs each:")
    written: dict[str, str | Path] = {"scores": json_path}
    if figures is not None and result.forecasts:
        written["figures"] = figures
    console.wrote(written)
    console.finish({**result.failures, **undrawn}, {name: [text] for name, text in result.skipped.items()})


def _cell(value: object, form: str = ".2f") -> str:
    return format(value, form) if isinstance(value, int | float) else "-"


def _rows(forecasts: list[Forecast]) -> list[list[str]]:
    """One row a forecast, those with problems first (marked with !)."""
    rows = [
        [
            "forecast", "days", "lungs", "ml", "forecast ml", "95 % interval", "Dice", "persist.", "dilation",
            "FoM", "dilation", "signal", "persist.",
        ]
    ]  # fmt: skip
    for made in sorted(forecasts, key=lambda item: not item.problems):
        total = made.volume_forecast["total"]
        low, high, inside = total["low_ml"], total["high_ml"], total["inside"]
        rows.append(
            [
                f"{'!' if made.problems else ' '} {made.name}",
                f"{made.days:g}",
                _cell(made.lung_volume_ratio, ".0%"),
                _cell(made.observed["volume_ml"], ".1f"),
                _cell(made.median["volume_ml"], ".1f"),
                f"{low:.1f}-{high:.1f}{' ' if inside else '*'}",
                _cell(made.median["dice"]),
                _cell(made.persistence["dice"]),
                _cell(made.dilation["dice"]),
                _cell(made.median["figure_of_merit"]),
                _cell(made.dilation["figure_of_merit"]),
                _cell(made.median["signal_distance"], ".3f"),
                _cell(made.persistence["signal_distance"], ".3f"),
            ]
        )
    return rows


def _summary_lines(result: CohortForecasts) -> list[str]:
    """What the table means, then the cohort's medians and counts by kind."""
    lines = [
        "! has a problem, named above; * the observed volume lies outside the interval. lungs: their volume over "
        "the scan before; FoM: Figure of Merit; signal: distance of the signal distributions. "
        "The dilation is told the true volume."
    ]
    for kind, found in result.to_json()["summary"].items():
        scores, coverage = found["scores"], found["coverage"]["total"]
        parts = []
        for name, label, form in (
            ("dice", "Dice", ".2f"),
            ("figure_of_merit", "FoM", ".2f"),
            ("volume_error_percent", "volume error %", ".0f"),
            ("signal_distance", "signal", ".3f"),
        ):
            row = scores[name]
            rivals = [
                f"{rival} {_cell(row[rival], form)}, better in {row[f'beats_{rival}']['times']} "
                f"of {row[f'beats_{rival}']['of']}"
                for rival in ("persistence", "dilation")
                if rival in row
            ]
            parts.append(f"  {label} {_cell(row['simulation'], form)} ({'; '.join(rivals)})")
        lines.append(f"{kind}: medians over {found['forecasts']} forecasts of {found['patients']} patients")
        lines += parts
        lines.append(
            f"  volume inside the 95 % interval {coverage['inside']} of {coverage['of']} times (median "
            f"width {_cell(coverage['median_width'], '.1f')} times the volume); Dice between two runs "
            f"{_cell(found['occurrence']['agreement'])}; lungs' Dice {_cell(found['lungs_dice'])}"
        )
    return lines
