import numpy as np
import pytest

from simulator.dynamics.neighbours import ANNOTATED, FREE, INFECTED
from simulator.dynamics.survey import collect_infected, survey_tissue


@pytest.mark.parametrize("size", [1, 7, 8, 16, 45, 1000])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
def test_survey_equals_plain_numpy(size: int, density: float) -> None:
    rng = np.random.default_rng(size)
    tissue = rng.random(size) < density
    infected = rng.random(size) < 0.3 * density
    source = rng.normal(size=size).astype(np.float32)
    source[rng.random(size) < 0.1] = np.nan
    source[rng.random(size) < 0.1] = np.inf
    status = np.zeros(size, np.uint8)
    found = survey_tissue(source, infected.view(np.uint8), tissue.view(np.uint8), status)
    bad = tissue & ~np.isfinite(source)
    assert found == (infected.sum(), (infected & ~tissue).sum(), bad.sum(), (tissue & ~infected).sum())
    expected = np.where(infected, INFECTED | ANNOTATED, np.where(tissue, FREE, 0))
    assert np.array_equal(status, expected)
    index = np.empty(int(infected.sum()), np.int64)
    collect_infected(infected.view(np.uint8), index)
    assert np.array_equal(index, np.flatnonzero(infected))
