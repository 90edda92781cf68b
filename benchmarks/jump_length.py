"""What the jump length costs and changes: the evidence behind the default of `advance`.

Counts are exact for every jump length n (tests/simulator/dynamics); here the shape is compared with n = 1, over
several seeds, in 128^3 voxels, with the default dynamics:

- outline: annotated lesions played two days. Dice of occurrence maps (how often each voxel outside the lesions
  is infected over a group's runs; two maps compared by 2 sum min(a, b) / (sum a + sum b); the baseline is n = 1
  against n = 1 with other seeds), surface over volume, number of components;
- texture: small seeds played seven days, so that all texture is the engine's. Join share of consolidation, above
  0 and above -200 HU.

Differences from n = 1 are given in per cent and in standard deviations from seed to seed.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator, ScalarFormatter
from numpy.typing import NDArray

from benchmarks.dynamics_scan import SPACING_MM, Chest, make_chest
from simulator.dynamics.bins import N_BELOW
from simulator.dynamics.engine import LesionState, advance, start_state
from simulator.dynamics.parameters import TransitionParameters
from simulator.figure_style import FITTED_COLOUR, OBSERVED_COLOUR, TRUTH_COLOUR, new_figure, save_figure
from simulator.progression import DEFAULT_DYNAMICS, DEFAULT_JUMP, with_reference
from simulator.shape import count_components, join_share, surface_to_volume_per_mm

LENGTHS = (1, 2, 5, 10, 20, 50, 100)
GROUP = 16
BASELINE_GROUPS = 4
CLINICAL_BIN = 80
"""-200 HU at the usual window: signal 0.25."""

OUTLINE = {"surface_to_volume": "surface over volume, 1/mm", "components": "components"}
TEXTURE = {"join_above_0": "join share above 0", "join_clinical": "join share above -200 HU"}
MEASURES = OUTLINE | TEXTURE


@dataclass(frozen=True)
class Scenario:
    """Lesions to start from, how far they are played, and what is measured then."""

    infected: int
    seeds: bool
    transitions: int
    measures: dict[str, str]
    runs: int

    def chest(self) -> Chest:
        """The scan."""
        return make_chest(128, self.infected, 5, seed=11)

    def start(self, chest: Chest) -> LesionState:
        """The state before; seeds are at the recovery limit."""
        return start_state(
            chest.signal, chest.infection, chest.susceptible, SPACING_MM, recovery_limit=self.seeds
        )


SCENARIOS = (Scenario(20_000, False, 200, OUTLINE, GROUP), Scenario(3_000, True, 700, TEXTURE, GROUP // 2))


def study() -> dict[str, Any]:
    """Play every length in both scenarios; rows of the table and the baseline."""
    rows: list[dict[str, Any]] = [{"jump": n} for n in LENGTHS]
    result: dict[str, Any] = {"runs_per_length": GROUP, "rows": rows}
    for scenario in SCENARIOS:
        chest = scenario.chest()
        w = with_reference(DEFAULT_DYNAMICS, scenario.start(chest))
        baseline = [_group(scenario, chest, w, 1, 1000 * k) for k in range(BASELINE_GROUPS)]
        pooled = {name: np.concatenate([group[name] for group in baseline]) for name in scenario.measures}
        for row in rows:
            # n = 1 gets seeds of its own too, so that its row shows what no difference looks like
            group = _group(scenario, chest, w, row["jump"], 100_000 + 1000 * row["jump"])
            if not scenario.seeds:
                row["milliseconds"] = float(np.median(group["seconds"])) * 1000
                row["dice"] = float(np.mean([_dice(group["map"], other["map"]) for other in baseline]))
                row["infected"] = float(np.mean(group["infected"]))
            for name in scenario.measures:
                mean, spread = float(np.mean(pooled[name])), float(np.std(pooled[name], ddof=1))
                difference = float(np.mean(group[name])) - mean
                row[name] = float(np.mean(group[name]))
                row[f"{name}_percent"] = 100 * difference / mean
                row[f"{name}_spreads"] = difference / spread
        if not scenario.seeds:
            dice = [_dice(a["map"], b["map"]) for a, b in itertools.combinations(baseline, 2)]
            result["baseline_dice"] = [float(np.mean(dice)), float(np.min(dice)), float(np.max(dice))]
            result["infected_before"] = int(chest.infection.sum())
    return result


def _group(
    scenario: Scenario, chest: Chest, w: TransitionParameters, jump: int, first_seed: int
) -> dict[str, Any]:
    occurrence = np.zeros(chest.signal.shape, np.float32)
    values: dict[str, list[float]] = {name: [] for name in (*MEASURES, "seconds", "infected")}
    for seed in range(first_seed, first_seed + scenario.runs):
        state = scenario.start(chest)
        begun = time.perf_counter()
        advance(state, w, scenario.transitions, jump=jump, seed=seed)
        values["seconds"].append(time.perf_counter() - begun)
        mask = state.mask()
        bins = np.full(mask.size, -1, np.int16)
        bins[state.index] = state.bin
        volume = bins.reshape(mask.shape)
        values["infected"].append(float(state.n))
        values["surface_to_volume"].append(surface_to_volume_per_mm(mask, SPACING_MM))
        values["components"].append(float(count_components(mask, SPACING_MM)))
        values["join_above_0"].append(join_share(volume >= N_BELOW, mask))
        values["join_clinical"].append(join_share(volume >= CLINICAL_BIN, mask))
        occurrence += mask & ~chest.infection
    return {"map": occurrence / scenario.runs, **{name: np.array(found) for name, found in values.items()}}


def _dice(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(
        2 * np.minimum(a, b).sum(dtype=np.float64) / (a.sum(dtype=np.float64) + b.sum(dtype=np.float64))
    )


def table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows for Markdown."""
    header = ["jump", "ms for 200 transitions", "Dice of occurrence", *MEASURES.values()]
    rows = []
    for row in result["rows"]:
        cells = [
            f"{row[name]:.3g} ({row[f'{name}_percent']:+.1f} %, {row[f'{name}_spreads']:+.1f} SD)"
            for name in MEASURES
        ]
        rows.append([str(row["jump"]), f"{row['milliseconds']:.0f}", f"{row['dice']:.3f}", *cells])
    return header, rows


def draw(result: dict[str, Any], path: Path) -> None:
    """Speed, occurrence and shape against the jump length."""
    figure, axes = new_figure(10.5, 3.4, 1, 3)
    jumps = [row["jump"] for row in result["rows"]]
    time_axis, dice_axis, shape_axis = axes[0]
    time_axis.plot(jumps, [row["milliseconds"] for row in result["rows"]], "o-", color=OBSERVED_COLOUR)
    time_axis.set_yscale("log")
    time_axis.set_ylabel("ms for 200 transitions")
    time_axis.yaxis.set_major_formatter(ScalarFormatter())
    time_axis.yaxis.set_minor_formatter(ScalarFormatter())
    _, low, high = result["baseline_dice"]
    dice_axis.axhspan(low, high, color=TRUTH_COLOUR, alpha=0.25, label="n = 1 against n = 1")
    dice_axis.plot(jumps, [row["dice"] for row in result["rows"]], "o-", color=OBSERVED_COLOUR)
    dice_axis.set_ylabel("Dice of occurrence maps with n = 1")
    dice_axis.set_ylim(min(0.8 * low, 0.95 * min(row["dice"] for row in result["rows"])), 1)
    dice_axis.legend(frameon=False)
    colours = (OBSERVED_COLOUR, "#CC79A7", TRUTH_COLOUR, FITTED_COLOUR)
    for (name, label), colour in zip(MEASURES.items(), colours, strict=True):
        shape_axis.plot(
            jumps, [row[f"{name}_spreads"] for row in result["rows"]], "o-", color=colour, label=label
        )
    shape_axis.axhline(0, color="black", linewidth=0.8)
    shape_axis.axhspan(-1, 1, color="#999999", alpha=0.2)
    shape_axis.set_ylabel("difference from n = 1, SD between seeds")
    shape_axis.legend(frameon=False, fontsize=8)
    for axis in axes[0]:
        axis.set_xscale("log")
        axis.set_xticks(jumps, [str(n) for n in jumps])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.axvline(DEFAULT_JUMP, color="#999999", linestyle=":", linewidth=1)
        axis.set_xlabel("jump length n, transitions (dotted: default)")
    save_figure(figure, path)
