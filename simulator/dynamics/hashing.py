"""Counter-based randomness: a 64-bit hash of (seed, purpose, voxel or counter, transition).

A draw depends on its coordinates only, never on what was drawn before, so results are the same on any
number of threads, in any process and from any checkpoint. Integers throughout; the mixing function is the
64-bit finaliser of the SplitMix/Murmur family, applied twice.
"""

from __future__ import annotations

import numpy as np

from simulator.dynamics._jit import kernel

# Purposes keep the streams of different decisions apart. Numbers are part of the results: never reuse one.
PURPOSE_MULTINOMIAL = 1
PURPOSE_BIRTH_NUMBER = 2
PURPOSE_SCORE = 3
PURPOSE_SCORE_TIE = 4
PURPOSE_PLACE = 5
PURPOSE_SEED_PLACE = 6
PURPOSE_SEED_NUMBER = 7
PURPOSE_BIRTH_BIN = 8
PURPOSE_OFFSET = 9
PURPOSE_FIELD = 10
PURPOSE_BIRTH_REGION = 12
PURPOSE_BIRTH_MOVE = 13

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_PURPOSE_STEP = np.uint64(0xD1342543DE82EF95)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)
_S40 = np.uint64(40)
_S2 = np.uint64(2)
_S1 = np.uint64(1)
_S4 = np.uint64(4)
_S56 = np.uint64(56)
_M1 = np.uint64(0x5555555555555555)
_M2 = np.uint64(0x3333333333333333)
_M4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_H01 = np.uint64(0x0101010101010101)


@kernel
def mix64(x: np.uint64) -> np.uint64:
    """Bijective 64-bit finaliser."""
    x = (x ^ (x >> _S30)) * _MIX_A
    x = (x ^ (x >> _S27)) * _MIX_B
    return x ^ (x >> _S31)


@kernel
def stream_key(seed: np.uint64, purpose: int, transition: int) -> np.uint64:
    """Key of the stream for one purpose at one transition."""
    key = mix64(np.uint64(seed) + _GOLDEN)
    key = mix64(key ^ (np.uint64(purpose) * _PURPOSE_STEP))
    return mix64(key + np.uint64(transition) * _GOLDEN)


@kernel
def draw64(key: np.uint64, counter: np.uint64) -> np.uint64:
    """The draw of a stream at a counter (a voxel's flat index, or a running number)."""
    return mix64(key + (np.uint64(counter) + _S1) * _GOLDEN)


@kernel
def draw_below(key: np.uint64, counter: np.uint64, bound: int) -> np.int64:
    """An integer in [0, bound); bias at most bound / 2**64."""
    return np.int64(draw64(key, counter) % np.uint64(bound))


@kernel
def draw_fraction(key: np.uint64, counter: np.uint64) -> np.float32:
    """A float32 in [0, 1), a multiple of 2**-24 and therefore exact."""
    return np.float32(np.int64(draw64(key, counter) >> _S40)) * np.float32(5.9604644775390625e-08)


@kernel
def popcount64(x: np.uint64) -> np.int64:
    """Number of set bits."""
    x = x - ((x >> _S1) & _M1)
    x = (x & _M2) + ((x >> _S2) & _M2)
    x = (x + (x >> _S4)) & _M4
    return np.int64((x * _H01) >> _S56)


def as_seed(seed: int) -> np.uint64:
    """Any Python integer as an unsigned 64-bit seed (two's complement for negative ones)."""
    return np.uint64(int(seed) & 0xFFFFFFFFFFFFFFFF)
