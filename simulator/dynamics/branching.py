"""Many runs from one start: what all of them would work out first is worked out once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.controls import Controls
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.hashing import as_seed
from simulator.dynamics.memory import remember
from simulator.dynamics.state import LesionState


def prepare(start: LesionState, correlation_mm: float) -> LesionState:
    """Work out the memory of annotated tissue (`memory`) at this scale, IN PLACE; nothing else changes.

    It does not depend on a run's seed. Doing it twice costs nothing.

    Raises
    ------
    DynamicsError
        When the state was moved on.
    """
    if start.transition:
        raise DynamicsError(
            "runs branch off from a start", got=f"a state at transition {start.transition}", expected="0"
        )
    if start._remembers and correlation_mm > 0 and start._remembered_mm != correlation_mm:
        remember(
            start._source.reshape(-1), start._status, start._voxel, start._born, start._region,
            start.n, start._n_regions, start._dims, start.spacing_mm, correlation_mm, start._field,
        )  # fmt: skip
        start._remembered_mm = correlation_mm
        start._field_of = None
    return start


def branch(start: LesionState, *, seed: int, controls: Controls | None = None) -> LesionState:
    """A copy of a start that a run with this seed and these controls finds ready; the run is the same.

    Parameters
    ----------
    start : LesionState
        Not moved yet; prepared for the controls' correlation length, once.
    seed : int
        Of the run to come.
    controls : Controls, optional
        Of the run to come; defaults to `Controls()`.

    Raises
    ------
    DynamicsError
        When the state was moved on.
    """
    correlation_mm = (controls if controls is not None else Controls()).correlation_mm
    twin = prepare(start, correlation_mm).copy()
    if start._remembers and correlation_mm > 0:
        twin._field_of = (int(as_seed(seed)), correlation_mm)
    return twin


def occupied_bytes(state: LesionState) -> int:
    """Memory that a state takes beside the scan: large arrays count by their blocks that are not all 0."""
    own = (
        value for name, value in vars(state).items() if name != "_source" and isinstance(value, np.ndarray)
    )
    return sum(_occupied(array) for array in own)


def _occupied(array: NDArray[Any]) -> int:
    if array.nbytes < 1 << 20 or array.ndim != 1:
        return array.nbytes
    step = 65536 // array.itemsize
    return sum(65536 for first in range(0, array.size, step) if array[first : first + step].any())
