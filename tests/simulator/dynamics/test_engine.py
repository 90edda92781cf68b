import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from simulator.dynamics.bins import N_BELOW, histogram
from simulator.dynamics.chain import propagate
from simulator.dynamics.engine import Controls, LesionState, advance, start_state
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.neighbours import FREE, IN_FRONTIER, WEIGHT_BITS, WEIGHT_MASK
from simulator.dynamics.warmup import warm_up
from tests.simulator.dynamics import twins
from tests.simulator.dynamics.twins import GROWING, SHRINKING, STATIONARY, lesion

CONTROLS = [
    Controls(gamma=0.0, consolidation_clustering=0.0, correlation_mm=0.0),
    Controls(gamma=3.0, seeded_share=0.3, consolidation_clustering=1.0, correlation_mm=6.0),
    Controls(),
]


def fingerprint(state: LesionState) -> str:
    parts = (state.index, state.bin, state.offset, state.born, state.signal_volume())
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def check_invariants(state: LesionState, susceptible: np.ndarray) -> None:
    """Everything kept incrementally equals what a dense computation gives."""
    index = state.index
    assert np.unique(index).size == state.n
    assert np.array_equal(histogram(state.bin), state.counts())
    assert not (state.mask() & ~susceptible).any()
    below, above = np.zeros(state.shape), np.zeros(state.shape)
    low = state.bin < N_BELOW
    below.reshape(-1)[index[low]] = 1
    above.reshape(-1)[index[~low]] = 1
    kernel = np.zeros((3, 3, 3))
    for (dz, dy, dx, _), weight in zip(state._steps, state._weights, strict=True):
        kernel[dz + 1, dy + 1, dx + 1] = weight
    weights = ndimage.convolve(below, kernel, mode="constant")
    neighbours = ndimage.convolve(above, (kernel > 0).astype(float), mode="constant")
    assert np.array_equal((state._near & WEIGHT_MASK).reshape(state.shape), weights)
    assert np.array_equal((state._near >> WEIGHT_BITS).reshape(state.shape), neighbours)
    regions = state.region_counts()
    rows = state._region[: state.n].astype(int) * 130 + state.bin
    assert np.array_equal(np.bincount(rows, minlength=regions.size).reshape(regions.shape), regions)
    listed = state._frontier[: state._n_frontier]
    assert np.unique(listed).size == listed.size
    assert np.array_equal(np.sort(listed), np.flatnonzero(state._status & IN_FRONTIER))
    assert state._n_free == int((susceptible & ~state.mask()).sum())
    frontier = (susceptible & ~state.mask() & (weights + neighbours > 0)).reshape(-1)
    assert frontier[listed].sum() == frontier.sum()
    assert np.array_equal((state._status & FREE).reshape(state.shape) > 0, susceptible & ~state.mask())


@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize("w", [GROWING, SHRINKING])
@pytest.mark.parametrize("jump", [1, 10, 37])
def test_incremental_bookkeeping_equals_a_dense_computation(controls: Controls, w: object, jump: int) -> None:
    state = lesion()
    susceptible = (state._status > 0).reshape(state.shape)
    check_invariants(state, susceptible)
    advance(state, w, 80, jump=jump, seed=3, controls=controls)  # type: ignore[arg-type]
    check_invariants(state, susceptible)


def test_counts_are_the_drawn_numbers() -> None:
    state, w = lesion(), replace(GROWING, linked_share=0.0)
    regions = state.region_counts().astype(np.int64)
    drawn = twins.numbers(regions, w, 10, 1, seed=9)
    advance(state, w, 10, jump=10, seed=9)
    assert np.array_equal(state.counts(), drawn.region_moves[:, 1:].sum(axis=0) + drawn.births[1:])
    assert state.report.births == drawn.births[1:].sum()
    assert state.report.born_and_recovered == drawn.births[0]
    assert state.report.recovered == drawn.region_moves[:, 0].sum()


def test_controls_never_touch_the_counts_of_a_jump() -> None:
    # later the lesions differ in what they hold, and the draws with them; the law is the chain's all the same
    w = replace(GROWING, linked_share=0.0)
    results = [advance(lesion(), w, 40, jump=40, seed=4, controls=c) for c in CONTROLS]
    for other in results[1:]:
        assert np.array_equal(results[0].counts(), other.counts())
        assert not np.array_equal(results[0].mask(), other.mask())


@pytest.mark.parametrize("jump", [1, 10])
def test_two_halves_equal_one_run_and_seeds_matter(jump: int) -> None:
    controls = CONTROLS[1]
    whole = advance(lesion(), STATIONARY, 100, jump=jump, seed=5, controls=controls)
    halves = advance(lesion(), STATIONARY, 50, jump=jump, seed=5, controls=controls)
    middle = halves.copy()
    advance(halves, STATIONARY, 50, jump=jump, seed=5, controls=controls)
    assert fingerprint(whole) == fingerprint(halves)
    assert middle.transition == 50
    assert fingerprint(middle) != fingerprint(halves)
    assert fingerprint(advance(middle, STATIONARY, 50, jump=jump, seed=5, controls=controls)) == fingerprint(
        whole
    )
    other = advance(lesion(), STATIONARY, 100, jump=jump, seed=6, controls=controls)
    assert fingerprint(whole) != fingerprint(other)


@pytest.mark.parametrize("first", [10, 20, 70, 90])
def test_a_run_may_be_cut_between_any_two_jumps(first: int) -> None:
    whole = advance(lesion(), GROWING, 100, jump=10, seed=5)
    parts = advance(lesion(), GROWING, first, jump=10, seed=5)
    assert fingerprint(advance(parts, GROWING, 100 - first, jump=10, seed=5)) == fingerprint(whole)


def test_remainder_of_a_jump() -> None:
    state = advance(lesion(), GROWING, 25, jump=10, seed=0)
    assert (state.transition, state.report.jumps) == (25, 3)


def test_zero_transitions_give_the_source_back() -> None:
    state = lesion()
    before = state.signal_volume()
    advance(state, GROWING, 0, seed=0)
    source = state._source
    assert np.abs(before - source).max() < 2e-7
    assert np.array_equal(state.signal_volume(), before)
    outside = ~state.mask()
    assert np.array_equal(before[outside], source[outside])


def test_untouched_voxels_keep_their_signal_and_moves_keep_offsets() -> None:
    state = lesion()
    source = state._source
    start = dict(zip(state.index.tolist(), state.offset.tolist(), strict=True))
    advance(state, GROWING, 60, jump=10, seed=1)
    index, signal = state.changed()
    assert np.array_equal(index, np.unique(index))
    volume = state.signal_volume()
    untouched = np.ones(volume.size, bool)
    untouched[index] = False
    assert np.array_equal(volume.reshape(-1)[untouched], source.reshape(-1)[untouched])
    assert np.array_equal(volume.reshape(-1)[index], signal)
    old = ~state.born
    kept = list(zip(state.index[old].tolist(), state.offset[old].tolist(), strict=True))
    assert len(kept) > 100
    assert all(start[v] == o for v, o in kept)


def test_recovered_voxels_are_normal_just_below_the_limit() -> None:
    state = lesion()
    started = state.mask()
    advance(state, SHRINKING, 150, jump=10, seed=1)
    recovered = started & ~state.mask()
    assert state.report.recovered >= recovered.sum() > 200
    signal = state.signal_volume(residual=False)[recovered]
    assert signal.max() < -0.15 + 1e-6
    assert signal.min() >= -0.155 - 1e-6
    again = state.signal_volume(residual=False)[recovered & ~advance(state, SHRINKING, 1, seed=1).mask()]
    assert again.max() < -0.15 + 1e-6


def test_shrinks_to_nothing_and_goes_on() -> None:
    w = replace(SHRINKING, birth_rate=1e-9, absorption_rate=0.6)
    state = advance(lesion(), w, 600, jump=20, seed=0)
    assert state.n == 0
    assert state.counts().sum() == 0
    assert not state.mask().any()
    advance(state, w, 10, seed=0)
    assert state.signal_volume().shape == state.shape


def test_consolidation_leaves_no_pinholes() -> None:
    tissue = np.ones((16, 16, 16), bool)
    infection = np.zeros_like(tissue)
    infection[3:13, 3:13, 3:13] = True
    infection[5:11:2, 5:11:2, 5:11:2] = False  # normal voxels with 26 neighbours above 0
    signal = np.full(tissue.shape, 0.2, np.float32)
    w = replace(GROWING, absorption_rate=1e-6, reference_ggo_voxels=1000.0, linked_share=0.0)
    state = advance(start_state(signal, infection, tissue, (1, 1, 1)), w, 20, jump=5, seed=0)
    enclosed = state.mask()[5:11:2, 5:11:2, 5:11:2]
    outside = (state.born.sum() - enclosed.sum()) / (12**3 - 10**3)  # of the layer around
    assert enclosed.mean() > 0.8 > 0.3 > outside > 0.05
    assert state.report.seeded_without_frontier == 0


def test_no_frontier_is_seeded_and_said() -> None:
    w = replace(SHRINKING, birth_rate=1e-9, absorption_rate=0.6)
    state = advance(lesion(), w, 600, jump=20, seed=0)
    assert state.n == 0
    w = replace(GROWING, reference_ggo_voxels=200.0, linked_share=0.0)
    advance(state, w, 5, jump=5, seed=0)
    assert state.report.births > 0
    assert state.report.seeded_without_frontier > 0
    assert any("random places" in line for line in state.report.notes())


def test_exhausted_space_is_clipped_and_said() -> None:
    tissue = np.zeros((10, 10, 10), bool)
    tissue[4:7, 4:7, 4:7] = True
    infection = np.zeros_like(tissue)
    infection[5, 5, 5] = True
    w = replace(GROWING, linked_share=0.0, reference_ggo_voxels=1000.0)
    state = start_state(np.full(tissue.shape, -0.1, np.float32), infection, tissue, (1, 1, 1))
    advance(state, w, 40, jump=10, seed=0)
    assert state.mask().sum() <= 27
    assert np.array_equal(histogram(state.bin), state.counts())
    assert state.report.unplaced > 0
    assert not state.report.exact
    assert state.report.notes()[0].endswith("below the chain's prediction")


def test_explosive_births_saturate() -> None:
    w = replace(GROWING, birth_rate=0.5, linked_share=1.0)
    state = advance(lesion(), w, 200, jump=100, seed=0)
    assert state._n_free < 300
    assert state.report.unplaced > 0
    assert np.array_equal(histogram(state.bin), state.counts())
    state = advance(lesion(), replace(w, birth_rate=1e4), 100, jump=100, seed=0)
    assert state.report.unplaced > 0
    assert state._n_free < 300


def test_recovery_limit_start_is_y_t0() -> None:
    state = lesion(recovery_limit=True)
    assert state.counts()[0] == state.n
    assert (state.offset == 0.5).all()
    assert (state.report.clamped_below, state.report.clamped_above) == (0, 0)
    advance(state, replace(GROWING, absorption_rate=0.05), 100, seed=2)
    assert state.counts()[10:].sum() > 0


def test_start_counts_clamped_voxels() -> None:
    signal = np.full((4, 4, 4), -0.4, np.float32)
    signal[0] = 0.7
    state = start_state(signal, np.ones((4, 4, 4), bool), np.ones((4, 4, 4), bool), (1, 1, 1))
    assert (state.report.clamped_below, state.report.clamped_above, state.report.saturated) == (48, 16, 16)
    assert any("48 below -0.15, 16 at 0.5" in line for line in state.report.notes())


def test_seeded_share_spreads_births() -> None:
    near = advance(lesion(), GROWING, 100, seed=1)
    far = advance(lesion(), GROWING, 100, seed=1, controls=Controls(seeded_share=0.5))
    assert far.report.seeded == pytest.approx(0.5 * far.report.births, rel=0.15)
    structure = np.ones((3, 3, 3))
    assert ndimage.label(far.mask(), structure)[1] > ndimage.label(near.mask(), structure)[1] + 20


def test_gamma_makes_lesions_compact() -> None:
    def surface(gamma: float) -> float:
        mask = advance(lesion(), GROWING, 100, seed=1, controls=Controls(gamma=gamma)).mask()
        return sum(int((np.diff(mask.astype(np.int8), axis=a) != 0).sum()) for a in range(3)) / mask.sum()

    assert surface(0.0) > 1.4 * surface(1.0)
    assert surface(1.0) > 1.2 * surface(4.0)


def consolidation_join_share(controls: Controls, jump: int) -> float:
    """Share of the edges of voxels above 0, within the lesion, that lead to another one above 0."""
    # from the recovery limit, so that what is seen was made by the engine
    state = advance(lesion(recovery_limit=True), GROWING, 300, jump=jump, seed=1, controls=controls)
    mask = state.mask()
    above = mask & (state.signal_volume(residual=False) >= 0)
    joined = broken = 0
    for axis in range(3):
        a, b = above.take(range(31), axis), above.take(range(1, 32), axis)
        inside = mask.take(range(31), axis) & mask.take(range(1, 32), axis)
        joined += 2 * int((a & b).sum())
        broken += int(((a ^ b) & inside).sum())
    return joined / (joined + broken)


@pytest.mark.parametrize("jump", [1, 10])
def test_clustering_and_correlation_join_consolidation(jump: int) -> None:
    off = consolidation_join_share(CONTROLS[0], jump)
    clustered = consolidation_join_share(Controls(consolidation_clustering=1.0, correlation_mm=0.0), jump)
    textured = consolidation_join_share(Controls(consolidation_clustering=0.0, correlation_mm=4.0), jump)
    both = consolidation_join_share(Controls(consolidation_clustering=1.0, correlation_mm=4.0), jump)
    assert off < 0.2
    assert min(clustered, textured) > 0.5
    assert both > max(clustered, textured) + 0.05


def test_warm_up_runs() -> None:
    warm_up()


def test_residual_shows_anatomy_without_touching_counts() -> None:
    state = lesion()
    noisy = state._source.copy()
    advance(state, GROWING, 100, seed=1)
    counts = state.counts()
    plain, fine = state.signal_volume(residual=False), state.signal_volume()
    assert np.array_equal(counts, state.counts())
    born = np.zeros(state.shape, bool)
    born.reshape(-1)[state.index[state.born]] = True
    difference = fine - plain
    assert np.array_equal(difference[state.mask() & ~born], np.zeros(int((state.mask() & ~born).sum())))
    assert np.corrcoef(difference[born], noisy[born])[0, 1] > 0.9
    bins = np.zeros(state.shape, int)
    bins.reshape(-1)[state.index] = state.bin
    for k in np.unique(bins[born]):
        assert abs(difference[born & (bins == k)].mean()) < 1e-6


def test_mean_of_the_chain_at_zero_births_is_unmoved_by_jump() -> None:
    w = replace(GROWING, birth_rate=1e-9)
    runs = [advance(lesion(), w, 60, jump=60, seed=s).counts().sum() for s in range(40)]
    assert np.mean(runs) == pytest.approx(propagate(lesion().counts(), w, 60).sum(), rel=0.01)


GOOD = np.zeros((5, 6, 7), bool)
GOOD[2, 3, 3] = True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"infection": np.zeros((5, 6, 7), bool)}, "infection mask is empty"),
        ({"infection": np.zeros((5, 6, 8), bool)}, "infection has the wrong shape"),
        ({"susceptible": np.zeros((5, 6), bool)}, "susceptible has the wrong shape"),
        ({"susceptible": np.zeros((5, 6, 7), bool)}, "reaches outside susceptible tissue: got 1 of 1"),
        ({"signal": np.full((5, 6, 7), np.nan)}, "NaN or infinite"),
        ({"signal": np.zeros(7)}, "signal has the wrong shape"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "no voxel spacing"),
        ({"spacing_mm": (1.0, 1.0)}, "no voxel spacing"),
    ],
)
def test_bad_starts(change: dict[str, object], words: str) -> None:
    arguments = {
        "signal": np.zeros((5, 6, 7)),
        "infection": GOOD,
        "susceptible": GOOD,
        "spacing_mm": (1, 1, 1),
    }
    with pytest.raises(DynamicsError, match=words):
        start_state(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "jump"), [(-1, 10), (2.5, 10), (10, 0), (10, 1.5)])
def test_bad_lengths(n: float, jump: float) -> None:
    with pytest.raises(DynamicsError, match="whole number"):
        advance(lesion(), GROWING, n, jump=jump, seed=0)  # type: ignore[arg-type]
