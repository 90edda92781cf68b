import json

import numpy as np
import pytest

from benchmarks.calibration_pairs import make_case
from simulator.dynamics import fit_space
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.fit import fit_pair
from simulator.dynamics.fit_problem import FitProblem
from simulator.dynamics.goodness import goodness_of_fit
from simulator.dynamics.pair_fit import PairFit
from simulator.dynamics.parameters import PARAMETER_NAMES
from simulator.dynamics.profile import _Slice, _Sums


def sums_of(case, fit: PairFit) -> tuple[_Sums, np.ndarray]:  # type: ignore[no-untyped-def]
    problem = FitProblem(
        [type("L", (), {"before": fit.before, "after": fit.observed, "steps": fit.n_transitions})()], fit.loss
    )
    x = fit_space.from_parameters(fit.parameters.as_array())
    blocks = problem.covariances(x)
    _, free = fit_space.at_bound(x)
    chi = goodness_of_fit(fit.observed, fit.fitted, blocks[0], int(free.sum()))["reduced_chi_square"]
    return _Sums(problem, x, blocks, max(1.0, chi)), x


@pytest.mark.parametrize("loss", ["l2", "poisson"])
def test_ends_lie_where_the_rise_reaches_the_quantile(loss: str) -> None:
    case = make_case(11)
    fit = fit_pair(case.before, case.after, case.transitions, loss=loss, intervals="profile")
    assert (fit.interval_method, fit.level) == ("profile", 0.95)
    sums, x = sums_of(case, fit)
    at = sums.minimum(x)
    lowest = float(sums.value(at) @ sums.value(at))
    checked = 0
    for index, name in enumerate(PARAMETER_NAMES):
        part = _Slice(sums, index, lowest)
        for end, value in zip(("low", "high"), fit.intervals[name], strict=True):
            if end in fit.open_ends.get(name, []):
                continue
            assert part.minimise(value, at)[1] == pytest.approx(1.96, rel=0.06), (name, end)
            checked += 1
    assert checked >= 10


def test_profile_agrees_with_wald_where_the_data_are_plenty() -> None:
    case = make_case(11)
    many = [100.0 * counts for counts in (case.before, case.after)]
    # a hundred lesions alike: the intervals are narrow, so the chain is straight within them
    wald = fit_pair(*many, case.transitions, loss="poisson")
    profile = fit_pair(*many, case.transitions, loss="poisson", intervals="profile")
    assert wald.parameters == profile.parameters
    for name in ("absorption_rate", "consolidation_growth_rate", "stiffness"):
        widths = [fit.intervals[name][1] - fit.intervals[name][0] for fit in (wald, profile)]
        assert widths[1] == pytest.approx(widths[0], rel=0.35), name


@pytest.mark.parametrize("loss", ["l2", "poisson"])
@pytest.mark.parametrize("method", ["wald", "profile"])
def test_intervals_hold_the_estimate_and_keep_the_constraints(loss: str, method: str) -> None:
    for seed in range(4):
        case = make_case(seed)
        fit = fit_pair(case.before, case.after, case.transitions, loss=loss, intervals=method)
        for name, value in zip(PARAMETER_NAMES, fit.parameters.as_array(), strict=True):
            low, high = fit.intervals[name]
            assert low <= value <= high, name
            assert low >= 0, name
        assert fit.intervals["linked_share"][1] <= 1
        for name in PARAMETER_NAMES[4:7]:
            assert fit.intervals[name][1] <= 1
            if "high" in fit.open_ends.get(name, []):
                assert fit.intervals[name][1] >= 0.99 * (1 - fit.parameters.absorption_rate)
        open_both = [name for name, ends in fit.open_ends.items() if len(ends) == 2]
        assert set(open_both) <= set(fit.undetermined)
        assert PairFit.from_json(json.loads(json.dumps(fit.to_json(), allow_nan=False))).to_json() == (
            fit.to_json()
        )


def test_awkward_pairs_have_profiles_too() -> None:
    start = np.zeros(130)
    start[0] = 1200
    dense = np.zeros(130)
    dense[30:60] = 200
    for before, after in ((start, dense), (dense, dense), (dense, start), (start, start)):
        fit = fit_pair(before, after, 300, intervals="profile")
        ends = np.array([fit.intervals[name] for name in PARAMETER_NAMES])
        assert np.isfinite(ends).all()
        assert (ends[:, 0] <= ends[:, 1]).all()
        assert fit.open_ends


def test_the_table_says_bound_and_open_in_words() -> None:
    dense = np.zeros(130)
    dense[30:60] = 200
    fit = fit_pair(dense, dense, 300, intervals="profile")
    rows = {name: (error, interval) for name, _, error, interval in fit.table()}
    assert list(rows) == list(PARAMETER_NAMES)
    assert not any("nan" in error for error, _ in rows.values())
    for name in fit.at_bound:
        assert rows[name][0] in ("bound", "none") or name in ("linked_share", "entry_signal")
    for name, ends in fit.open_ends.items():
        assert rows[name][1].startswith("<") == ("low" in ends)
        assert rows[name][1].endswith(">") == ("high" in ends)


def test_an_unknown_kind_of_interval_is_refused() -> None:
    with pytest.raises(DynamicsError, match="kind of interval"):
        fit_pair(np.ones(130), np.ones(130), 10, intervals="bootstrap")
