"""Who moves where: counts are drawn first, then voxels are assigned by rank of an integer score (DESIGN 3).

The numbers are those of independent voxels and are drawn for every lesion by itself; within a bin of one lesion
(a row) the lowest scores take the lowest destinations. So the score shapes texture inside lesions, and neither
the histogram of the scan nor that of a lesion.

Scores are small integers, so ranking is counting; voxels that share a score on the border between
destinations are settled by selection sampling with a hash, which gives every one of them the same chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.field import FIELD_LEVELS
from simulator.dynamics.hashing import draw64, draw_below
from simulator.dynamics.neighbours import WEIGHT_BITS
from simulator.dynamics.transitions import N_DESTINATIONS

NOISE_LEVELS = 32
BONUS_LEVELS = 96
SCORE_LEVELS = FIELD_LEVELS + NOISE_LEVELS + BONUS_LEVELS
_NOISE_SHIFT = np.uint64(59)


def noise_width(steps: int) -> int:
    """Width of the noise in a jump: 32 stepwise, falling with the square root of the jump's length.

    Over n single steps the field acts n times in the same direction while the noise averages out; a jump of
    n does the same at once.
    """
    return max(int(NOISE_LEVELS / np.sqrt(steps) + 0.5), 1)


def bonus_table(strength: float) -> NDArray[np.int64]:
    """Score bonus by number of neighbours above 0 (0..26) for a clustering strength 0..1."""
    return np.array([int(strength * (BONUS_LEVELS - 1) * n / 26 + 0.5) for n in range(27)], np.int64)


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
    bonus: NDArray[np.int64],
    first: int,
    last: int,
    stride: int,
    noise: int,
    key: np.uint64,
    row_counts: NDArray[np.int64],
    scores: NDArray[np.uint8],
    levels: NDArray[np.int32],
) -> None:
    """Fill the score of slots first..last-1 and the number of voxels per (row, score).

    The score is field + noise (0 .. noise - 1) + bonus. A slot's row is region * stride + bin. Rows of
    `levels` in which `row_counts` is 0 are left as they are and never read.
    """
    for row in range(row_counts.shape[0]):
        if row_counts[row] > 0:
            levels[row, :] = 0
    clustering = bonus[26] > 0
    for i in range(first, last):
        random = np.int64(draw64(key, np.uint64(voxels[i])) >> _NOISE_SHIFT)
        score = np.int64(field[i]) + (random * noise >> 5)
        if clustering:
            score += bonus[near[voxels[i]] >> WEIGHT_BITS]
        scores[i] = score
        levels[np.int64(region[i]) * stride + np.int64(bins[i]), score] += 1


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
