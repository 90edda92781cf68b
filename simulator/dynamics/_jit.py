"""The one place where Numba's flags are set.

Kernels are cached on disk, release the GIL and follow IEEE arithmetic: no fastmath, because reassociated
or fused sums differ between processors and could decide where a voxel goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile `function` in nopython mode, cached, without the GIL and without fastmath."""
    return cast(Function, njit(cache=True, nogil=True, error_model="numpy")(function))
