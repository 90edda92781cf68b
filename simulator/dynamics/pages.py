"""Arrays as large as a scan of which little is used: memory is taken where it is touched (DESIGN 3)."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def untouched_zeros(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Zeros that take time and memory only page by page, when they are first written.

    NumPy asks Linux for huge pages for its large arrays, and then every touch of a new one clears 2 MB: for
    the neighbourhood of some lesions in 512^3 that was four times the cost of everything else in starting.
    """
    kind = np.dtype(dtype)
    length = max(size, 1) * kind.itemsize
    if hasattr(
        mmap, "MAP_PRIVATE"
    ):  # shared, as Python has it by default, a forked child would write in ours
        block = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        block = mmap.mmap(-1, length)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages has nothing to switch off
            block.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(block, kind, size)


def sparse_copy(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that leaves untouched what is 0 in whole blocks of 64 kB; one-dimensional arrays."""
    result = untouched_zeros(array.size, array.dtype)
    step = 65536 // array.itemsize
    for first in range(0, array.size, step):
        block = array[first : first + step]
        if block.any():
            result[first : first + step] = block
    return result
