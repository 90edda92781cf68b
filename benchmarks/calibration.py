"""Do the intervals hold the truth? At least 200 pairs of the voxel engine from a stated prior, fitted and counted.

    python benchmarks/calibration.py --json calibration.json [--docs] [--pairs 200]

Every pair is fitted with both losses and both kinds of interval (95 %); each of the eight parameters, the births
per day, the two equilibria, and the volumes half an interval later (run on by the engine) are looked for in
their intervals. The prior is that of `benchmarks/calibration_pairs.py`. `--docs` updates docs/fitting.md.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.calibration_pairs import Case, make_case, truth_at  # noqa: E402
from benchmarks.machine import into_docs, machine, markdown, rows_markdown, target, versions  # noqa: E402
from simulator.dynamics import fit_space  # noqa: E402
from simulator.dynamics.bins import N_BELOW  # noqa: E402
from simulator.dynamics.derived import births_per_day  # noqa: E402
from simulator.dynamics.fit import PairFit, fit_pair  # noqa: E402
from simulator.dynamics.fit_problem import Leg  # noqa: E402
from simulator.dynamics.parameters import PARAMETER_NAMES  # noqa: E402
from simulator.dynamics.prediction import predict  # noqa: E402

LOSSES = ("l2", "poisson")
METHODS = ("wald", "profile")
DERIVED = ("births_per_day", "ggo_equilibrium", "consolidation_equilibrium")
PARTS = {"below": slice(0, N_BELOW), "above": slice(N_BELOW, None), "total": slice(None)}
LOWEST, HIGHEST = 0.90, 0.99
FIRST_SEED = 10_000  # pairs on which no choice was made


@dataclass
class Tally:
    """How often one interval held the truth, over all pairs.

    Attributes
    ----------
    pairs, held, truth_below, truth_above : int
    open : int
        Intervals with an end that the data did not close; they count like all others.
    whole_range : int
        Those open at both ends, which hold any truth.
    at_bound : int
        Pairs in which the estimate lies at a bound.
    widths : list of float
        Width over truth.
    """

    pairs: int = 0
    held: int = 0
    truth_below: int = 0
    truth_above: int = 0
    open: int = 0
    whole_range: int = 0
    at_bound: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, truth: float, low: float, high: float) -> None:
        """Count one interval."""
        self.pairs += 1
        self.held += bool(low <= truth <= high)
        self.truth_below += bool(truth < low)
        self.truth_above += bool(truth > high)
        self.widths.append((high - low) / abs(truth))

    @property
    def coverage(self) -> float:
        """Share of the pairs whose interval held the truth."""
        return self.held / self.pairs

    @property
    def closed_coverage(self) -> float:
        """The same among the intervals that are not the whole range; NaN without any."""
        closed = self.pairs - self.whole_range
        return (self.held - self.whole_range) / closed if closed else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        content = {name: value for name, value in asdict(self).items() if name != "widths"}
        closed = self.closed_coverage
        return {
            **content,
            "coverage": round(self.coverage, 4),
            "coverage_unless_whole_range": None if np.isnan(closed) else round(closed, 4),
            "median_relative_width": float(f"{np.median(self.widths):.3g}"),
        }


Study = dict[str, dict[str, dict[str, Tally]]]


def true_derived(case: Case, fit: PairFit) -> dict[str, float]:
    """Births per day and equilibria of the truth."""
    truth = truth_at(case.truth, fit.parameters.reference_ggo_voxels)
    w = truth.as_array()
    leg = Leg(case.before, case.after, case.transitions)
    return {
        "births_per_day": births_per_day(fit_space.from_parameters(w), leg, truth.reference_ggo_voxels),
        "ggo_equilibrium": -0.15 + w[7] * float(np.log(w[4] / w[3])),
        "consolidation_equilibrium": w[7] * float(np.log(w[6] / w[3])),
    }


def count_parameters(case: Case, fit: PairFit, tallies: dict[str, Tally]) -> None:
    """Look for the eight true values in their intervals."""
    truth = truth_at(case.truth, fit.parameters.reference_ggo_voxels).as_array()
    for name, value in zip(PARAMETER_NAMES, truth, strict=True):
        tally, ends = tallies.setdefault(name, Tally()), fit.open_ends.get(name, [])
        tally.add(float(value), *fit.intervals[name])
        tally.open += bool(ends)
        tally.whole_range += len(ends) == 2
        tally.at_bound += name in fit.at_bound


def count_consequences(case: Case, fit: PairFit, tallies: dict[str, Tally]) -> None:
    """Look for births, equilibria and later volumes in their intervals."""
    for name, value in true_derived(case, fit).items():
        low, high = fit.derived[f"{name}_low"], fit.derived[f"{name}_high"]
        tallies.setdefault(name, Tally()).add(value, low, high)
    ahead = predict(case.after, fit, case.later_transitions)
    for part, chosen in PARTS.items():
        seen = float(case.later[chosen].sum())
        low, high = ahead.interval(part)  # type: ignore[arg-type]
        tallies.setdefault(f"forecast_{part}", Tally()).add(seen, low, high)


def study(
    pairs: int,
    losses: tuple[str, ...] = LOSSES,
    methods: tuple[str, ...] = METHODS,
    told: Callable[[int], None] = lambda done: None,
    first_seed: int = 0,
    kind_of_pair: str = "lesion",
) -> tuple[Study, dict[str, dict[str, float]]]:
    """Coverage by loss, method ("derived" for what follows from W) and quantity; median seconds per fit."""
    found: Study = {loss: {kind: {} for kind in (*methods, "derived")} for loss in losses}
    seconds: dict[str, dict[str, list[float]]] = {loss: {method: [] for method in methods} for loss in losses}
    for number in range(pairs):
        case = make_case(first_seed + number, kind_of_pair)
        if not case.exact:
            raise RuntimeError(f"pair {number}: births found no room, the prior is not what it says")
        for loss in losses:
            for method in methods:
                begun = time.perf_counter()
                fit = fit_pair(case.before, case.after, case.transitions, loss=loss, intervals=method)
                seconds[loss][method].append(time.perf_counter() - begun)
                count_parameters(case, fit, found[loss][method])
            count_consequences(case, fit, found[loss]["derived"])
        told(number + 1)
    medians = {
        loss: {method: float(np.median(values)) for method, values in by_method.items()}
        for loss, by_method in seconds.items()
    }
    return found, medians


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/fitting.md.")
@click.option("--pairs", type=click.IntRange(2), default=200, show_default=True)
def main(json_path: Path, docs: bool, pairs: int) -> None:
    """Count; about a second per pair, and half as many of each of the harder kinds."""

    def told(done: int) -> None:
        if done % 20 == 0:
            click.echo(f"{done} of {pairs} pairs")

    fit_pair(*(np.full(130, 50.0),) * 2, 20, intervals="profile")  # compiled before anything is timed
    found, seconds = study(pairs, told=told, first_seed=FIRST_SEED)
    harder = {
        kind: study(max(pairs // 2, 1), first_seed=FIRST_SEED, kind_of_pair=kind)[0]
        for kind in ("small", "new")
    }
    targets = []
    for loss, by_kind in found.items():
        for kind, tallies in by_kind.items():
            label = "" if kind == "derived" else f", {kind}"
            for name, tally in tallies.items():
                what = f"coverage of {name} ({loss}{label})"
                targets.append(target(what, tally.coverage, "", LOWEST, "at least"))
                targets.append(target(what, tally.coverage, "", HIGHEST, "at most"))
        targets.append(
            target(f"one pair, Wald intervals ({loss})", seconds[loss]["wald"], "s", 0.2, "at most")
        )
        targets.append(
            target(f"one pair, profile intervals ({loss})", seconds[loss]["profile"], "s", 1.0, "at most")
        )
    content = {
        "benchmark": "calibration",
        "machine": machine(),
        "versions": versions(),
        "pairs": pairs,
        "first_seed": FIRST_SEED,
        "level": 0.95,
        "targets": targets,
        "coverage": plain(found),
        "harder": {"pairs": max(pairs // 2, 1), **{kind: plain(study) for kind, study in harder.items()}},
    }
    json_path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    text = tables(found, harder, content)
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "fitting.md", "benchmarks/calibration.py", text)


def plain(found: Study) -> dict[str, Any]:
    """The tallies for the JSON."""
    return {
        loss: {
            kind: {name: tally.to_json() for name, tally in tallies.items()}
            for kind, tallies in by_kind.items()
        }
        for loss, by_kind in found.items()
    }


def harder_table(harder: dict[str, Study], pairs: int) -> str:
    """Coverage of the harder kinds of pair."""
    header, columns = ["coverage %"], []
    for kind, found in harder.items():
        for loss in found:
            for method in METHODS:
                header.append(f"{kind}, {loss}, {method}")
                columns.append(found[loss][method])
    rows = [[name, *(f"{100 * column[name].coverage:.0f}" for column in columns)] for name in PARAMETER_NAMES]
    after = [found[loss]["derived"] for found in harder.values() for loss in found for _ in METHODS]
    for name in (*DERIVED, *(f"forecast_{part}" for part in PARTS)):
        cells = [f"{100 * column[name].coverage:.0f}" for column in after]
        rows.append([name, *(cell if i % 2 == 0 else "" for i, cell in enumerate(cells))])
    text = (
        f'Harder pairs, {pairs} of each kind: "small" lesions of 250 to 3,000 voxels, and "new" ones that start '
        "in bin 0 as Y_t0 does. What follows from W has one interval, whatever the method:"
    )
    return f"{text}\n\n{rows_markdown(header, rows)}"


def tables(found: Study, harder: dict[str, Study], content: dict[str, Any]) -> str:
    """The Markdown of everything counted."""
    parts = [
        f"{content['pairs']} pairs of the voxel engine, 95 % intervals; chance alone moves a coverage of 95 % by "
        f"+- {196 * np.sqrt(0.95 * 0.05 / content['pairs']):.1f} percentage points.",
    ]
    header = ["parameter", "Wald %", "profile %", "unless whole range %", "open", "whole range", "at bound"]
    header += ["width Wald", "width profile"]
    for loss, by_kind in found.items():
        rows = []
        for name in PARAMETER_NAMES:
            wald, profile = by_kind["wald"][name], by_kind["profile"][name]
            closed = profile.closed_coverage
            rows.append(
                [
                    name,
                    f"{100 * wald.coverage:.1f}",
                    f"{100 * profile.coverage:.1f}",
                    "-" if np.isnan(closed) else f"{100 * closed:.1f}",
                    *(str(number) for number in (profile.open, profile.whole_range, profile.at_bound)),
                    *(f"{np.median(tally.widths):.3f}" for tally in (wald, profile)),
                ]
            )
        parts.append(
            f"`--loss {loss}`: coverage, then of the profile intervals how many are open at one end or both, how "
            "many are the whole range, how many estimates lie at a bound; median width over truth:"
        )
        parts.append(rows_markdown(header, rows))
    header = ["what follows from W"]
    for loss in found:
        header += [f"{loss} %", "truth below", "truth above", "median width / truth"]
    names = [*DERIVED, *(f"forecast_{part}" for part in PARTS)]
    rows = []
    for name in names:
        row = [name]
        for by_kind in found.values():
            tally = by_kind["derived"][name]
            width = f"{np.median(tally.widths):.3f}"
            row += [f"{100 * tally.coverage:.1f}", str(tally.truth_below), str(tally.truth_above), width]
        rows.append(row)
    parts.append(rows_markdown(header, rows))
    parts.append(harder_table(harder, content["harder"]["pairs"]))
    kept = [row for row in content["targets"] if not row["met"] or row["unit"] == "s"]
    parts.append("Times, and every coverage outside 90 to 99 %:")
    parts.append(markdown(kept, content["machine"]))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
