"""What a forecast is asked for, what it leaves, and what its figure shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.engine import Controls
from simulator.progression import DEFAULT_JUMP
from standard_space.errors import UsageError

FROM_PAIR, FROM_T0 = "from a pair", "from t0"

Scores = dict[str, float | int | None]


@dataclass(frozen=True)
class ForecastSettings:
    """What a user may choose.

    Parameters
    ----------
    runs : int, 1..10000
        Draws of the engine for every forecast.
    seed : int
        The same seed and names give the same runs.
    jump : int, >= 1
        Transitions drawn at once.
    register : bool
        Register the later scan's lungs to the earlier one's (rigid, then affine).
    normalise_inspiration : bool
        Bring counts and volumes of the other scans to the inspiration of the scan the forecast starts from.
    loss : {"l2", "poisson"}
        Of the fit.
    controls : Controls
        Morphology.

    Raises
    ------
    UsageError
        When a number is out of range or the loss is unknown.
    """

    runs: int = 16
    seed: int = 0
    jump: int = DEFAULT_JUMP
    register: bool = False
    normalise_inspiration: bool = False
    loss: str = "l2"
    controls: Controls = field(default_factory=Controls)

    def __post_init__(self) -> None:
        if not 1 <= self.runs <= 10_000:
            raise UsageError("the number of runs is out of range", got=self.runs, expected="1 to 10000")
        if self.jump < 1:
            raise UsageError("the jump is out of range", got=self.jump, expected="1 or more")
        if self.loss not in ("l2", "poisson"):
            raise UsageError("the loss is unknown", got=self.loss, expected="l2 or poisson")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "controls": self.controls.to_json()}


@dataclass
class Forecast:
    """One forecast with its scores; what `to_json` writes.

    `earlier` is "t0" when the dynamics were fitted from Y_t0. Volumes are in ml, at the inspiration of `source`
    when normalised. `runs` holds the scores of every run, `median`, `low` and `high` their median and 5th and 95th
    percentile; `persistence` and `dilation` the rivals' scores; `problems` says what makes it doubtful.
    """

    patient: str
    earlier: str
    source: str
    target: str
    kind: str
    source_sha256: str
    target_sha256: str
    days: float
    transitions: int
    grid: int
    fit: dict[str, Any]
    alignment: dict[str, Any]
    lung_volume_ratio: float | None
    lung_volume_ratio_of_fit: float | None
    observed: Scores
    volume_forecast: dict[str, Any]
    seeds: list[int]
    runs: list[Scores]
    median: Scores
    low: Scores
    high: Scores
    persistence: Scores
    dilation: Scores
    occurrence: dict[str, float | None]
    problems: list[str]
    notes: list[str]

    @property
    def name(self) -> str:
        """Patient and scans, for messages and file names."""
        return f"{self.patient} {self.earlier},{self.source}>{self.target}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class ForecastPicture:
    """What the figure of a forecast shows: one axial slice and three curves.

    Slices have shape (y, x); `aspect` is the height of a pixel over its width. `chance` is the share of runs in
    which a voxel's state differs from the start. `days` counts from the source; volumes are in ml.
    """

    forecast: Forecast
    background: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    start: NDArray[np.bool_]
    observed: NDArray[np.bool_]
    median_run: NDArray[np.bool_]
    chance: NDArray[np.float64]
    aspect: float
    start_counts: NDArray[np.float64]
    observed_counts: NDArray[np.float64]
    run_counts: NDArray[np.float64]
    voxel_volume_ml: float
    earlier_point: tuple[float, float] | None
    days: list[float]
    mean_ml: list[float]
    interval_ml: list[tuple[float, float]]
