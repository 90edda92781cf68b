"""Before anything is imported: two test processes must not write the same cache of compiled kernels."""

import os
from pathlib import Path

# numba#4807: processes that compile the same kernel at once can take each other's machine code for their own.
if "PYTEST_XDIST_WORKER" in os.environ:
    caches = Path(__file__).resolve().parents[1] / ".numba_cache"
    os.environ.setdefault("NUMBA_CACHE_DIR", str(caches / os.environ["PYTEST_XDIST_WORKER"]))
