"""The result of fitting one pair of scans: values, errors, goodness and what to beware of (DESIGN 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.parameters import PARAMETER_NAMES, TransitionParameters

SCHEMA = 2
_ARRAYS = ("correlations", "covariance", "before", "observed", "fitted")


@dataclass
class PairFit:
    """W of one pair, with everything needed to judge it.

    Attributes
    ----------
    parameters : TransitionParameters
    standard_errors : dict of float
        By parameter name; NaN at a bound (phi and epsilon never are), infinite where the data say nothing.
    correlations : float64, shape (8, 8)
        Of the estimates, order of `PARAMETER_NAMES`; NaN where there is no standard error.
    covariance : float64, shape (8, 8)
        Of the estimates, every parameter free; finite everywhere, as nothing is more in doubt than its range.
    n_transitions : int
    loss : str
        "l2" or "poisson".
    loss_value : float
        Sum of squared count differences, or the Poisson deviance.
    before, observed, fitted : float64, shape (130,)
        Histograms of the first scan, the second scan, and the model's second scan.
    goodness : dict of float
        reduced_chi_square and groups (against the chain's covariance, bins merged), relative_l2, overlap
        (0..1), and observed and fitted totals below and above 0 with z scores.
    derived : dict of float
        births_per_transition (nu G_ref), births_per_day (mean over the interval), ggo_equilibrium and
        consolidation_equilibrium (signals where growth meets absorption), each with _se, _low and _high.
    intervals : dict of [low, high]
        By parameter name, at `level`.
    interval_method : str
        "wald" or "profile".
    level : float
    open_ends : dict of list of {"low", "high"}
        Ends of intervals that run to the limit of what the fit allows: the data did not close them.
    at_bound, undetermined : list of str
    notes : list of str
        Sentences, problems first.
    costs : list of float
        Final loss of every start, in the order of their screening rank.
    """

    parameters: TransitionParameters
    standard_errors: dict[str, float]
    correlations: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n_transitions: int
    loss: str
    loss_value: float
    before: NDArray[np.float64]
    observed: NDArray[np.float64]
    fitted: NDArray[np.float64]
    goodness: dict[str, float]
    derived: dict[str, float]
    intervals: dict[str, list[float]]
    interval_method: str
    level: float
    open_ends: dict[str, list[str]] = field(default_factory=dict)
    at_bound: list[str] = field(default_factory=list)
    undetermined: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; NaN becomes None, infinity the string "inf"."""
        result: dict[str, Any] = {"schema": SCHEMA}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "parameters":
                result[item.name] = value.to_json()
            else:
                result[item.name] = plain(value)
        return result

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PairFit:
        """Inverse of `to_json`.

        Raises
        ------
        DynamicsError
            If the data are of another schema or incomplete.
        """
        check_stored(data, SCHEMA, [item.name for item in fields(cls)], "fit")
        values: dict[str, Any] = {}
        for item in fields(cls):
            value = data[item.name]
            if item.name == "parameters":
                value = TransitionParameters.from_json(value)
            elif item.name in _ARRAYS:
                value = np.array(numbers(value), dtype=np.float64)
            elif item.name in ("standard_errors", "goodness", "derived", "intervals", "costs"):
                value = numbers(value)
            values[item.name] = value
        return cls(**values)

    def table(self) -> list[tuple[str, float, str, str]]:
        """(name, value, standard error, interval) of the eight parameters, the last two in words.

        A parameter at a bound has "bound" for a standard error, one that the data do not determine "none". An
        interval's open end is marked: `<` before a low one, `>` after a high one.
        """
        rows = []
        for name in PARAMETER_NAMES:
            error = self.standard_errors[name]
            words = "bound" if np.isnan(error) else "none" if np.isinf(error) else f"{error:.2g}"
            low, high = self.intervals[name]
            ends = self.open_ends.get(name, [])
            interval = f"{'<' if 'low' in ends else ''}{low:.3g} .. {high:.3g}{'>' if 'high' in ends else ''}"
            rows.append((name, float(getattr(self.parameters, name)), words, interval))
        return rows


def check_stored(data: Mapping[str, Any], schema: int, names: Sequence[str], what: str) -> None:
    """Refuse stored data of another schema, or without one of the names.

    Raises
    ------
    DynamicsError
    """
    if data.get("schema") != schema:
        raise DynamicsError(
            f"the stored {what} has another schema", got=data.get("schema"), expected=schema,
            remedy="fit again",
        )  # fmt: skip
    missing = [name for name in names if name not in data]
    if missing:
        raise DynamicsError(f"the stored {what} is incomplete", got=f"no {', '.join(missing)}")


def plain(value: Any) -> Any:
    """Values that every JSON reader accepts."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isnan(number):
            return None
        if np.isinf(number):
            return "inf" if number > 0 else "-inf"
        return number
    return value


def numbers(value: Any) -> Any:
    """Inverse of `plain` for numbers."""
    if isinstance(value, Mapping):
        return {name: numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return float("nan") if value is None else float(value)
