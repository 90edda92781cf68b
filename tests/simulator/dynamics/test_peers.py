"""The benchmark's peers play the same rule: their mean histogram is the chain's, as the engine's is."""

import numpy as np
import pytest

from benchmarks.dynamics_peers import PEERS, NumpyAutomaton, numpy_chain, numpy_matrix_power
from benchmarks.dynamics_scan import SPACING_MM, growing, make_chest
from simulator.dynamics.chain import propagate, propagate_covariance
from simulator.dynamics.engine import advance, start_state

RUNS, STEPS = 24, 20


@pytest.fixture(scope="module")
def chest():
    return make_chest(40, 1500, 3, seed=5)


def test_the_chest_is_what_it_says(chest) -> None:
    assert abs(int(chest.infection.sum()) - 1500) <= 0.02 * 1500
    assert not (chest.infection & ~chest.susceptible).any()
    again = make_chest(40, 1500, 3, seed=5)
    assert np.array_equal(again.signal, chest.signal)
    assert np.array_equal(again.infection, chest.infection)
    # births are chosen so that the chain ends where it was told to
    w = growing(chest, 2500, 200)
    assert propagate(chest.counts(), w, 200).sum() == pytest.approx(2500, rel=1e-6)


def test_a_crop_holds_the_middle(chest) -> None:
    crop = chest.crop(24)
    assert crop.signal.shape == (24, 24, 24)
    assert crop.infection.any()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.__name__)
def test_peers_play_the_chain(chest, peer) -> None:
    w = growing(chest, 2600, 200)
    mean, v = propagate_covariance(chest.counts(), w, STEPS)
    results = np.zeros((RUNS, 130))
    for seed in range(RUNS):
        automaton = peer(chest, w, seed)
        for _ in range(STEPS):
            automaton.step()
        results[seed] = automaton.counts()
    for part in (slice(0, 15), slice(15, 30), slice(30, 48), slice(48, 130), slice(0, 130)):
        error = np.sqrt(v[part, part].sum() / RUNS)
        assert abs(results[:, part].sum(axis=1).mean() - mean[part].sum()) < 3.5 * error


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.__name__)
def test_peers_keep_out_of_other_tissue(chest, peer) -> None:
    automaton = peer(chest, growing(chest, 4000, 200), 1)
    for _ in range(10):
        automaton.step()
    infected = np.asarray(automaton.bins) >= 0
    assert not (infected & ~chest.susceptible).any()
    assert (infected & ~chest.infection).any()


def test_births_touch_the_lesion_as_the_engines_do(chest) -> None:
    # one transition: every newborn has an infected voxel among its 26 neighbours, in the peer and in the engine
    from scipy import ndimage

    w = growing(chest, 6000, 200)
    automaton = NumpyAutomaton(chest, w, 3)
    before = automaton.bins.copy()
    automaton.step()
    reach = ndimage.binary_dilation(before >= 0, np.ones((3, 3, 3)))
    assert not ((automaton.bins >= 0) & (before < 0) & ~reach).any()
    state = start_state(chest.signal, chest.infection, chest.susceptible, SPACING_MM)
    advance(state, w, 1, jump=1, seed=3)
    assert not (state.mask() & (before < 0) & ~reach).any()


@pytest.mark.parametrize("banded", [True, False])
def test_numpy_chain_is_the_chain(chest, banded: bool) -> None:
    w = growing(chest, 2600, 200)
    counts = chest.counts()
    np.testing.assert_allclose(
        numpy_chain(counts, w, 100, banded=banded), propagate(counts, w, 100), rtol=1e-10, atol=1e-9
    )
    np.testing.assert_allclose(
        numpy_matrix_power(counts, w, 100), propagate(counts, w, 100), rtol=1e-9, atol=1e-9
    )
