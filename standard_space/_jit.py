"""One place for the compile flags of this package's kernels."""

from __future__ import annotations

from numba import njit

# No fastmath: results must not depend on the processor. Plain loops over rows run in parallel; each output
# voxel is computed by one thread in one order, so the number of threads never shows.
kernel = njit(cache=True, nogil=True)
parallel_kernel = njit(cache=True, nogil=True, parallel=True)
