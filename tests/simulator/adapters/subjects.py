"""A small annotated subject on a native geometry, axes (x, y, z), in HU."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.dynamics.parameters import TransitionParameters
from tests.standard_space.bodies import body, geometry

LIVELY = TransitionParameters(
    birth_rate=0.01,
    linked_share=0.5,
    entry_signal=0.08,
    absorption_rate=0.3,
    ggo_growth_rate=0.4,
    conversion_probability=0.5,
    consolidation_growth_rate=0.5,
    stiffness=0.5,
    reference_ggo_voxels=1.0,
)
SPACING_MM = (5.0, 5.0, 6.0)


def subject_arrays() -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
    """Image in HU, infection and lungs, (x, y, z)."""
    image, lungs, infection = body(geometry())
    hu = image.array.copy()
    rng = np.random.default_rng(2)
    hu[infection] = rng.normal(-620.0, 90.0, int(infection.sum()))
    return tuple(  # type: ignore[return-value]
        np.ascontiguousarray(array.transpose(2, 1, 0))
        for array in (hu.astype(np.float32), infection.astype(np.uint8), lungs.astype(np.uint8))
    )


def without(monkeypatch: pytest.MonkeyPatch, library: str, adapter: str) -> None:
    """Make a library look as if it were not installed, and forget the adapter."""
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, adapter, raising=False)

    class Missing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] == library:
                raise ModuleNotFoundError(f"No module named {library!r}", name=library)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
