"""The simulator as a forecaster, on phantom cohorts with both kinds of lesions, beside its rivals.

    python benchmarks/forecast.py --json forecast.json [--docs]

Every forecast is made with the scans as placed, registered, and registered in hindsight (fitted on the scan to be
forecast, so that only the places are left to chance): what is lost to alignment, to dynamics, and to placement.
Lesions from `fields` share nothing with the model; those from `dynamics` follow it, with parameters drawn anew for
every interval. `--docs` puts the tables into docs/forecast.md. One core, some three minutes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import into_docs, machine, markdown, rows_markdown, target, versions  # noqa: E402
from simulator.dynamics.fit import fit_pair  # noqa: E402
from simulator.forecast import alignment_of, run_forecast  # noqa: E402
from simulator.forecast_cohort import summary  # noqa: E402
from simulator.forecast_record import Forecast, ForecastSettings  # noqa: E402
from simulator.phantom import make_cohort  # noqa: E402
from simulator.series import transitions_between  # noqa: E402
from simulator.visits import Visit, visit_of  # noqa: E402
from standard_space.embedding import embed  # noqa: E402
from standard_space.grid import StandardGrid  # noqa: E402
from standard_space.image import read_image, read_mask  # noqa: E402
from standard_space.manifest import read_manifest  # noqa: E402

GRID, SEED = 128, 11
LESIONS = ("dynamics", "fields")
WAYS = ("as placed", "registered", "registered, in hindsight")
"""Ways of making one forecast."""


def series(lesions: str, patients: int, scans: int, runs_in: Path) -> list[list[Visit]]:
    """Visits of every patient of a phantom cohort."""
    folder = runs_in / lesions
    make_cohort(folder, patients=patients, scans=scans, grid=GRID, seed=SEED, lesions=lesions)
    found: dict[str, list[Visit]] = {}
    for row in read_manifest(folder / "manifest.csv"):
        image = read_image(row.image)
        masks = [read_mask(path, image.geometry) for path in (row.infection, row.lungs) if path is not None]
        scan = embed(
            image, StandardGrid(GRID), patient=row.patient, scan=row.scan, day=row.day, infection=masks[0],
            lungs=masks[1], window=row.window,
        )  # fmt: skip
        found.setdefault(row.patient, []).append(visit_of(scan, ""))
    return list(found.values())


def forecasts(visits: list[Visit], runs: int) -> list[tuple[str, Forecast]]:
    """All forecasts of one patient, each in every way; the lungs are registered once."""
    made = []
    for earlier, source, later in zip(visits, visits[1:], visits[2:], strict=False):
        steps = transitions_between(source.observation.day, later.observation.day)
        hindsight = fit_pair(source.observation.counts, later.observation.counts, steps)
        settings = ForecastSettings(runs=runs, register=True)
        placed, registered = (alignment_of(source, later, register) for register in (False, True))
        for way, alignment, dynamics in (
            (WAYS[0], placed, None),
            (WAYS[1], registered, None),
            (WAYS[2], registered, hindsight),
        ):
            forecast, _ = run_forecast(
                earlier.observation, source, later, settings, dynamics=dynamics, alignment=alignment
            )
            made.append((way, forecast))
    return made


def row_of(lesions: str, way: str, found: dict[str, Any]) -> list[str]:
    """One row of the table."""

    def cell(name: str, form: str, *rivals: str) -> str:
        score = found["scores"][name]
        values = [score["simulation"], *(score[rival] for rival in rivals)]
        return " / ".join("-" if value is None else format(value, form) for value in values)

    cover, wins = found["coverage"]["total"], found["scores"]["dice"]
    # In hindsight the volume was fitted, so that its interval covers it proves nothing.
    covered = "-" if way == WAYS[2] else f"{cover['inside']} of {cover['of']} ({cover['median_width']:.1f})"
    return [
        f"{lesions}, {way}",
        cell("dice", ".2f", "persistence", "dilation"),
        f"{wins['beats_persistence']['times']}, {wins['beats_dilation']['times']} of {found['forecasts']}",
        cell("figure_of_merit", ".2f", "dilation"),
        cell("volume_error_percent", ".0f", "persistence"),
        cell("signal_distance", ".3f", "persistence"),
        covered,
        f"{found['occurrence']['brier_skill']:.2f}",
        f"{found['occurrence']['agreement']:.2f}",
        f"{found['lungs_dice']:.3f}",
    ]


HEADER = [
    "lesions, way",
    "Dice: simulation / persistence / dilation",
    "beats persistence, dilation",
    "Figure of Merit: simulation / dilation",
    "volume error %: simulation / persistence",
    "signal distance: simulation / persistence",
    "volume inside 95 % interval (its width / volume)",
    "Brier skill",
    "Dice between runs",
    "lungs' Dice",
]


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/forecast.md.")
@click.option("--patients", default=6, show_default=True)
@click.option("--scans", default=4, show_default=True)
@click.option("--runs", default=16, show_default=True)
def main(json_path: Path, docs: bool, patients: int, scans: int, runs: int) -> None:
    """Forecast phantom cohorts and compare with persistence and with the dilation of the right volume."""
    targets: list[dict[str, object]] = []
    found: dict[str, dict[str, Any]] = {}
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for lesions in LESIONS:
            made = []
            for visits in series(lesions, patients, scans, Path(folder)):
                begun = time.perf_counter()
                made += forecasts(visits, runs)
                seconds.append((time.perf_counter() - begun) / (len(WAYS) * max(1, len(visits) - 2)))
            for way in WAYS:
                one = summary([forecast for how, forecast in made if how == way])
                found[f"{lesions}, {way}"] = one
                if way == WAYS[1]:
                    targets += _targets(lesions, one)
    content = {
        "benchmark": "forecast", "machine": machine(), "versions": versions(), "grid": GRID, "seed": SEED,
        "patients": patients, "scans": scans, "runs": runs,
        "median_seconds_per_forecast": float(np.median(seconds)), "targets": targets, "summaries": found,
    }  # fmt: skip
    json_path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    text = page(content)
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "forecast.md", "benchmarks/forecast.py", text)


def page(content: dict[str, Any]) -> str:
    """The tables for the docs, from what the JSON holds."""
    rows = [
        row_of(lesions, way, content["summaries"][f"{lesions}, {way}"]) for lesions in LESIONS for way in WAYS
    ]
    patients, scans = content["patients"], content["scans"]
    note = (
        f"Medians over {patients * (scans - 2)} forecasts a row ({patients} patients with {scans} scans, "
        f"{content['grid']}^3 grid, {content['runs']} runs each; {content['median_seconds_per_forecast']:.1f} s a "
        "forecast with its share of a registration)."
    )
    return "\n\n".join([rows_markdown(HEADER, rows), note, markdown(content["targets"], content["machine"])])


def _targets(lesions: str, one: dict[str, Any]) -> list[dict[str, object]]:
    """The simulation against its rivals (the peers, whose scores are the targets), registered."""
    label = f"{lesions} lesions, registered"
    rows = []
    for name, words, rival, unit, direction in (
        ("dice", "Dice", "persistence", "", "at least"),
        ("dice", "Dice", "dilation", "", "at least"),
        ("figure_of_merit", "Figure of Merit", "dilation", "", "at least"),
        ("volume_error_percent", "volume error", "persistence", "%", "at most"),
        ("signal_distance", "signal distance", "persistence", "", "at most"),
    ):
        score = one["scores"][name]
        ours, theirs = score["simulation"], score[rival]
        rows.append(
            target(f"{words} against {rival}, {label}", ours, unit, round(theirs, 4), direction, theirs)
        )
    cover = one["coverage"]["total"]
    inside = cover["inside"] / cover["of"]
    return [*rows, target(f"share of volumes inside the 95 % interval, {label}", inside, "", 0.9, "at least")]


if __name__ == "__main__":
    main()
