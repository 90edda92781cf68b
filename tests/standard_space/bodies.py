"""A crude body with two lungs, a trachea and a lesion, on any native geometry: enough to test geometry."""

from __future__ import annotations

import numpy as np

from standard_space.geometry import Geometry
from standard_space.image import CTImage


def rotation(degrees: float, axis: int) -> np.ndarray:
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.eye(3)
    a, b = [i for i in range(3) if i != axis]
    turn[a, a], turn[b, b], turn[a, b], turn[b, a] = c, c, -s, s
    return turn


def geometry(
    size: tuple[int, int, int] = (72, 64, 60),
    spacing: tuple[float, float, float] = (5.0, 5.0, 6.0),
    direction: np.ndarray | None = None,
    centre: tuple[float, float, float] = (12.0, -30.0, 250.0),
) -> Geometry:
    """A geometry whose middle voxel lies at `centre` (LPS mm)."""
    turn = np.eye(3) if direction is None else direction
    middle = (np.asarray(size) - 1) / 2 * np.asarray(spacing)
    x, y, z = (np.asarray(centre) - turn @ middle).tolist()
    return Geometry(size, spacing, (x, y, z), tuple(turn.ravel().tolist()))


LESION_CENTRE_MM = np.array([12.0 - 70.0, -30.0 + 35.0, 250.0 - 30.0])


def body(where: Geometry, noise_hu: float = 5.0) -> tuple[CTImage, np.ndarray, np.ndarray]:
    """Image, lungs and infection of a body standing still in the world at (12, -30, 250)."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in where.shape), indexing="ij")
    world = where.to_world(np.stack([i, j, k], axis=-1)) - np.array([12.0, -30.0, 250.0])
    x, y, z = world[..., 0], world[..., 1], world[..., 2]
    torso = (x / 155) ** 2 + (y / 110) ** 2 < 1
    lungs = np.zeros(x.shape, bool)
    for side in (-1, 1):
        lungs |= ((x - side * 70) / 52) ** 2 + (y / 75) ** 2 + (z / 115) ** 2 < 1
    trachea = (x**2 + (y - 5) ** 2 < 9**2) & (z > 30)
    infection = ((world + np.array([12.0, -30.0, 250.0]) - LESION_CENTRE_MM) ** 2).sum(-1) < 28**2
    infection &= lungs
    hu = np.full(x.shape, -1000.0)
    hu[torso] = 40.0
    hu[lungs] = -850.0
    hu[infection] = -500.0
    hu[trachea] = -1000.0
    hu += np.random.default_rng(5).normal(0, noise_hu, hu.shape)
    return CTImage(hu.astype(np.float32), where, "0" * 64), lungs, infection
