import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.calibration_pairs import make_case, truth_at
from simulator.dynamics.chain import propagate
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.fit import fit_pair
from simulator.dynamics.parameters import PARAMETER_NAMES
from simulator.dynamics.series_fit import SeriesFit, fit_series
from tests.simulator.dynamics.test_fit import TRUTH, big_pair


@pytest.mark.parametrize("loss", ["l2", "poisson"])
def test_one_w_for_the_engine_s_series(loss: str) -> None:
    inside, sharper, p_values = [], [], []
    for seed in range(600, 604):
        case = make_case(seed)
        steps = [case.transitions, case.later_transitions]
        fit = fit_series([case.before, case.after, case.later], steps, loss=loss)
        below = [counts[:30].sum() for counts in (case.before, case.after, case.later)]
        assert fit.parameters.reference_ggo_voxels == pytest.approx(
            np.mean([0.5 * (below[0] + below[1]), 0.5 * (below[1] + below[2])])
        )
        truth = truth_at(case.truth, fit.parameters.reference_ggo_voxels).as_array()
        inside += [
            fit.intervals[name][0] <= value <= fit.intervals[name][1]
            for name, value in zip(PARAMETER_NAMES, truth, strict=True)
        ]
        alone = fit_pair(case.before, case.after, case.transitions, loss=loss)
        sharper.append(np.log(fit.covariance[3, 3] / alone.covariance[3, 3]))
        p_values.append(fit.one_w["p_value"])
        for row, before, n in zip(fit.fitted, (case.before, case.after), steps, strict=True):
            np.testing.assert_allclose(row, propagate(before, fit.parameters, n), rtol=1e-9, atol=1e-9)
    assert np.mean(inside) > 0.88
    assert np.mean(sharper) < 0
    assert min(p_values) > 1e-3
    assert 0.2 < np.mean(p_values) < 0.9


@pytest.mark.parametrize("loss", ["l2", "poisson"])
def test_a_change_of_dynamics_is_noticed(loss: str) -> None:
    before, middle = big_pair(1)
    rates = replace(TRUTH, absorption_rate=0.14, reference_ggo_voxels=TRUTH.reference_ggo_voxels)
    later = np.round(propagate(middle, rates, 200))
    fit = fit_series([before, middle, later], [300, 200], loss=loss)
    assert fit.one_w["p_value"] < 1e-4
    assert any(line.startswith("one W does not suffice") for line in fit.notes)
    same = fit_series([before, middle, np.round(propagate(middle, TRUTH, 200))], [300, 200], loss=loss)
    assert same.one_w["p_value"] > 0.05
    assert same.notes[-1].startswith("one W suffices")


def test_a_joint_fit_repeats_and_comes_back_from_json() -> None:
    case = make_case(601)
    arguments = ([case.before, case.after, case.later], [case.transitions, case.later_transitions])
    fit = fit_series(*arguments, intervals="profile")
    assert fit.interval_method == "profile"
    assert fit.to_json() == fit_series(*arguments, intervals="profile").to_json()
    again = SeriesFit.from_json(json.loads(json.dumps(fit.to_json(), allow_nan=False)))
    assert again.to_json() == fit.to_json()
    with pytest.raises(DynamicsError, match="another schema"):
        SeriesFit.from_json({"schema": 9})
    with pytest.raises(DynamicsError, match="incomplete"):
        SeriesFit.from_json({"schema": 1})


@pytest.mark.parametrize(
    ("histograms", "transitions", "words"),
    [
        ([np.ones(130)] * 2, [10], "three histograms or more"),
        ([np.ones(130)] * 3, [10], "three histograms or more"),
        ([np.ones(130), np.zeros(130), np.ones(130)], [10, 10], "is empty"),
        ([np.ones(130), np.full(130, np.nan), np.ones(130)], [10, 10], "NaN"),
        ([np.ones(130)] * 3, [10, 0], "at least one transition"),
        ([np.ones(130)] * 3, [-10, 5], "at least one transition"),
    ],
)
def test_bad_series(histograms: list[np.ndarray], transitions: list[int], words: str) -> None:
    with pytest.raises(DynamicsError, match=words):
        fit_series(histograms, transitions)
