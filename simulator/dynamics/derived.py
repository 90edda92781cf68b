"""What follows from W and is better determined than its eight values: births and equilibria (DESIGN 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from simulator.dynamics import fit_space
from simulator.dynamics.chain import propagate_kernel
from simulator.dynamics.fit_problem import Leg
from simulator.dynamics.parameters import TransitionParameters

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

TRANSITIONS_PER_DAY = 100
_STEP = 1e-5  # of the range of a coordinate, for the derivative of the births


def births_per_day(x: Vector, leg: Leg, g_ref: float) -> float:
    """Expected births per day, mean over the interval, voxels."""
    total, _ = propagate_kernel(leg.before.copy(), fit_space.to_parameters(x), g_ref, leg.steps)
    return float(total) / leg.steps * TRANSITIONS_PER_DAY


def derived_quantities(
    leg: Leg, parameters: TransitionParameters, covariance_x: Matrix, level: float
) -> dict[str, float]:
    """Births and equilibria of a fitted pair, each with standard error (`_se`) and interval (`_low`, `_high`).

    births_per_transition is nu G_ref, the births while the count below 0 is G_ref; births_per_day their mean over
    the interval, which hardly depends on the linked share. The equilibria are the signals where growth meets
    absorption: -0.15 + kappa ln(g / a) below 0 and kappa ln(c / a) above. Errors by the delta method, births on
    the scale of the logarithm.
    """
    w, g_ref = parameters.as_array(), parameters.reference_ggo_voxels
    x = fit_space.from_parameters(w)
    quantile = float(norm.ppf(0.5 + level / 2))
    result: dict[str, float] = {}

    def put(name: str, value: float, gradient: Vector, *, positive: bool) -> None:
        error = float(np.sqrt(max(float(gradient @ covariance_x @ gradient), 0.0)))
        result[name], result[f"{name}_se"] = value, error
        if positive:
            factor = float(np.exp(min(quantile * error / value, 50.0))) if value > 0 else 1.0
            result[f"{name}_low"], result[f"{name}_high"] = value / factor, value * factor
        else:
            result[f"{name}_low"], result[f"{name}_high"] = value - quantile * error, value + quantile * error

    put("births_per_transition", w[0] * g_ref, np.eye(8)[0] * w[0] * g_ref, positive=True)
    steps = _STEP * (fit_space.UPPER - fit_space.LOWER)
    slope = np.empty(8)
    for i in range(8):
        shift = np.where(np.arange(8) == i, steps[i], 0.0)
        up, down = np.minimum(x + shift, fit_space.UPPER), np.maximum(x - shift, fit_space.LOWER)
        change = births_per_day(up, leg, g_ref) - births_per_day(down, leg, g_ref)
        slope[i] = change / (up[i] - down[i])
    put("births_per_day", births_per_day(x, leg, g_ref), slope, positive=True)
    dw_dx = fit_space.jacobian(x)
    for name, rate, origin in (("ggo_equilibrium", 4, -0.15), ("consolidation_equilibrium", 6, 0.0)):
        ratio = float(np.log(w[rate] / w[3]))
        gradient_w = np.zeros(8)
        gradient_w[rate], gradient_w[3], gradient_w[7] = w[7] / w[rate], -w[7] / w[3], ratio
        put(name, origin + w[7] * ratio, gradient_w @ dw_dx, positive=False)
    return result
