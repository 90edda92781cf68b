import json

import numpy as np
import pytest

from benchmarks.calibration_pairs import make_case, truth_at
from simulator.dynamics import fit_space
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.fit import fit_pair
from simulator.dynamics.parameters import PARAMETER_NAMES, TransitionParameters
from simulator.dynamics.population import Population, _to_y, summarise
from tests.simulator.dynamics.test_fit import TRUTH


@pytest.fixture(scope="module")
def cohort() -> tuple[list[tuple[TransitionParameters, np.ndarray]], np.ndarray]:
    estimates, truths = [], []
    for seed in range(18):
        case = make_case(seed)
        fit = fit_pair(case.before, case.after, case.transitions, loss="poisson")
        estimates.append((fit.parameters, fit.covariance))
        truth = truth_at(case.truth, fit.parameters.reference_ggo_voxels)
        truths.append(_to_y(fit_space.from_parameters(truth.as_array())))
    return estimates, np.array(truths)


def test_mean_and_spread_are_those_of_the_patients(cohort) -> None:  # type: ignore[no-untyped-def]
    estimates, truths = cohort
    found = summarise(estimates)
    assert found.patients == 18
    for i, name in enumerate(PARAMETER_NAMES):
        assert abs(found.mean[i] - truths[:, i].mean()) < 2.5 * found.mean_error[i], name
        if name != "linked_share":  # hardly determined in a single patient
            assert np.sqrt(found.spread[i, i]) == pytest.approx(truths[:, i].std(ddof=1), rel=0.3), name


def test_errors_of_the_fits_are_taken_out_of_the_spread() -> None:
    rng = np.random.default_rng(0)
    middle = _to_y(fit_space.from_parameters(TRUTH.as_array()))
    own, between = 0.3, 0.2
    estimates = []
    for _ in range(400):
        y = middle[3] + rng.normal(0, np.hypot(own, between))
        w = TRUTH.as_array()
        w[4:7] *= (1 - np.exp(y)) / (1 - w[3])
        w[3] = np.exp(y)
        x = fit_space.from_parameters(w)
        cov_x = np.diag([1e-6, 1e-6, 1e-8, own**2, 1e-6, 1e-6, 1e-6, 1e-6])
        jacobian = fit_space.jacobian(x)
        estimates.append((TransitionParameters.from_array(w, 1.0), jacobian @ cov_x @ jacobian.T))
    found = summarise(estimates)
    assert np.sqrt(found.spread[3, 3]) == pytest.approx(between, rel=0.2)
    same = summarise([(TRUTH, covariance) for _, covariance in estimates])
    assert same.spread[3, 3] == 0.0
    assert any(line.startswith("no spread") for line in same.notes)


def test_draws_obey_the_constraints_repeat_and_have_the_population_s_spread(cohort) -> None:  # type: ignore[no-untyped-def]
    found = summarise(cohort[0])
    assert found.draw(3) == found.draw(3)
    assert found.draw(3) != found.draw(4)
    assert found.draw(3, 500.0).reference_ggo_voxels == 500.0
    drawn = [found.draw(seed) for seed in range(600)]  # each is validated when it is made
    y = np.array([_to_y(fit_space.from_parameters(w.as_array())) for w in drawn])
    np.testing.assert_allclose(y.mean(0), found.mean, atol=4 * np.sqrt(np.diag(found.spread).max() / 600))
    logs = [0, 3, 7]
    np.testing.assert_allclose(y.std(0)[logs], np.sqrt(np.diag(found.spread))[logs], rtol=0.12)
    wild = Population(found.mean, 100.0 * np.eye(8), found.mean_error, found.typical_error, 40)
    for seed in range(200):
        wild.draw(seed)
    for low, middle, high in found.quantiles().values():
        assert low <= middle <= high


def test_a_population_comes_back_from_json(cohort) -> None:  # type: ignore[no-untyped-def]
    found = summarise(cohort[0])
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    again = Population.from_json(content)
    assert again.draw(5) == found.draw(5)
    assert again.to_json() == found.to_json()
    for change, words in (
        ({"mean": [0.0] * 7}, "mean is damaged"),
        ({"mean": [float("nan")] * 8}, "mean is damaged"),
        ({"spread": (-np.eye(8)).tolist()}, "no covariance"),
        ({"parameters": ["a"]}, "other parameters"),
        ({"mean": "x"}, "incomplete or damaged"),
    ):
        with pytest.raises(DynamicsError, match=words):
            Population.from_json(content | change)
    del content["patients"]
    with pytest.raises(DynamicsError, match="incomplete"):
        Population.from_json(content)


def test_few_patients_are_said_and_fewer_refused(cohort) -> None:  # type: ignore[no-untyped-def]
    assert summarise(cohort[0][:5]).notes[0].startswith("only 5 patients")
    with pytest.raises(DynamicsError, match="too few patients"):
        summarise(cohort[0][:2])
    with pytest.raises(DynamicsError, match="seed"):
        summarise(cohort[0]).draw(-1)
