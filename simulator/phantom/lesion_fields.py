"""Lesions as level sets of correlated random fields, with a growth law of their own.

Nothing here is shared with the dynamics package: it is the honest test set. The lesion's volume follows a
rise, peak and decay over the days since onset; at any time it is the part of the lungs where a score is highest.
The score sums random fields of several scales, which drift slowly, and a preference for the subpleural, basal
and posterior lung. Density comes from a second field: its ranks within the lesion are mapped to the HU mixture
of COVID-19 lungs (Zaffino et al., Bioengineering 2021), so consolidation sits in coherent cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from simulator.phantom.draws import stream
from simulator.phantom.lesion import LesionMap, LesionMoment
from simulator.phantom.raster import Raster, random_field

GGO_HU, MIXED_HU, SOLID_HU = (-650.0, 85.0), (-340.0, 130.0), (-15.0, 55.0)
"""Mean and spread of the three modes inside a lesion; vessels and noise widen them in the image."""
MEDIAN_PEAK_ML, LOG_SPREAD = 100.0, 0.76
MAX_LUNG_SHARE = 0.45


@dataclass(frozen=True)
class FieldLesion:
    """The hidden parameters of one patient's lesion."""

    onset_days: float  # days from onset to the first scan
    peak_days: float  # days from onset to the largest extent
    rise_power: float
    decay: float  # how fast it resolves after the peak, per peak time
    peak_ml: float
    peak_solid_share: float  # share of consolidation at its own peak
    mixed_share: float  # share of the intermediate mode
    solid_delay: float  # consolidation peaks this much later, as a share of the peak time
    solid_width: float
    coarse_mm: float
    fine_mm: float
    fine_weight: float
    subpleural: float
    basal: float
    posterior: float
    side: float
    drift_per_day: float


def draw_lesion(rng: np.random.Generator) -> FieldLesion:
    """Draw one patient's lesion."""
    return FieldLesion(
        onset_days=float(rng.uniform(2.0, 6.5)),
        peak_days=float(rng.uniform(9.0, 14.0)),
        rise_power=float(rng.uniform(1.3, 2.4)),
        decay=float(rng.uniform(0.5, 1.1)),
        peak_ml=float(np.clip(MEDIAN_PEAK_ML * np.exp(LOG_SPREAD * rng.standard_normal()), 14.0, 620.0)),
        peak_solid_share=float(np.clip(rng.beta(1.1, 1.7), 0.01, 0.92)),
        mixed_share=float(rng.uniform(0.12, 0.30)),
        solid_delay=float(rng.uniform(0.0, 0.25)),
        solid_width=float(rng.uniform(0.55, 0.95)),
        coarse_mm=float(rng.uniform(13.0, 22.0)),
        fine_mm=float(rng.uniform(4.5, 6.5)),
        fine_weight=float(rng.uniform(0.15, 0.45)),
        subpleural=float(rng.uniform(0.9, 1.8)),
        basal=float(rng.uniform(0.2, 1.0)),
        posterior=float(rng.uniform(0.2, 0.9)),
        side=float(rng.normal(0.0, 0.25)),
        drift_per_day=float(rng.uniform(0.02, 0.05)),
    )


def volume_ml(lesion: FieldLesion, day: float) -> float:
    """Extent on a day after the first scan: a power-law rise to the peak, an exponential decay after it."""
    age = (lesion.onset_days + day) / lesion.peak_days
    if age < 1.0:
        # Flat at the top: the rate of growth falls to zero at the peak.
        share = age**lesion.rise_power * (1.0 + lesion.rise_power * (1.0 - age))
    else:
        share = float(np.exp(-lesion.decay * (age - 1.0) ** 2 / (0.3 + 0.7 * (age - 1.0))))
    return lesion.peak_ml * share


def solid_share(lesion: FieldLesion, day: float) -> float:
    """Share of the lesion that is consolidation: starts later than the lesion and resolves sooner."""
    age = (lesion.onset_days + day) / lesion.peak_days - (1.0 + lesion.solid_delay)
    return lesion.peak_solid_share * float(np.exp(-((age / lesion.solid_width) ** 2)))


def stage_of(lesion: FieldLesion, day: float) -> str:
    """The clinical stage by the time since onset."""
    age = (lesion.onset_days + day) / lesion.peak_days
    return "early" if age < 0.45 else "progressive" if age < 0.85 else "peak" if age < 1.2 else "recovery"


class Reach(Protocol):
    """How far the lungs reach in the inner frame, mm: up from 0, and back from 0."""

    @property
    def apex_z(self) -> float: ...
    @property
    def posterior(self) -> float: ...


class Chest(Protocol):
    """What a lesion needs of a patient: a `Patient`, or real lungs (`simulator.phantom.paint`)."""

    @property
    def seed(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def shape(self) -> Reach: ...
    @property
    def raster(self) -> Raster: ...
    @property
    def inner_mm(self) -> NDArray[np.float32]: ...
    @property
    def outer_mm(self) -> NDArray[np.float32]: ...
    @property
    def texture(self) -> NDArray[np.float32]: ...


class FieldLesionSource:
    """One patient's lesion over time."""

    def __init__(self, patient: Chest) -> None:
        rng = stream(patient.seed, patient.index, 0, "field lesion")
        self.lesion = draw_lesion(rng)
        self.patient = patient
        raster, lesion = patient.raster, self.lesion
        scale = np.sqrt(1.0 + lesion.fine_weight**2 + 0.12**2)
        self._phases = [
            (random_field(rng, raster, lesion.coarse_mm)
             + np.float32(lesion.fine_weight) * random_field(rng, raster, lesion.fine_mm)
             + np.float32(0.12) * random_field(rng, raster, 2.6)) / np.float32(scale)
            for _ in range(2)
        ]  # fmt: skip
        self._solid = 0.97 * random_field(rng, raster, 8.0) + 0.12 * random_field(rng, raster, 3.0)
        self._mottle = random_field(rng, raster, 2.2)
        self._inside = patient.inner_mm < -0.5
        self._prior = self._preference()

    def _preference(self) -> NDArray[np.float32]:
        patient, lesion = self.patient, self.lesion
        z, y, x = patient.raster.axes()
        depth = np.maximum(-patient.outer_mm, 0.0)
        prior = lesion.subpleural * np.exp(-depth / 14.0)
        prior = prior + lesion.basal * np.clip(1.0 - z / (0.7 * patient.shape.apex_z), -0.4, 1.0)
        prior += lesion.posterior * np.clip(y / patient.shape.posterior, -1.0, 1.0)
        prior += lesion.side * np.sign(x)
        return np.asarray(prior, np.float32)

    def _score(self, day: float) -> NDArray[np.float32]:
        angle = self.lesion.drift_per_day * day
        field = np.float32(np.cos(angle)) * self._phases[0] + np.float32(np.sin(angle)) * self._phases[1]
        return np.asarray(1.35 * field + self._prior, np.float32)

    def at(self, day: float) -> LesionMap:
        """The lesion on a day after the first scan."""
        raster, inside = self.patient.raster, self._inside
        score = self._score(day)
        scores = np.sort(score[inside])
        count = int(volume_ml(self.lesion, day) / raster.voxel_ml)
        count = min(max(count, 8), int(MAX_LUNG_SHARE * scores.size))
        threshold = scores[scores.size - count]
        slope = np.sqrt(sum(np.square(g) for g in np.gradient(score, *raster.step_mm)))
        extent = np.clip((score - threshold) / np.maximum(slope, 0.02), -12.0, 12.0).astype(np.float32)
        return LesionMap(raster, extent, self._density(day, score - threshold, inside & (extent > 0)), 2.5)

    def _density(
        self, day: float, above: NDArray[np.float32], lesion: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        spread = float(above[lesion].std()) + 1e-3
        core = self._solid + 0.8 * np.clip(above / spread, -1.0, 2.5)
        ranks = np.linspace(0.0, 1.0, 201)
        values = np.quantile(core[lesion], ranks)
        solid = solid_share(self.lesion, day)
        mixed = min(self.lesion.mixed_share, 1.0 - solid)
        table = mixture_quantiles(ranks, solid, mixed)
        hu = np.interp(core, values, table) + 22.0 * self._mottle + 18.0 * self.patient.texture
        return np.minimum(hu, 75.0).astype(np.float32)

    def truth(self) -> dict[str, Any]:
        """Hidden parameters of the patient's lesion."""
        return asdict(self.lesion)

    def over(self, days: list[float]) -> Iterator[LesionMoment]:
        """The lesion on each day after the first scan, in order."""
        for day in days:
            truth = {"volume_ml": volume_ml(self.lesion, day), "solid_share": solid_share(self.lesion, day)}
            yield LesionMoment(self.at(day), stage_of(self.lesion, day), truth)


def mixture_quantiles(ranks: NDArray[np.float64], solid: float, mixed: float) -> NDArray[np.float64]:
    """HU at the given ranks (0..1) of the three-mode mixture with shares (rest, mixed, solid)."""
    hu = np.linspace(-880.0, 130.0, 1011)
    below = np.zeros_like(hu)
    for share, (mean, spread) in zip(
        (1.0 - solid - mixed, mixed, solid), (GGO_HU, MIXED_HU, SOLID_HU), strict=True
    ):
        below += share * norm.cdf(hu, mean, spread)
    below = (below - below[0]) / (below[-1] - below[0])
    return np.interp(ranks, below, hu)
