"""Too little memory, told with the options to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from standard_space.errors import DataError

REMEDY = "use a smaller --batch, --patch or --width, or a smaller --memory-mb for the scans kept in memory"
_SAID_BY_TORCH = ("can't allocate memory", "not enough memory", "out of memory", "failed to allocate")


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Turn an allocation that failed, of whatever library, into a `DataError`.

    Raises
    ------
    DataError
        Names the options that need less memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DataError("the GPU's memory is full", remedy=REMEDY) from error
    except MemoryError as error:
        raise DataError("out of memory", remedy=REMEDY) from error
    except RuntimeError as error:
        # On a processor torch has no type of its own for this.
        if not any(words in str(error).lower() for words in _SAID_BY_TORCH):
            raise
        raise DataError("out of memory", remedy=REMEDY) from error
