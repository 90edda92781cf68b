"""A lesion's whole state at one moment, small enough to keep, from which a run goes on as if never interrupted.

What follows from the scan that it was played on is not kept: signals and offsets of annotated voxels, tissue, the
memory of annotated tissue. What follows from the seed is not kept either: a newborn's offset is a hash of its
voxel and the transition of its birth. The order of voxels and frontier is part of the state: draws run over it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BELOW, N_BINS
from simulator.dynamics.branching import prepare
from simulator.dynamics.controls import Controls
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.field import field_keys, fill_field, lattice_steps
from simulator.dynamics.hashing import PURPOSE_OFFSET, as_seed, draw_fraction, stream_key
from simulator.dynamics.neighbours import ANNOTATED, FREE, IN_FRONTIER, INFECTED, enter_neighbourhoods
from simulator.dynamics.pages import sparse_copy, untouched_zeros
from simulator.dynamics.regions import MAX_REGIONS
from simulator.dynamics.report import RunReport
from simulator.dynamics.residual import last_record_only
from simulator.dynamics.state import LesionState

ANNOTATED_BIRTH = -1
"""The birth of a voxel that was infected at the start."""


@dataclass(frozen=True)
class Keyframe:
    """What a run needs besides its scan, seed and controls to go on from a moment.

    Parameters
    ----------
    transition : int
        Since the start.
    voxel : int32 or int64 array, shape (n,)
        Flat C-order index of every infected voxel, in the engine's order.
    bin : uint8 array, shape (n,), 0..129
    birth : int32 array, shape (n,)
        Transition at which the voxel became infected; -1 when it was at the start.
    frontier : int32 or int64 array, shape (m,)
        The engine's list of normal voxels beside infected ones, in its order, outdated ones included.
    region_of_cell : uint8 array, flat
        Lesion of every cell of some 4 mm (`regions`).
    gone_voxel : int32 or int64 array, shape (r,), ascending
        Voxels that recovered and are normal now.
    gone_birth : int32 array, shape (r,)
        As `birth`.
    report : RunReport
        Of the run so far.
    """

    transition: int
    voxel: NDArray[Any]
    bin: NDArray[np.uint8]
    birth: NDArray[np.int32]
    frontier: NDArray[Any]
    region_of_cell: NDArray[np.uint8]
    gone_voxel: NDArray[Any]
    gone_birth: NDArray[np.int32]
    report: RunReport


@kernel
def _find_births(
    voxels: NDArray[np.int32],
    born: NDArray[np.uint8],
    offsets: NDArray[np.float32],
    keys: NDArray[np.uint64],
    birth: NDArray[np.int32],
) -> int:
    """Fill the transitions at which the seed gives these offsets; return how many voxels have none."""
    unexplained = 0
    for i in range(voxels.shape[0]):
        birth[i] = ANNOTATED_BIRTH
        if born[i] == 0:
            continue
        for t in range(keys.shape[0]):
            if draw_fraction(keys[t], np.uint64(voxels[i])) == offsets[i]:
                birth[i] = t
                break
        unexplained += birth[i] == ANNOTATED_BIRTH
    return unexplained


@kernel
def _fill_offsets(
    voxels: NDArray[np.int32],
    birth: NDArray[np.int32],
    keys: NDArray[np.uint64],
    first_voxels: NDArray[np.int32],
    first_offsets: NDArray[np.float32],
    first_field: NDArray[np.uint8],
    remembers: bool,
    offsets: NDArray[np.float32],
    field: NDArray[np.uint8],
) -> int:
    """Fill offsets, and the field of annotated voxels; return how many annotated voxels the scan has not."""
    missing = 0
    for i in range(voxels.shape[0]):
        if birth[i] != ANNOTATED_BIRTH:
            offsets[i] = draw_fraction(keys[birth[i]], np.uint64(voxels[i]))
            continue
        slot = np.searchsorted(first_voxels, voxels[i])
        if slot == first_voxels.shape[0] or first_voxels[slot] != voxels[i]:
            missing += 1
            continue
        offsets[i] = first_offsets[slot]
        if remembers:
            field[i] = first_field[slot]
    return missing


@kernel
def _mark(
    status: NDArray[np.uint8],
    first_voxels: NDArray[np.int32],
    first_frontier: NDArray[np.int32],
    voxels: NDArray[np.int32],
    frontier: NDArray[np.int32],
) -> int:
    """Turn the status of the start into that of the keyframe; return how many voxels cannot be infected."""
    for i in range(first_frontier.shape[0]):
        status[first_frontier[i]] &= np.uint8(255 - IN_FRONTIER)
    for i in range(first_voxels.shape[0]):
        status[first_voxels[i]] = np.uint8(FREE | ANNOTATED)
    closed = 0
    for i in range(voxels.shape[0]):
        v = voxels[i]
        closed += status[v] & FREE == 0
        status[v] = np.uint8((status[v] & ANNOTATED) | INFECTED)
    for i in range(frontier.shape[0]):
        status[frontier[i]] |= np.uint8(IN_FRONTIER)
    return closed


def _offset_keys(seed: int, transitions: int) -> NDArray[np.uint64]:
    return np.array([stream_key(as_seed(seed), PURPOSE_OFFSET, t) for t in range(transitions)], np.uint64)


def take_keyframe(state: LesionState, *, seed: int) -> Keyframe:
    """The state at this moment, played with this seed from its start.

    Raises
    ------
    DynamicsError
        When the state was played with another seed.
    """
    keys = _offset_keys(seed, state.transition)
    kept = last_record_only(state._gone_voxel[: state._n_gone], state._status)
    gone = state._gone_voxel[: state._n_gone][kept]
    order = np.argsort(gone)
    births = np.empty(state.n, np.int32)
    gone_births = np.empty(gone.size, np.int32)
    unexplained = _find_births(
        state._voxel[: state.n], state._born[: state.n], state._offset[: state.n], keys, births
    )
    unexplained += _find_births(
        gone, state._gone_born[: state._n_gone][kept], state._gone_offset[: state._n_gone][kept], keys,
        gone_births,
    )  # fmt: skip
    if unexplained:
        raise DynamicsError(
            "the state was not played with this seed alone",
            got=f"{unexplained} voxels that it does not explain",
        )
    return Keyframe(
        transition=state.transition,
        voxel=state._voxel[: state.n].copy(),
        bin=state.bin,
        birth=births,
        frontier=state._frontier[: state._n_frontier].copy(),
        region_of_cell=state._region_of_cell.copy(),
        gone_voxel=gone[order],
        gone_birth=gone_births[order],
        report=replace(state.report),
    )


def restore_keyframe(
    start: LesionState, keyframe: Keyframe, *, seed: int, controls: Controls | None = None
) -> LesionState:
    """The state from which a keyframe was taken; playing it on with the same seed and controls is exact.

    Parameters
    ----------
    start : LesionState
        The state that the run began with. Its voxels stay as they are; its memory of annotated tissue is made
        ready (`branching.prepare`), once.
    keyframe : Keyframe
    seed : int
        Of the run.
    controls : Controls, optional
        Of the run; defaults to `Controls()`.

    Raises
    ------
    DynamicsError
        When the keyframe does not belong to the start, or the start was moved on.
    """
    used = controls if controls is not None else Controls()
    correlation_mm = used.correlation_mm
    prepare(start, correlation_mm)
    n, m, gone = keyframe.voxel.size, keyframe.frontier.size, keyframe.gone_voxel.size
    kind, size = start._kind, start._status.size
    if keyframe.region_of_cell.size != start._region_of_cell.size or _outside(keyframe, size):
        raise _foreign("other dimensions")

    state = copy.copy(start)
    state.n, state.transition, state.report = n, keyframe.transition, replace(keyframe.report)
    state._n_free = start._n_free + start.n - n
    capacity = n + n // 8 + 1024
    for name, values in (("_voxel", keyframe.voxel), ("_bin", keyframe.bin), ("_born", keyframe.birth >= 0)):
        room = np.zeros(capacity, getattr(start, name).dtype)
        room[:n] = values
        setattr(state, name, room)
    state._region, state._field = np.zeros(capacity, np.uint8), np.zeros(capacity, np.uint8)
    state._offset = np.zeros(capacity, np.float32)
    voxels = state._voxel[:n]

    first = start._voxel[: start.n]
    keys = _offset_keys(seed, keyframe.transition)
    remembers = start._remembers and correlation_mm > 0
    drawn = np.flatnonzero(keyframe.birth >= 0) if remembers else np.arange(n)
    of_drawn = np.zeros(drawn.size, np.uint8)
    fill_field(
        voxels[drawn], 0, drawn.size, state.shape[1], state.shape[2],
        lattice_steps(state.spacing_mm, correlation_mm), field_keys(as_seed(seed)), of_drawn,
    )  # fmt: skip
    state._field[drawn] = of_drawn
    state._gone_voxel = np.zeros(gone + 1024, kind)
    state._gone_offset = np.zeros(gone + 1024, np.float32)
    state._gone_born = np.zeros(gone + 1024, np.uint8)
    state._gone_voxel[:gone], state._gone_born[:gone] = keyframe.gone_voxel, keyframe.gone_birth >= 0
    state._n_gone = gone
    unknown = 0
    for which, births, offsets, field, kept in (
        (voxels, keyframe.birth, state._offset, state._field, remembers),
        (state._gone_voxel[:gone], keyframe.gone_birth, state._gone_offset, state._field, False),
    ):
        unknown += _fill_offsets(
            which,
            births,
            keys,
            first,
            start._offset[: start.n],
            start._field[: start.n],
            kept,
            offsets,
            field,
        )
    if unknown:
        raise _foreign(f"{unknown} voxels that were not infected at its start")

    state._status = sparse_copy(start._status)
    state._frontier = np.zeros(min(m + 4096, size + 26), kind)
    state._frontier[:m] = keyframe.frontier
    closed = _mark(state._status, first, start._frontier[: start._n_frontier], voxels, keyframe.frontier)
    if closed:
        raise _foreign(f"{closed} infected voxels that cannot be")
    state._near = untouched_zeros(size, np.uint16)
    state._n_frontier = enter_neighbourhoods(
        state._voxel, state._bin, 0, n, N_BELOW, state._dims, state._steps, state._weights,
        state._status, state._near, np.zeros(26 * n + 26, kind), 0,
    )  # fmt: skip
    if state._n_frontier:
        raise _foreign(f"{state._n_frontier} voxels beside infected ones that its frontier has not")
    state._n_frontier = m

    state._region_of_cell = keyframe.region_of_cell.copy()
    state._n_regions = int(keyframe.region_of_cell.max())
    state.assign_regions(0, n)
    row = state._region[:n].astype(np.int64) * N_BINS + state._bin[:n]
    state._counts = np.bincount(row, minlength=MAX_REGIONS * N_BINS).reshape(MAX_REGIONS, N_BINS)
    state._field_of = (int(as_seed(seed)), correlation_mm)
    return state


def _outside(keyframe: Keyframe, size: int) -> bool:
    of_voxels = (keyframe.voxel, keyframe.frontier, keyframe.gone_voxel)
    beyond = any(index.size and (index.min() < 0 or index.max() >= size) for index in of_voxels)
    births = (keyframe.birth, keyframe.gone_birth)
    never = any(b.size and (b.min() < ANNOTATED_BIRTH or b.max() >= keyframe.transition) for b in births)
    return beyond or never or bool((keyframe.bin >= N_BINS).any())


def _foreign(got: str) -> DynamicsError:
    return DynamicsError(
        "the keyframe was not taken on a run from this start",
        got=got,
        expected="the same scan and annotation",
    )
