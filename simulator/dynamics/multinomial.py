"""Exact draws of whole numbers: binomial, multinomial and Poisson, from hashes (DESIGN 3).

A binomial compares 64 voxels at a time with the binary digits of the probability: lane by lane this is the
comparison "53-bit uniform integer < threshold", so the law is exact for a probability that is a multiple of
2**-53. A multinomial splits the destinations in two, again and again. Decisions are integer comparisons;
the probabilities come from correctly rounded operations only, so every machine draws the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.exactmath import exact_exp
from simulator.dynamics.hashing import draw64, popcount64

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_ELEVEN = np.uint64(11)
_TWO53 = 9007199254740992.0
_POISSON_CHUNK = 16.0


@kernel
def draw_binomial(n: int, probability: float, key: np.uint64, counter: np.uint64) -> tuple[int, np.uint64]:
    """Number of successes in n trials, and the stream's next counter."""
    if n <= 0 or probability <= 0.0:
        return 0, counter
    threshold = np.uint64(_TWO53) if probability >= 1.0 else np.uint64(np.int64(probability * _TWO53))
    if threshold >= np.uint64(_TWO53):
        return n, counter
    successes = 0
    left = n
    while left > 0:
        lanes = min(left, 64)
        undecided = _ALL if lanes == 64 else (_ONE << np.uint64(lanes)) - _ONE
        # digits of the threshold from the highest: a lane is decided where its random digit first differs
        rest = threshold
        bit = 52
        while undecided != _ZERO and rest != _ZERO:
            mask = _ONE << np.uint64(bit)
            random = draw64(key, counter)
            counter += _ONE
            if rest & mask != _ZERO:
                successes += popcount64(undecided & ~random)
                undecided = undecided & random
                rest = rest ^ mask
            else:
                undecided = undecided & ~random
            bit -= 1
        left -= lanes
    return successes, counter


@kernel
def draw_multinomial(
    n: int,
    weights: NDArray[np.float64],
    result: NDArray[np.int64],
    key: np.uint64,
    cumulative: NDArray[np.float64],
    stack: NDArray[np.int64],
) -> None:
    """Fill result with the numbers of n voxels per destination; weights need not sum to exactly 1.

    `cumulative` (one longer than the weights) and `stack` (32, 3) are scratch space.
    """
    size = weights.shape[0]
    result[:] = 0
    if n <= 0:
        return
    first, last = 0, size
    while first < size and weights[first] <= 0.0:
        first += 1
    while last > first and weights[last - 1] <= 0.0:
        last -= 1
    cumulative[first] = 0.0
    for i in range(first, last):
        cumulative[i + 1] = cumulative[i] + weights[i]
    counter = _ZERO
    # explicit stack of (low, high, number); depth is at most log2(131) + 1 pending halves
    stack[0, 0], stack[0, 1], stack[0, 2] = first, last, n
    depth = 1
    while depth > 0:
        depth -= 1
        low, high, number = stack[depth, 0], stack[depth, 1], stack[depth, 2]
        if number == 0:
            continue
        if high - low == 1:
            result[low] = number
            continue
        middle = (low + high) // 2
        whole = cumulative[high] - cumulative[low]
        share = (cumulative[middle] - cumulative[low]) / whole if whole > 0.0 else 0.0
        lower, counter = draw_binomial(number, share, key, counter)
        stack[depth, 0], stack[depth, 1], stack[depth, 2] = low, middle, lower
        depth += 1
        stack[depth, 0], stack[depth, 1], stack[depth, 2] = middle, high, number - lower
        depth += 1


@kernel
def draw_poisson(mean: float, key: np.uint64, counter: np.uint64) -> tuple[int, np.uint64]:
    """A Poisson number by counting arrivals (products of uniforms), and the stream's next counter."""
    number = 0
    left = mean
    while left > 0.0:
        chunk = min(left, _POISSON_CHUNK)
        left -= chunk
        limit = exact_exp(-chunk)
        product = 1.0
        while True:
            uniform = (np.float64(np.int64(draw64(key, counter) >> _ELEVEN)) + 1.0) / _TWO53
            counter += _ONE
            product *= uniform
            if product <= limit:
                break
            number += 1
    return number, counter
