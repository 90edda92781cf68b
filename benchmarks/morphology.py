"""What lesions look like: texture against observed ones, and what every morphology control does.

    python benchmarks/morphology.py --json morphology.json [--docs]

Texture is judged on phantom lesions made by random fields that share nothing with the dynamics (`--lesions
fields`): each pair of scans is fitted, the first is played on to the day of the second, and the two are compared
inside their lesions. The controls are turned one by one on a lesion that the engine grew by itself. Some four
minutes on one core. `--docs` puts tables and pictures into docs/dynamics.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import into_docs, machine, markdown, rows_markdown, target, versions  # noqa: E402
from benchmarks.morphology_figures import controls_figure, spectra_figure  # noqa: E402
from simulator.dynamics.chain import propagate_covariance  # noqa: E402
from simulator.dynamics.engine import Controls, LesionState, advance, start_state  # noqa: E402
from simulator.dynamics.fit import fit_pair  # noqa: E402
from simulator.dynamics.parameters import TransitionParameters  # noqa: E402
from simulator.figure_style import save_figure  # noqa: E402
from simulator.phantom.cohort import make_cohort  # noqa: E402
from simulator.progression import CONSOLIDATION_HU, DEFAULT_DYNAMICS, start, with_reference  # noqa: E402
from simulator.series import observe, transitions_between  # noqa: E402
from simulator.shape import (  # noqa: E402
    count_components,
    join_share,
    nearest_distance_mm,
    surface_to_volume_per_mm,
)
from simulator.texture import (  # noqa: E402
    Spectrum,
    log_spectrum_error,
    neighbour_correlation,
    radial_spectrum,
    shuffled,
)
from standard_space.cohort import Cohort  # noqa: E402
from standard_space.grid import StandardGrid  # noqa: E402
from standard_space.ingest import EmbedSettings, embed_cohort, prepare_cohort  # noqa: E402
from standard_space.scan import Scan  # noqa: E402

GRID, PATIENTS, SCANS, SEED = 256, 3, 3, 5
SPACING_MM = (1.0, 334 / 512, 334 / 512)
OFF = Controls(2.0, 0.0, 0.0, 0.0)
CUT = (CONSOLIDATION_HU + 600.0) / 1600.0  # at the usual window
RUNS, TRANSITIONS = 4, 900
SETTINGS = {
    "default": Controls(),
    "gamma 0": Controls(gamma=0.0),
    "gamma 6": Controls(gamma=6.0),
    "seeded_share 0.002": Controls(seeded_share=0.002),
    "consolidation_clustering 0": Controls(consolidation_clustering=0.0),
    "consolidation_clustering 1": Controls(consolidation_clustering=1.0),
    "correlation_mm 3": Controls(correlation_mm=3.0),
    "correlation_mm 12": Controls(correlation_mm=12.0),
    "texture off (clustering 0, correlation_mm 0)": OFF,
}


@dataclass(frozen=True)
class PairTexture:
    """Texture of one observed lesion beside a simulated one and its own voxels shuffled."""

    name: str
    ratio: float
    spectra: tuple[Spectrum, Spectrum, Spectrum]
    correlations: tuple[float, float, float]
    joins: tuple[float, float, float]


def cohort_of_fields(folder: Path) -> Cohort:
    """Phantom patients with lesions from random fields, embedded."""
    make_cohort(folder / "data", patients=PATIENTS, scans=SCANS, grid=GRID, seed=SEED, lesions="fields")
    settings = EmbedSettings(StandardGrid(GRID))
    prepare_cohort(folder / "data" / "manifest.csv", folder / "cohort", settings)
    outcome = embed_cohort(folder / "data" / "manifest.csv", folder / "cohort", settings)
    if outcome.failures:
        raise click.ClickException(str(outcome.failures))
    return Cohort.open(folder / "cohort")


def pairs_of(cohort: Cohort) -> Iterator[tuple[Scan, Scan]]:
    """Adjacent annotated scans."""
    for entries in cohort.by_patient().values():
        scans = [cohort.read(entry) for entry in entries]
        yield from pairwise(scans)


def join_at_cut(signal: NDArray[np.float32], lesion: NDArray[np.bool_], cut: float) -> float:
    """Share of consolidation edges that join consolidation, at the clinical cut."""
    return join_share((signal >= cut) & lesion, lesion)


def compare_texture(first: Scan, second: Scan) -> PairTexture:
    """Play the first scan on to the day of the second, by their fit, and compare."""
    if first.infection is None or second.infection is None:
        raise click.ClickException(f"{second.name} is not annotated")
    transitions = transitions_between(first.day, second.day)
    fit = fit_pair(observe(first).counts, observe(second).counts, transitions)
    state = advance(start(first), fit.parameters, transitions, seed=1)
    noise = shuffled(second.signal, second.infection)
    spacing_mm = second.grid.spacing_mm
    cut = second.window.signal_of(CONSOLIDATION_HU)
    shown = (
        (second.signal, second.infection),
        (state.signal_volume(), state.mask()),
        (noise, second.infection),
    )
    observed, simulated, independent = (radial_spectrum(s, m, spacing_mm) for s, m in shown)
    correlations = [float(np.mean(neighbour_correlation(s, m))) for s, m in shown]
    joins = [join_at_cut(s, m, cut) for s, m in shown]
    return PairTexture(
        f"{second.patient} {first.scan}>{second.scan}",
        log_spectrum_error(simulated, observed) / log_spectrum_error(independent, observed),
        (observed, simulated, independent),
        (correlations[0], correlations[1], correlations[2]),
        (joins[0], joins[1], joins[2]),
    )


def small_lung() -> tuple[NDArray[np.float32], NDArray[np.bool_], LesionState, TransitionParameters]:
    """A ball of lung at the spacing of 512^3 with vessels and an airway, a Y_t0 in it, and a W that ends with
    two fifths of the lesion above the clinical cut; signal and tissue first."""
    shape = (76, 116, 116)
    z, y, x = (np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) / 2) * np.reshape(
        SPACING_MM, (3, 1, 1, 1)
    )
    lung = z**2 + y**2 + x**2 < 36.0**2
    lung &= (y - 0.3 * z) ** 2 + (x - 4.0) ** 2 > 2.0**2  # an airway
    lung &= (z + 0.2 * x) ** 2 + (y + 6.0) ** 2 > 1.2**2  # a vessel
    lesion = lung & (z**2 + y**2 + x**2 < 16.0**2)
    rng = np.random.default_rng(0)
    tenth = lesion & (rng.random(shape) < 0.1)
    signal = rng.normal(-0.2, 0.02, shape).astype(np.float32)
    state = start_state(signal, tenth, lung, SPACING_MM, recovery_limit=True)
    w = TransitionParameters(0.005, 0.5, 0.101, 0.08, 0.85, 0.004, 0.85, 0.18, 0.4 * float(lesion.sum()))
    return signal, lung, state, w


@dataclass(frozen=True)
class ControlResult:
    """What one setting of the controls gave, means over the runs."""

    distance_mm: float
    components: float
    surface_per_mm: float
    correlation: float
    join: float
    dense_share: float
    z_total: float
    z_above: float
    outside: int
    slice_signal: NDArray[np.float32]
    slice_mask: NDArray[np.bool_]


def try_controls(controls: Controls) -> ControlResult:
    """Grow the same lesion several times under one setting."""
    _, open_tissue, origin, w = small_lung()
    mean, v = propagate_covariance(origin.counts(), w, TRANSITIONS)
    first = origin.mask()
    found, counts, outside = [], [], 0
    for seed in range(RUNS):
        state = advance(origin.copy(), w, TRANSITIONS, seed=seed, controls=controls)
        mask, signal = state.mask(), state.signal_volume()
        dense = (signal >= CUT) & mask
        counts.append(state.counts())
        outside += int((mask & ~open_tissue).sum())
        found.append(
            (
                float(np.percentile(nearest_distance_mm(mask & ~first, first, SPACING_MM), 95)),
                count_components(mask, SPACING_MM),
                surface_to_volume_per_mm(mask, SPACING_MM),
                float(np.mean(neighbour_correlation(signal, mask))),
                join_share(dense, mask),
                float(dense.sum() / mask.sum()),
            )
        )
        if seed == 0:
            middle = state.shape[0] // 2
            picture = signal[middle].copy(), mask[middle].copy()
    difference = np.mean(counts, axis=0) - mean
    z_total = difference.sum() / np.sqrt(v.sum() / RUNS)
    z_above = difference[30:].sum() / np.sqrt(v[30:, 30:].sum() / RUNS)
    means = [float(value) for value in np.mean(found, axis=0)]
    return ControlResult(*means, float(z_total), float(z_above), outside, *picture)


def join_of_seeds() -> tuple[float, float]:
    """Join share, and what random places would give, of seeds grown for a week by the default dynamics."""
    scan, tissue, _, _ = small_lung()
    z, y, x = np.indices(tissue.shape) * np.reshape(SPACING_MM, (3, 1, 1, 1))
    seeds = np.zeros_like(tissue)
    for at in ((20.0, 30.0, 25.0), (38.0, 52.0, 48.0), (50.0, 25.0, 50.0)):
        seeds |= (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < 4.0**2
    found = []
    for seed in range(RUNS):
        state = start_state(scan, seeds & tissue, tissue, SPACING_MM, recovery_limit=True)
        advance(state, with_reference(DEFAULT_DYNAMICS, state), 700, seed=seed)
        signal, mask = state.signal_volume(), state.mask()
        dense = (signal >= CUT) & mask
        share = dense.sum() / mask.sum()
        found.append((join_share(dense, mask), share / (2.0 - share)))
    join, random = np.mean(found, axis=0)
    return float(join), float(random)


def texture_rows(pairs: list[PairTexture]) -> str:
    """One row for each pair: observed / simulated / independent."""
    rows = [
        [
            pair.name,
            f"{pair.ratio:.3f}",
            " / ".join(f"{value:.2f}" for value in pair.correlations),
            " / ".join(f"{value:.2f}" for value in pair.joins),
        ]
        for pair in pairs
    ]
    return rows_markdown(
        [
            "pair", "log-spectrum error, of that of independent noise",
            "neighbour correlation: observed / simulated / noise", "join share: observed / simulated / noise",
        ],
        rows,
    )  # fmt: skip


def control_rows(results: dict[str, ControlResult]) -> str:
    """One row for each setting."""
    rows = [
        [
            name, f"{r.distance_mm:.1f}", f"{r.components:.0f}", f"{r.surface_per_mm:.2f}", f"{r.correlation:.2f}",
            f"{r.dense_share:.2f}", f"{r.join:.2f}", f"{r.z_total:+.1f}", f"{r.z_above:+.1f}",
        ]
        for name, r in results.items()
    ]  # fmt: skip
    return rows_markdown(
        [
            "control", "new voxels from the first lesion, 95 %, mm", "components", "surface / volume, 1/mm",
            "neighbour correlation", "consolidation, share", "join share", "total against the chain, s.e.",
            "above 0 against the chain, s.e.",
        ],
        rows,
    )  # fmt: skip


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/dynamics.md and its pictures.")
def main(json_path: Path, docs: bool) -> None:
    """Measure texture and controls."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = [compare_texture(*pair) for pair in pairs_of(cohort_of_fields(Path(folder)))]
    results = {name: try_controls(controls) for name, controls in SETTINGS.items()}
    default = results["default"]
    seeds_join, seeds_random = join_of_seeds()
    random_join = default.dense_share / (2.0 - default.dense_share)
    targets = [
        target(
            "log-spectrum error, median of pairs, as a share of that of independent noise",
            float(np.median([pair.ratio for pair in pairs])), "", 0.25, "at most",
        ),
        target(
            "the same, worst pair", max(pair.ratio for pair in pairs), "", 0.25, "at most",
        ),
        target(
            "join share of consolidation at -200 HU, W below, default controls (peer: placed at random)",
            default.join, "", 0.85, "at least", peer=random_join,
        ),
        target(
            "the same, seeds grown for a week by the default dynamics",
            seeds_join, "", 0.85, "at least", peer=seeds_random,
        ),
        target(
            "largest deviation from the chain of totals and of voxels above 0, all controls",
            max(max(abs(r.z_total), abs(r.z_above)) for r in results.values()), "s.e.", 3.0, "at most",
        ),
        target(
            "voxels infected outside susceptible tissue", sum(r.outside for r in results.values()), "", 0,
            "at most",
        ),
    ]  # fmt: skip
    measured_on = machine()
    report = {
        "machine": measured_on,
        "versions": versions(),
        "targets": targets,
        "pairs": [
            {"name": p.name, "ratio": p.ratio, "correlations": p.correlations, "joins": p.joins}
            for p in pairs
        ],
        "controls": {
            name: {key: value for key, value in vars(r).items() if not isinstance(value, np.ndarray)}
            for name, r in results.items()
        },
    }
    json_path.write_text(json.dumps(report, indent=1, allow_nan=False))
    text = "\n\n".join([markdown(targets, measured_on), texture_rows(pairs), control_rows(results)])
    click.echo(text)
    if docs:
        page = ROOT / "docs" / "dynamics.md"
        into_docs(page, "benchmarks/morphology.py", text)
        save_figure(spectra_figure([pair.spectra for pair in pairs]), ROOT / "docs" / "texture.png")
        pictures = {name: (r.slice_signal, r.slice_mask) for name, r in results.items()}
        save_figure(controls_figure(pictures, CUT), ROOT / "docs" / "controls.png")


if __name__ == "__main__":
    main()
