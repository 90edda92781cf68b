"""A run taken up from a keyframe is the run that was never interrupted."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from simulator.dynamics.branching import branch, occupied_bytes, prepare
from simulator.dynamics.engine import Controls, LesionState, advance, start_state
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.keyframe import restore_keyframe, take_keyframe
from simulator.dynamics.parameters import TransitionParameters

SPACING = (1.0, 0.7, 0.7)
W = TransitionParameters(
    birth_rate=0.01,
    linked_share=0.5,
    entry_signal=0.08,
    absorption_rate=0.3,
    ggo_growth_rate=0.4,
    conversion_probability=0.5,
    consolidation_growth_rate=0.5,
    stiffness=0.5,
    reference_ggo_voxels=2000.0,
)


def lesion(seed: int = 0, recovery_limit: bool = False) -> LesionState:
    """Two lesions in a lung with holes; signals on both sides of 0."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((24, 40, 36))
    lungs = (z - 12) ** 2 / 11**2 + (y - 20) ** 2 / 18**2 + (x - 18) ** 2 / 16**2 < 1
    open_tissue = lungs & (rng.random(lungs.shape) > 0.05)
    infection = ((z - 12) ** 2 + (y - 14) ** 2 + (x - 18) ** 2 < 50) | (
        (z - 12) ** 2 + (y - 30) ** 2 + (x - 18) ** 2 < 20
    )
    signal = rng.normal(-0.16, 0.01, lungs.shape).astype(np.float32)
    signal[infection] = rng.normal(0.0, 0.06, int(infection.sum())).astype(np.float32)
    return start_state(signal, infection, open_tissue | infection, SPACING, recovery_limit=recovery_limit)


def assert_same(one: LesionState, other: LesionState) -> None:
    """Everything that decides what happens next, and everything that is shown."""
    for name in ("n", "transition", "report", "_n_free", "_n_regions", "_field_of", "_n_frontier"):
        assert getattr(one, name) == getattr(other, name), name
    slots = ["_voxel", "_bin", "_offset", "_region", "_born"] + ["_field"] * (one._field_of is not None)
    for name in slots:
        np.testing.assert_array_equal(
            getattr(one, name)[: one.n], getattr(other, name)[: one.n], err_msg=name
        )
    m = one._n_frontier
    np.testing.assert_array_equal(one._frontier[:m], other._frontier[:m])
    for name in ("_status", "_near", "_counts", "_region_of_cell"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for shown in zip(one.changed(), other.changed(), strict=True):
        np.testing.assert_array_equal(*shown)


CONTROLS = [
    Controls(),
    Controls(correlation_mm=0.0),
    Controls(gamma=0.0, seeded_share=0.3, consolidation_clustering=0.0, correlation_mm=0.0),
    Controls(seeded_share=0.2, correlation_mm=3.0),
]


@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize(("jump", "at"), [(1, 43), (10, 30), (50, 100)])
def test_a_run_goes_on_from_a_keyframe_bit_for_bit(controls: Controls, jump: int, at: int) -> None:
    start = lesion()
    running = advance(start.copy(), W, at, jump=jump, seed=3, controls=controls)
    restored = restore_keyframe(start, take_keyframe(running, seed=3), seed=3, controls=controls)
    assert_same(running, restored)
    for _ in range(2):
        advance(running, W, 2 * jump + 1, jump=jump, seed=3, controls=controls)
        advance(restored, W, 2 * jump + 1, jump=jump, seed=3, controls=controls)
        assert_same(running, restored)
    assert running.report.births > 100
    assert running.report.recovered > 30


def test_a_keyframe_of_a_run_from_y_t0() -> None:
    start = lesion(recovery_limit=True)
    running = advance(start.copy(), W, 40, jump=10, seed=3)
    assert_same(running, restore_keyframe(start, take_keyframe(running, seed=3), seed=3))


def test_a_lesion_that_has_healed() -> None:
    healing = replace(
        W,
        birth_rate=1e-9,
        absorption_rate=0.9,
        ggo_growth_rate=0.05,
        conversion_probability=0.05,
        consolidation_growth_rate=0.05,
    )
    start = lesion()
    running = advance(start.copy(), healing, 400, jump=50, seed=3)
    assert running.n == 0
    restored = restore_keyframe(start, take_keyframe(running, seed=3), seed=3)
    assert_same(running, restored)
    assert_same(advance(running, W, 50, jump=50, seed=3), advance(restored, W, 50, jump=50, seed=3))


def test_a_restored_state_can_be_kept_again_and_leaves_its_start_alone() -> None:
    start = lesion()
    before = start.copy()
    first = take_keyframe(advance(start.copy(), W, 30, jump=10, seed=3), seed=3)
    again = take_keyframe(advance(restore_keyframe(start, first, seed=3), W, 20, jump=10, seed=3), seed=3)
    straight = take_keyframe(advance(start.copy(), W, 50, jump=10, seed=3), seed=3)
    for name in ("voxel", "bin", "birth", "frontier", "region_of_cell", "gone_voxel", "gone_birth"):
        np.testing.assert_array_equal(getattr(again, name), getattr(straight, name), err_msg=name)
    assert again.report == straight.report
    assert_same(before, start)


def test_a_run_of_another_seed_is_refused() -> None:
    state = advance(lesion(), W, 30, jump=10, seed=3)
    with pytest.raises(DynamicsError, match="not played with this seed"):
        take_keyframe(state, seed=4)


def test_a_foreign_start_is_refused() -> None:
    keyframe = take_keyframe(advance(lesion(), W, 30, jump=10, seed=3), seed=3)
    other = lesion(seed=1)
    with pytest.raises(DynamicsError, match="not taken on a run from this start"):
        restore_keyframe(other, keyframe, seed=3)
    with pytest.raises(DynamicsError, match="not taken on a run from this start"):
        restore_keyframe(lesion(), replace(keyframe, voxel=keyframe.voxel + 10**6), seed=3)
    with pytest.raises(DynamicsError, match="not taken on a run from this start"):
        restore_keyframe(lesion(), replace(keyframe, frontier=keyframe.frontier[:10]), seed=3)
    with pytest.raises(DynamicsError, match="branch off from a start"):
        restore_keyframe(advance(lesion(), W, 10, seed=3), keyframe, seed=3)


@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize("recovery_limit", [False, True])
def test_a_branch_plays_as_its_start(controls: Controls, recovery_limit: bool) -> None:
    start = lesion(recovery_limit=recovery_limit)
    prepare(start, 9.0)
    for seed in (5, -6):
        played = advance(
            branch(start, seed=seed, controls=controls), W, 40, jump=20, seed=seed, controls=controls
        )
        straight = advance(
            lesion(recovery_limit=recovery_limit), W, 40, jump=20, seed=seed, controls=controls
        )
        assert_same(played, straight)
    assert start.transition == 0


def test_a_branch_of_a_moved_state_is_refused() -> None:
    with pytest.raises(DynamicsError, match="branch off from a start"):
        branch(advance(lesion(), W, 10, seed=3), seed=3)


def test_occupied_memory_counts_what_is_touched() -> None:
    state = lesion()
    small = copy.copy(state)
    small._near = np.zeros(1 << 22, np.uint16)
    less = occupied_bytes(small)
    small._near = small._near.copy()
    small._near[100] = 1
    assert occupied_bytes(small) == less + 65536
    assert occupied_bytes(state) > state._voxel.nbytes + state._frontier.nbytes
