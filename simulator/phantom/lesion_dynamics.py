"""Lesions grown by this project's own model, for parameter recovery (DESIGN 3 and 4).

On a raster with the standard grid's voxels, seeds lie three days before the first scan: scattered voxels, a tenth
of subpleural, mostly basal and posterior patches. Eight hidden parameters W per interval drive the voxel engine
from scan to scan, 100 transitions a day. truth.json holds every W and the histogram at every scan.

The prior. Shapes of the signal distribution are drawn as heights of its two equilibria, from which the growth
rates follow (DESIGN 3: -0.15 + kappa ln(g / a) below 0, kappa ln(c / a) above); the birth rate is then solved so
that the chain's mean reaches a drawn volume. An interval late in the course may be one of recovery, in which
absorption outweighs growth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from simulator.dynamics.bins import N_BELOW, SIGNAL_MIN
from simulator.dynamics.chain import propagate
from simulator.dynamics.engine import Controls, LesionState, advance, start_state
from simulator.dynamics.parameters import TransitionParameters
from simulator.phantom.draws import stream
from simulator.phantom.lesion import LesionMap, LesionMoment
from simulator.phantom.patient import Patient, frame_of_raster, render, tree_coverage
from simulator.phantom.raster import Raster, lung_distances
from standard_space.grid import StandardGrid
from standard_space.window import Window

TRANSITIONS_PER_DAY = 100
LEAD_DAYS = 3.0
SEEDED_SHARE = 0.10
FIRST_MEDIAN_ML, FIRST_LOG_SPREAD = 46.0, 0.75


@dataclass(frozen=True)
class Interval:
    """One interval's hidden plan; the birth rate follows from the volume it aims at."""

    growth: float  # volume at its end over volume at its start (the first interval starts from seeds)
    recovery: bool
    linked_share: float
    entry_signal: float
    absorption_rate: float
    ggo_height: float  # equilibrium above -0.15
    conversion_probability: float
    solid_height: float  # equilibrium above 0
    stiffness: float


@dataclass(frozen=True)
class DynamicLesion:
    """The hidden plan of one patient's lesion."""

    first_ml: float
    foci: int
    patch_depth_mm: float
    basal: float
    posterior: float
    gamma: float
    correlation_mm: float
    clustering: float
    intervals: tuple[Interval, ...]


def draw_lesion(rng: np.random.Generator, scans: int) -> DynamicLesion:
    """Draw one patient's plan; the prior of the module's docstring."""
    stiffness, absorption = rng.uniform(0.12, 0.17), rng.uniform(0.055, 0.09)
    ggo, solid = rng.uniform(0.14, 0.185), rng.uniform(0.30, 0.55)
    conversion, entry, linked = rng.uniform(0.45, 0.85), rng.uniform(0.06, 0.11), rng.uniform(0.1, 0.7)
    intervals = []
    for number in range(scans):
        recovery = bool(number >= 2 and number == scans - 1 and rng.random() < 0.15)
        vary = np.exp(rng.normal(0.0, 0.06, 6)) if number else np.ones(6)
        intervals.append(
            Interval(
                growth=float(np.exp(np.clip(rng.normal(0.40, 0.28), 0.03, 1.1))),
                recovery=recovery,
                linked_share=float(np.clip(linked * vary[0], 0.0, 1.0)),
                entry_signal=float(entry * vary[1]),
                absorption_rate=float(absorption * vary[2] * (1.6 if recovery else 1.0)),
                # The days before the first scan are the steepest of the course.
                ggo_height=float(
                    ggo * vary[3] * (-0.4 if recovery else 1.0) + (0.05 if number == 0 else 0.0)
                ),
                conversion_probability=float(conversion * vary[4] * (0.15 if recovery else 1.0)),
                solid_height=float(solid * vary[5] * (0.25 if recovery else 1.0)),
                stiffness=float(stiffness),
            )
        )
    return DynamicLesion(
        first_ml=float(
            np.clip(FIRST_MEDIAN_ML * np.exp(FIRST_LOG_SPREAD * rng.standard_normal()), 9.0, 260.0)
        ),
        foci=int(rng.integers(10, 26)),
        patch_depth_mm=float(rng.uniform(7.0, 11.0)),
        basal=float(rng.uniform(0.5, 2.0)),
        posterior=float(rng.uniform(0.5, 2.0)),
        gamma=float(rng.uniform(1.2, 2.4)),
        correlation_mm=float(rng.uniform(12.0, 20.0)),
        clustering=float(rng.uniform(0.7, 1.0)),
        intervals=tuple(intervals),
    )


def parameters_of(interval: Interval, birth_rate: float, reference: float) -> TransitionParameters:
    """W of an interval's plan; growth rates from the equilibria, within the model's constraints."""
    a, kappa = interval.absorption_rate, interval.stiffness
    most = 0.97 - a
    return TransitionParameters(
        birth_rate=birth_rate,
        linked_share=interval.linked_share,
        entry_signal=interval.entry_signal,
        absorption_rate=a,
        ggo_growth_rate=float(min(most, a * np.exp(interval.ggo_height / kappa))),
        conversion_probability=min(most, interval.conversion_probability),
        consolidation_growth_rate=float(min(most, a * np.exp(interval.solid_height / kappa))),
        stiffness=kappa,
        reference_ggo_voxels=reference,
    )


def solve_births(
    interval: Interval, counts: NDArray[np.float64], transitions: int, target: float
) -> TransitionParameters:
    """W whose chain leads from `counts` to about `target` infected voxels; G_ref is consistent with it."""
    below = float(counts[:N_BELOW].sum())
    reference = max(1.0, below)
    chosen = parameters_of(interval, 1e-7, reference)
    for _ in range(4):
        low, high = 1e-7, 0.5
        for _ in range(40):
            rate = float(np.sqrt(low * high))
            chosen = parameters_of(interval, rate, reference)
            if propagate(counts, chosen, transitions).sum() < target:
                low = rate
            else:
                high = rate
        after = float(propagate(counts, chosen, transitions)[:N_BELOW].sum())
        reference = max(1.0, 0.5 * (below + after))
    # The last reference is the one W is stated with; births per transition stay those that were solved for.
    scale = chosen.reference_ggo_voxels / reference
    return parameters_of(interval, chosen.birth_rate * scale, reference)


class DynamicLesionSource:
    """One patient's lesion over time, moved by the voxel engine on a raster of the standard grid's voxels."""

    def __init__(self, patient: Patient, grid: int, scans: int) -> None:
        self.patient, self.grid = patient, StandardGrid(grid)
        self._rng = stream(patient.seed, patient.index, 0, "dynamic lesion")
        self.plan = draw_lesion(self._rng, scans)
        scanner = patient.protocol.scanner
        self.window = Window(scanner.level_hu, scanner.width_hu, "manifest")
        self.raster = Raster.over_lungs(patient.shape, self.grid.spacing_mm)
        self.controls = Controls(
            gamma=self.plan.gamma,
            correlation_mm=self.plan.correlation_mm,
            consolidation_clustering=self.plan.clustering,
        )

    def truth(self) -> dict[str, Any]:
        """Hidden parameters of the patient's lesion."""
        return {**asdict(self.plan), "raster_step_mm_zyx": self.raster.step_mm, "lead_days": LEAD_DAYS}

    def _start(self) -> LesionState:
        patient, raster = self.patient, self.raster
        frame = frame_of_raster(raster)
        hu, lungs, _ = render(patient, frame, None)
        susceptible = lungs & (tree_coverage(patient, frame) < 128)
        seeds = self._seeds(susceptible)
        return start_state(self.window.to_signal(hu), seeds, susceptible, raster.step_mm, recovery_limit=True)

    def _seeds(self, susceptible: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Scattered voxels of several subpleural patches, as many as a tenth of the first scan's lesion."""
        plan, raster, rng = self.plan, self.raster, self._rng
        _, outer = lung_distances(self.patient.shape, raster)
        z, y, x = raster.axes()
        preference = plan.basal * (1.0 - 2.0 * z / self.patient.shape.apex_z)
        preference = preference + plan.posterior * y / self.patient.shape.posterior
        centres_allowed = np.flatnonzero(susceptible & (outer > -7.0))
        weight = np.exp(np.broadcast_to(preference, raster.shape).ravel()[centres_allowed].astype(float))
        chosen = rng.choice(centres_allowed, plan.foci, p=weight / weight.sum())
        sizes = rng.lognormal(0.0, 1.0, plan.foci)
        # Patches are sheets along the pleura, which together hold about the first scan's lesion.
        sheet = np.pi * 0.8 * plan.patch_depth_mm
        radii = np.sqrt(0.9 * plan.first_ml * 1000.0 * sizes / sizes.sum() / sheet)
        patch = np.zeros(raster.shape, bool)
        for flat, radius in zip(chosen, radii, strict=True):
            k, j, i = (int(v) for v in np.unravel_index(flat, raster.shape))
            near = (z - z[k, 0, 0]) ** 2 + (y - y[0, j, 0]) ** 2 + (x - x[0, 0, i]) ** 2
            patch |= near < max(radius, 0.6 * raster.step_mm[0]) ** 2
        patch &= susceptible & (outer > -plan.patch_depth_mm)
        places = np.flatnonzero(patch)
        wanted = max(3, round(SEEDED_SHARE * plan.first_ml / raster.voxel_ml))
        seeds = np.zeros(raster.shape, bool)
        seeds.ravel()[rng.choice(places, min(wanted, places.size), replace=False)] = True
        return seeds

    def over(self, days: list[float]) -> Iterator[LesionMoment]:
        """The lesion on each day after the first scan, in order."""
        state = self._start()
        volumes = self._planned_ml()
        for number, interval in enumerate(self.plan.intervals):
            length = LEAD_DAYS if number == 0 else days[number] - days[number - 1]
            transitions = round(TRANSITIONS_PER_DAY * length)
            before = state.counts()
            w = solve_births(interval, before, transitions, volumes[number] / self.raster.voxel_ml)
            # One seed for the whole course: the persistent random field must not change from scan to scan.
            state = advance(state, w, transitions, seed=self._engine_seed(), controls=self.controls)
            truth = {
                "transitions": transitions,
                "w": w.to_json(),
                "counts_before": before.astype(int),
                "counts": state.counts().astype(int),
                "infected_voxels_on_raster": int(state.counts().sum()),
                "volume_ml_on_raster": float(state.counts().sum() * self.raster.voxel_ml),
                "engine_notes": state.report.notes(),
            }
            yield LesionMoment(self._map(state), self._stage(volumes, number), truth)

    def _engine_seed(self) -> int:
        return self.patient.seed * 1009 + self.patient.index

    def _planned_ml(self) -> list[float]:
        volumes = [self.plan.first_ml]
        lungs_ml = float((self.patient.inner_mm < 0).sum()) * self.patient.raster.voxel_ml
        for interval in self.plan.intervals[1:]:
            volumes.append(min(volumes[-1] * (1.0 if interval.recovery else interval.growth), 0.3 * lungs_ml))
        return volumes

    def _stage(self, volumes: list[float], number: int) -> str:
        if self.plan.intervals[number].recovery:
            return "recovery"
        share = volumes[number] / max(volumes)
        return "early" if share < 0.5 else "progressive" if share < 0.95 else "peak"

    def _map(self, state: LesionState) -> LesionMap:
        """The state as a smooth map of the same volume: single voxels would show the raster's steps."""
        mask = state.mask()
        share = gaussian_filter(mask.astype(np.float32), 0.6, truncate=2.5)
        count = int(mask.sum())
        candidates = share[share > 0.02]
        edge = np.partition(candidates, candidates.size - count)[candidates.size - count]
        step = float(np.mean(self.raster.step_mm))
        extent = (share - edge) * np.float32(step)
        hu = self.window.to_hu(state.signal_volume())
        hu[~mask] = 0.0
        weight = mask.astype(np.float32)
        for sigma in (0.8, 1.6):
            # Beyond the edge the density of the nearest lesion holds.
            spread = gaussian_filter(weight, sigma, truncate=2.5)
            value = gaussian_filter(hu * weight, sigma, truncate=2.5)
            fill = (weight < 0.5) & (spread > 1e-3)
            hu[fill] = value[fill] / spread[fill]
            weight[fill] = 1.0
        hu[weight < 0.5] = self.window.to_hu(np.array([SIGNAL_MIN], np.float32))[0]
        return LesionMap(self.raster, extent, hu, step)
