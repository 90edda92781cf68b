"""Reading a whole scan once: which voxels are tissue, which are infected, and what is wrong with them.

Most of a scan is no tissue, so 64 voxels are skipped at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.hashing import popcount64
from simulator.dynamics.neighbours import ANNOTATED, INFECTED

_WORD = 8
_BLOCK = 8  # words looked at together while there is nothing in them
_ZERO = np.uint64(0)


@kernel
def _is_empty(first: NDArray[np.uint64], second: NDArray[np.uint64], word: int) -> bool:
    """Whether a block of words is 0 in both."""
    seen = _ZERO
    for i in range(word, word + _BLOCK):
        seen |= first[i] | second[i]
    return seen == _ZERO


@kernel
def survey_tissue(
    source: NDArray[np.float32],
    infected: NDArray[np.uint8],
    tissue: NDArray[np.uint8],
    status: NDArray[np.uint8],
) -> tuple[int, int, int, int]:
    """Fill the status of every voxel.

    Parameters
    ----------
    source : float32, flat
    infected, tissue : uint8, flat
        0 or 1.
    status : uint8, flat
        All 0; filled with FREE, or INFECTED and ANNOTATED.

    Returns
    -------
    infected, outside, bad, free : int
        Infected voxels; those of them that are not tissue; tissue voxels whose signal is NaN or infinite;
        tissue that is not infected.
    """
    size = source.shape[0]
    whole = size // _WORD
    infected_words = infected[: whole * _WORD].view(np.uint64)
    tissue_words = tissue[: whole * _WORD].view(np.uint64)
    status_words = status[: whole * _WORD].view(np.uint64)
    number, outside, bad, free = 0, 0, 0, 0
    word = -1
    while word < whole:
        word += 1
        if word % _BLOCK == 0:
            while word + _BLOCK <= whole and _is_empty(infected_words, tissue_words, word):
                word += _BLOCK
        first, last = word * _WORD, min((word + 1) * _WORD, size)
        if word < whole and infected_words[word] == _ZERO:
            if tissue_words[word] == _ZERO:
                continue
            status_words[word] = tissue_words[word]  # FREE is 1
            free += popcount64(tissue_words[word])
            strange = np.float32(0.0)
            for i in range(first, last):
                strange += source[i] - source[i]  # 0 for finite numbers only
            if strange == 0.0:
                continue
            for i in range(first, last):
                bad += tissue[i] & (source[i] - source[i] != 0.0)
            continue
        for i in range(first, last):
            bad += tissue[i] & (source[i] - source[i] != 0.0)
            if infected[i] != 0:
                number += 1
                outside += 1 - tissue[i]
                status[i] = np.uint8(INFECTED | ANNOTATED)
            else:
                free += tissue[i]
                status[i] = tissue[i]
    return number, outside, bad, free


@kernel
def collect_infected(infected: NDArray[np.uint8], index: NDArray[np.int64]) -> None:
    """Fill index with the infected voxels in ascending order."""
    size = infected.shape[0]
    whole = size // _WORD
    words = infected[: whole * _WORD].view(np.uint64)
    found = 0
    word = -1
    while word < whole:
        word += 1
        if word % _BLOCK == 0:
            while word + _BLOCK <= whole and _is_empty(words, words, word):
                word += _BLOCK
        if word < whole and words[word] == _ZERO:
            continue
        for i in range(word * _WORD, min((word + 1) * _WORD, size)):
            if infected[i] != 0:
                index[found] = i
                found += 1
