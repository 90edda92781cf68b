"""Small made-up scans: two ellipsoid lungs in a body, ball lesions; cheap enough for every test."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from segmentation.training import TrainingItem
from standard_space.geometry import Geometry, Placement
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.window import Window


def ellipsoid(
    shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Voxels inside an ellipsoid; centre and radii as shares of each side."""
    axes = np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij")
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)) <= 1.0


def toy_scan(
    patient: str = "P1",
    scan: str = "S1",
    *,
    size: int = 32,
    seed: int = 0,
    annotated: bool = True,
    own_lungs: bool = False,
) -> Scan:
    """A scan with lesions brighter than lung and darker than the body, on a native grid of its own."""
    rng = np.random.default_rng(seed)
    grid = StandardGrid(size)
    body = ellipsoid(grid.shape, (0.5, 0.5, 0.5), (0.6, 0.45, 0.48))
    left = ellipsoid(grid.shape, (0.5, 0.5, 0.3), (0.35, 0.3, 0.15))
    right = ellipsoid(grid.shape, (0.5, 0.5, 0.7), (0.35, 0.3, 0.15))
    lungs = left | right
    infection = np.zeros(grid.shape, np.bool_)
    for _ in range(3):
        x = rng.choice([0.3, 0.7])
        centre = (rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.65), x)
        infection |= ellipsoid(grid.shape, centre, (0.1, 0.12, 0.1)) & lungs
    hu = np.full(grid.shape, -1000.0)
    hu[body] = 40.0
    hu[lungs] = -850.0
    hu[infection] = -350.0
    hu += rng.normal(0.0, 40.0, grid.shape)
    window = Window()
    z, y, x_mm = grid.spacing_mm
    # The native grid is coarser than the standard one along z and shifted against it.
    native = Geometry(
        (size, size, size // 2), (x_mm, y, 2 * z), (10.0, -20.0, 30.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)
    )
    placement = Placement(native, native, (-0.5 * z, 0.0, 0.0))
    native_infection, native_lungs = (
        mask.reshape(size // 2, 2, size, size).mean(axis=1) >= 0.5 for mask in (infection, lungs)
    )
    return Scan(
        patient=patient,
        scan=scan,
        day=0.0,
        stage="early" if seed % 2 == 0 else "late",
        grid=grid,
        signal=window.to_signal(hu.astype(np.float32)),
        lungs=lungs,
        airways=np.zeros_like(lungs),
        vessels=np.zeros_like(lungs),
        infection=infection if annotated else None,
        window=window,
        placement=placement,
        native_infection=native_infection if annotated else None,
        native_lungs=native_lungs if own_lungs else None,
        provenance={
            "image_sha256": f"{patient}-{scan}-{seed}",
            "lungs": "user" if own_lungs else "classical",
        },
    )


def toy_items(
    count: int = 3, *, size: int = 32, synthetic: bool = False, seed: int = 0
) -> list[TrainingItem]:
    """Training items of several patients with one scan each."""
    return [
        TrainingItem(
            f"P{k}/S1",
            synthetic,
            partial(toy_scan, f"P{k}", "S1", size=size, seed=seed + k),
            patient=f"P{k}",
            image_sha256=f"P{k}-S1-{seed + k}",
        )
        for k in range(count)
    ]
