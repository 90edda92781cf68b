"""Synthetic scans with lungs, vessels and lesions for `benchmarks/dynamics.py`, made fast at any size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from simulator.dynamics.bins import N_BELOW, histogram, to_state
from simulator.dynamics.chain import propagate
from simulator.dynamics.parameters import TransitionParameters

SPACING_MM = (1.0, 334 / 512, 334 / 512)
LESION_AXES_SHARE = (0.6, 1.0, 1.0)  # of a lesion's radius, z y x, in mm; lesions are flatter than long

WORKED_EXAMPLE = TransitionParameters(
    birth_rate=0.004,
    linked_share=0.5,
    entry_signal=0.101,
    absorption_rate=0.105,
    ggo_growth_rate=0.85,
    conversion_probability=0.559,
    consolidation_growth_rate=0.688,
    stiffness=0.067,
    reference_ggo_voxels=1.0,
)
"""The rates of DESIGN 3's worked example; births are chosen by `growing`."""


@dataclass(frozen=True)
class Chest:
    """What a caller of `start_state` holds: signal float32, infection and susceptible bool, all (z, y, x)."""

    signal: NDArray[np.float32]
    infection: NDArray[np.bool_]
    susceptible: NDArray[np.bool_]

    def save(self, folder: Path) -> None:
        """Write the three volumes as .npy."""
        for name, volume in vars(self).items():
            np.save(folder / f"{name}.npy", volume)

    @classmethod
    def load(cls, folder: Path) -> Chest:
        """Read the three volumes."""
        return cls(*(np.load(folder / f"{name}.npy") for name in ("signal", "infection", "susceptible")))

    def crop(self, size: int) -> Chest:
        """The cube of that many voxels an edge around the lesions' middle."""
        places = np.argwhere(self.infection)
        middle = np.median(places, axis=0).astype(int)
        corner = [
            int(np.clip(m - size // 2, 0, n - size))
            for m, n in zip(middle, self.infection.shape, strict=True)
        ]
        box = tuple(slice(c, c + size) for c in corner)
        return Chest(*(np.ascontiguousarray(volume[box]) for volume in vars(self).values()))

    def counts(self) -> NDArray[np.float64]:
        """Infected voxels per bin."""
        return histogram(to_state(self.signal[self.infection])[0])


def make_chest(size: int, infected: int, lesions: int, seed: int = 0) -> Chest:
    """A cube of `size` standard voxels: two lungs, vessels, uneven lesions.

    At 512 the lungs hold about 13 million voxels (5.5 l) without their vessels. See `with_lesions`.
    """
    rng = np.random.default_rng([seed, size])
    susceptible = _lungs(size)
    _cut_vessels(susceptible, rng, count=max(12, size * 5 // 4))
    signal = rng.standard_normal((size,) * 3, dtype=np.float32)
    signal *= np.float32(0.02)
    signal -= np.where(susceptible, np.float32(0.17), np.float32(-0.3))
    return with_lesions(Chest(signal, np.zeros_like(susceptible), susceptible), infected, lesions, seed)


def with_lesions(chest: Chest, infected: int, lesions: int, seed: int = 0) -> Chest:
    """The chest with other lesions: clumps of balls of unequal size, `infected` voxels (to 0.5 %)."""
    rng = np.random.default_rng([seed, infected])
    signal = chest.signal.copy()
    number = int(chest.infection.sum())
    signal[chest.infection] = rng.normal(-0.17, 0.02, number).astype(np.float32)
    infection = _lesions(chest.susceptible, infected, lesions, rng)
    number = int(infection.sum())
    peaks = np.where(rng.random(number) < 0.68, -0.0275, 0.0925)  # the worked example's two peaks
    signal[infection] = np.clip(rng.normal(peaks, 0.03), -0.149, 0.49).astype(np.float32)
    return Chest(signal, infection, chest.susceptible)


def growing(chest: Chest, end: float, transitions: int) -> TransitionParameters:
    """The worked example with the birth rate that brings the chest's lesions to `end` voxels (by the chain)."""
    counts = chest.counts()
    rates = replace(WORKED_EXAMPLE, reference_ggo_voxels=max(1.0, float(counts[:N_BELOW].sum())))

    def excess(birth_rate: float) -> float:
        return float(propagate(counts, replace(rates, birth_rate=birth_rate), transitions).sum()) - end

    return replace(rates, birth_rate=float(brentq(excess, 1e-9, 0.2, xtol=1e-12)))


def _lungs(size: int) -> NDArray[np.bool_]:
    """Two ellipsoids beside each other."""
    z, y, x = (np.arange(size, dtype=np.float32) / size - 0.5 for _ in range(3))
    depth = (z[:, None, None] / 0.30) ** 2 + (y[None, :, None] / 0.26) ** 2
    lungs = np.zeros((size,) * 3, np.bool_)
    for side in (-0.19, 0.19):
        lungs |= depth + (((x - side) / 0.16) ** 2)[None, None, :] < 1.0
    return lungs


def _cut_vessels(tissue: NDArray[np.bool_], rng: np.random.Generator, count: int) -> None:
    """Take straight vessels of 1 to 3 mm radius out of the tissue, in place."""
    size = np.array(tissue.shape)
    spacing = np.array(SPACING_MM)
    for _ in range(count):
        start = size * (0.5 + 0.25 * (rng.random(3) - 0.5))
        direction = rng.normal(size=3)
        length_mm = 0.45 * float(size.min()) * spacing.min()
        radius_mm = rng.uniform(1.0, 3.0)
        steps = np.arange(0.0, length_mm, radius_mm / 2)
        path = start + steps[:, None] * (direction / np.linalg.norm(direction)) / spacing
        reach = np.ceil(radius_mm / spacing).astype(int)
        offsets = np.indices(2 * reach + 1).reshape(3, -1).T - reach
        offsets = offsets[(((offsets * spacing) / radius_mm) ** 2).sum(axis=1) <= 1]
        voxels = (np.round(path).astype(int)[:, None] + offsets).reshape(-1, 3)
        voxels = voxels[((voxels >= 0) & (voxels < size)).all(axis=1)]
        tissue[tuple(voxels.T)] = False


def _lesions(
    tissue: NDArray[np.bool_], infected: int, lesions: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Clumps of balls around random places in the tissue, all scaled until the wanted number is met."""
    places = rng.choice(np.flatnonzero(tissue), lesions, replace=False)
    middles = np.stack(np.unravel_index(places, tissue.shape), axis=1)
    share = rng.lognormal(0.0, 0.8, lesions)
    share /= share.sum()
    balls = []  # centre in mm from the lesion's middle and radius, for a lesion of 1 mm3
    for part in share:
        unit = (part * 3 / (4 * math.pi)) ** (1 / 3)
        balls.append(
            [
                (rng.normal(0, 0.8 * unit, 3) * LESION_AXES_SHARE, unit * rng.uniform(0.5, 1.0))
                for _ in range(8)
            ]
        )

    def drawn(scale: float) -> NDArray[np.bool_]:
        mask = np.zeros(tissue.shape, np.bool_)
        for middle, parts in zip(middles, balls, strict=True):
            for centre, radius in parts:
                _draw_ball(mask, middle + scale * centre / SPACING_MM, scale * radius)
        mask &= tissue
        return mask

    voxel_mm3 = math.prod(SPACING_MM)
    low, high = 0.0, 4.0 * (infected * voxel_mm3) ** (1 / 3)
    for _ in range(24):
        scale = 0.5 * (low + high)
        mask = drawn(scale)
        number = int(mask.sum())
        if abs(number - infected) <= 0.005 * infected:
            break
        low, high = (scale, high) if number < infected else (low, scale)
    return mask


def _draw_ball(mask: NDArray[np.bool_], centre: NDArray[np.float64], radius_mm: float) -> None:
    """Set the voxels within a radius of a place given in voxels."""
    box, parts = [], []
    for at, step, n in zip(centre, SPACING_MM, mask.shape, strict=True):
        first = int(np.clip(math.floor(at - radius_mm / step), 0, n - 1))
        last = int(np.clip(math.ceil(at + radius_mm / step), 0, n - 1)) + 1
        box.append(slice(first, last))
        parts.append(((np.arange(first, last) - at) * step / radius_mm) ** 2)
    inside = parts[0][:, None, None] + parts[1][None, :, None] + parts[2][None, None, :] <= 1.0
    mask[tuple(box)] |= inside
