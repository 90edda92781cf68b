import numpy as np
import pytest

from benchmarks.calibration_pairs import make_case
from simulator.dynamics.chain import propagate, propagate_covariance, propagate_tangents
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.fit import fit_pair
from simulator.dynamics.prediction import predict

PARTS = {"below": slice(0, 30), "above": slice(30, None), "total": slice(None)}


def test_covariance_is_chance_plus_doubt_about_w() -> None:
    case = make_case(4)
    fit = fit_pair(case.before, case.after, case.transitions)
    found = predict(case.after, fit, 80)
    mean, v = propagate_covariance(case.after, fit.parameters, 80)
    _, tangents = propagate_tangents(case.after, fit.parameters, 80)
    np.testing.assert_allclose(found.mean, mean)
    np.testing.assert_allclose(
        found.covariance, v + tangents @ fit.covariance @ tangents.T, rtol=1e-9, atol=1e-9
    )
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-6 * found.covariance.max()
    for part, chosen in PARTS.items():
        low, high = found.interval(part)  # type: ignore[arg-type]
        assert low < found.mean[chosen].sum() < high
        narrow = predict(case.after, fit, 80, level=0.5).interval(part)  # type: ignore[arg-type]
        assert low < narrow[0] < narrow[1] < high


def test_no_transition_is_certain_and_more_are_less_so() -> None:
    case = make_case(4)
    fit = fit_pair(case.before, case.after, case.transitions)
    still = predict(case.after, fit, 0)
    np.testing.assert_array_equal(still.mean, case.after)
    assert still.interval("total") == pytest.approx((case.after.sum(), case.after.sum()))
    spreads = [predict(case.after, fit, n).standard_deviation("total") for n in (10, 100, 400)]
    assert spreads == sorted(spreads)
    assert any("seen over" in line for line in predict(case.after, fit, case.transitions + 1).notes)


def test_forecasts_hold_what_the_engine_does() -> None:
    covered = dict.fromkeys(PARTS, 0)
    number = 10
    for seed in range(500, 500 + number):
        case = make_case(seed)
        found = predict(
            case.after, fit_pair(case.before, case.after, case.transitions), case.later_transitions
        )
        for part, chosen in PARTS.items():
            low, high = found.interval(part)  # type: ignore[arg-type]
            covered[part] += low <= case.later[chosen].sum() <= high
    assert min(covered.values()) >= number - 4, covered  # under 1 in 10,000 for a 95 % interval


def test_what_the_pair_leaves_open_is_moved_over_its_range_and_said() -> None:
    before, after = np.zeros(130), np.zeros(130)
    before[5], after[5] = 4000, 3900  # nothing above 0: consolidation growth moves nothing
    before[6:25] = after[6:25] = 300
    fit = fit_pair(before, after, 5)
    fit.standard_errors = dict.fromkeys(fit.standard_errors, 0.01)
    assert "moved over" not in "".join(predict(np.full(130, 50.0), fit, 100).notes)
    fit.standard_errors["consolidation_growth_rate"] = np.inf
    wide = predict(np.full(130, 50.0), fit, 100)
    assert "consolidation_growth_rate" in wide.notes[0]
    assert np.isfinite(wide.covariance).all()
    fit.standard_errors["birth_rate"] = np.inf
    runaway = predict(np.full(130, 50.0), fit, 30000)
    assert np.isfinite(runaway.covariance).all()
    assert np.isfinite(runaway.interval("below")).all()


def test_a_forecast_of_nothing_is_nothing() -> None:
    case = make_case(4)
    fit = fit_pair(case.before, case.after, case.transitions)
    found = predict(np.zeros(130), fit, 50)
    np.testing.assert_allclose(found.mean, propagate(np.zeros(130), fit.parameters, 50))
    with pytest.raises(DynamicsError, match="level"):
        predict(case.after, fit, 50, level=1.0)
    with pytest.raises(DynamicsError, match="whole number"):
        predict(case.after, fit, -1)
    with pytest.raises(DynamicsError, match="NaN"):
        predict(np.full(130, np.nan), fit, 50)
    with pytest.raises(DynamicsError, match="no such part"):
        found.interval("middle")  # type: ignore[arg-type]
