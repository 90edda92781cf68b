"""The one place where Numba's flags are set.

Kernels are cached on disk, release the GIL and follow IEEE arithmetic: no fastmath, because reassociated
or fused sums differ between processors and could decide where a voxel goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from numba import njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` in nopython mode, cached, without the GIL and without fastmath.

    Typed loosely: Numba specialises by argument, and unsigned results reach Python as plain integers.
    """
    return cast(Callable[..., Any], njit(cache=True, nogil=True, error_model="numpy")(function))
