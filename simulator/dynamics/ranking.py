"""Who moves where: numbers are drawn first, then voxels are assigned by rank of an integer score (DESIGN 3).

The numbers are those of independent voxels and are drawn for every lesion by itself. With a texture, the voxels
of a lesion are put in order: by bin, pushed a little by a persistent field and by their neighbours; the lowest
take the lowest destinations. So the order decides what a lesion looks like and neither the histogram of the
scan nor that of a lesion. Without, every voxel of a bin has the same chance of each of its destinations.

Scores are small integers, so ranking is counting; voxels that share a score on the border between
destinations are settled by selection sampling with a hash, which gives every one of them the same chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BINS
from simulator.dynamics.controls import Controls
from simulator.dynamics.field import FIELD_LEVELS
from simulator.dynamics.hashing import draw64, draw_below
from simulator.dynamics.neighbours import WEIGHT_BITS
from simulator.dynamics.transitions import N_DESTINATIONS

LEVELS_PER_BIN = 32
FIELD_SPEED = 0.10
"""Bins per transition by which the highest field pushes a voxel up, and the lowest one down."""
NEIGHBOUR_SPEED = 0.20
"""Bins per transition by which 26 neighbours above 0 push up at full clustering, and none push down."""
NOISE_SPEED = 0.03
"""Largest random push, bins per transition. It grows with the jump as the others do: a voxel's place within its
bin is not kept, so it is the ratio of the pushes within a jump that decides how well a lesion is in order."""
LONGEST_PUSH = 65.0

_NOISE_BITS = np.uint64(40)


class Pushes:
    """Scores of one length of jump: tables of pushes in 1/32 bin, and how many levels there are.

    Parameters
    ----------
    controls : Controls
    steps : int
        Transitions in the jump.
    """

    def __init__(self, controls: Controls, steps: int) -> None:
        self.ordered = controls.correlation_mm > 0 or controls.consolidation_clustering > 0
        of_field = np.linspace(-1.0, 1.0, FIELD_LEVELS) * FIELD_SPEED * steps * (controls.correlation_mm > 0)
        strength = NEIGHBOUR_SPEED * controls.consolidation_clustering
        of_neighbours = np.linspace(-1.0, 1.0, 27) * strength * steps
        self.field = _in_levels(of_field)
        self.neighbours = _in_levels(of_neighbours)
        self.noise = int(_in_levels(np.array([NOISE_SPEED * steps]))[0])
        self.zero = int(self.field.max() + self.neighbours.max() + self.noise)
        self.levels = LEVELS_PER_BIN * N_BINS + 2 * self.zero + 1 if self.ordered else 1

    @property
    def rows_per_region(self) -> int:
        """1 when a lesion is ordered as a whole, 130 when every bin is for itself."""
        return 1 if self.ordered else N_BINS


def _in_levels(bins: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(np.clip(bins, -LONGEST_PUSH, LONGEST_PUSH) * LEVELS_PER_BIN).astype(np.int64)


def shared_entries(rows: int, voxels: int) -> int:
    """Upper bound on the entries of the table of shared levels: three for each destination that a row can use."""
    return 3 * min(rows * N_DESTINATIONS, voxels) + 3


@kernel
def score_voxels(
    voxels: NDArray[np.int32],
    bins: NDArray[np.uint8],
    region: NDArray[np.uint8],
    field: NDArray[np.uint8],
    near: NDArray[np.uint16],
    first: int,
    last: int,
    of_field: NDArray[np.int64],
    of_neighbours: NDArray[np.int64],
    noise: int,
    zero: int,
    key: np.uint64,
    row_counts: NDArray[np.int64],
    scores: NDArray[np.uint16],
    levels: NDArray[np.int32],
) -> None:
    """Fill the score of slots first..last-1 and the number of voxels per (region, score).

    The score is zero + 32 x bin + push of the field + push of the neighbours + noise (-noise .. noise). Rows
    of `levels` in which `row_counts` is 0 are left as they are and never read.
    """
    for row in range(row_counts.shape[0]):
        if row_counts[row] > 0:
            levels[row, :] = 0
    clustering = of_neighbours[26] > 0
    for i in range(first, last):
        random = np.int64(draw64(key, np.uint64(voxels[i])) >> _NOISE_BITS)
        score = zero + LEVELS_PER_BIN * np.int64(bins[i]) + of_field[field[i]]
        score += (random * (2 * noise + 1) >> 24) - noise
        if clustering:
            score += of_neighbours[near[voxels[i]] >> WEIGHT_BITS]
        scores[i] = score
        levels[region[i], score] += 1


@kernel
def one_level_per_bin(
    first: int,
    last: int,
    row_counts: NDArray[np.int64],
    scores: NDArray[np.uint16],
    levels: NDArray[np.int32],
) -> None:
    """The scores of independent voxels: all of a row (a bin of a region) share one level."""
    for row in range(row_counts.shape[0]):
        levels[row, 0] = row_counts[row]
    for i in range(first, last):
        scores[i] = 0


@kernel
def plan_moves(
    levels: NDArray[np.int32],
    moves: NDArray[np.int64],
    counts: NDArray[np.int64],
    shared_destination: NDArray[np.int16],
    shared_left: NDArray[np.int32],
) -> None:
    """Turn `levels` into a plan in place.

    A score level that falls into one destination d becomes d. A level shared by several becomes -(s + 1),
    where s is its first entry in the shared table: that entry's left is the level's voxel count, and the
    entries after it hold the destinations and how many each takes.
    """
    used = 0
    for k in range(counts.shape[0]):
        if counts[k] == 0:
            continue
        d = 0
        room = moves[k, 0]
        unseen = counts[k]
        for score in range(levels.shape[1]):
            number = levels[k, score]
            if number == 0:
                continue
            unseen -= number
            while room == 0:
                d += 1
                room = moves[k, d]
            if number <= room:
                levels[k, score] = d
                room -= number
                if unseen == 0:
                    break
                continue
            levels[k, score] = -(used + 1)
            shared_left[used] = number
            used += 1
            left = np.int64(number)
            while left > 0:
                while room == 0:
                    d += 1
                    room = moves[k, d]
                taken = min(room, left)
                shared_destination[used] = d
                shared_left[used] = taken
                used += 1
                room -= taken
                left -= taken
            if unseen == 0:
                break


@kernel
def destination_of(
    code: int,
    voxel: int,
    key: np.uint64,
    shared_destination: NDArray[np.int16],
    shared_left: NDArray[np.int32],
) -> np.int64:
    """Destination for a plan's code; a shared level gives one of its remaining places at random."""
    if code >= 0:
        return np.int64(code)
    head = -code - 1
    place = draw_below(key, np.uint64(voxel), np.int64(shared_left[head]))
    shared_left[head] -= 1
    entry = head + 1
    while place >= shared_left[entry]:
        place -= shared_left[entry]
        entry += 1
    shared_left[entry] -= 1
    return np.int64(shared_destination[entry])
