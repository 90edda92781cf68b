"""Lesions drawn by rules: deformed ellipsoids of textured density, after SyntheticTumors.

Hu et al., Label-free liver tumor segmentation, CVPR 2023, arXiv 2303.14869: a place away from vessels, an
ellipsoid with elastically deformed edge, a texture of smoothed Gaussian noise, a blurred boundary. Their numbers
are of liver tumours; ours are of lung infections, from published statistics of annotated lesions, stated below.

Lesions of the test phantoms (`simulator.phantom.lesion_fields`) follow the density mixture of Zaffino et al. 2021.
Densities here come from other patients and other authors, lest the rival know the test set's; volumes follow the
50 masks of MosMedData that the phantoms are calibrated to as well. Other sources do not make it ignorant: they
describe the same disease.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from standard_space.errors import DataError
from standard_space.scan import Scan

NAME = "ellipsoids"

MEDIAN_TOTAL_ML, TOTAL_LOG_SPREAD = 66.0, 0.85
TOTAL_ML = (0.4, 540.0)
"""All lesions of a scan together: log-normal about the median of 50 radiologist masks of MosMedData (Morozov et
al. 2020; tenth, quartiles and ninetieth 17, 26, 66, 109, 156 ml), kept within their extremes."""
MOST_OF_LUNGS = 0.4
"""A plain bound for small lungs."""
MEDIAN_NUMBER, NUMBER_LOG_SPREAD, MOST_LESIONS = 11.5, 0.9, 65
"""Lesions of a scan over 0.1 ml: log-normal, of the same masks."""
SIZE_CONCENTRATION = 0.15
"""Of the Dirichlet distribution of their volumes: the largest then holds about half of all, as in those masks."""
LEAST_ML = 0.1
SCAN_HU = (-446.0, 90.0)
"""Mean and spread over scans of the mean density of all lesions: the middle of the published early (-462, 99) and
late (-430, 80) stage ("Lung involvement in patients with coronavirus disease-19 (COVID-19): a retrospective study
based on quantitative CT findings", 2020, 52 patients of three hospitals; from its abstract)."""
WITHIN_HU = 211.0
"""Spread of the density of lesions' voxels within a scan: 5th to 95th percentile, -715 to -20 HU, of one
thin-slice COVID-19 scan with labels made by a model (its median, -455 HU, agrees with the study above). The
weakest of the sources, but the only one at hand that is not the mixture of the test phantoms."""
SPREAD_BETWEEN = 0.5
"""Share of the variance within a scan that lies between lesions, the rest within each; no split is published."""
MEAN_HU = (-780.0, 60.0)
AXIS_LOG_SPREAD = 0.25
EDGE_SHARE = (0.08, 0.25)
"""Strength of the elastic deformation as a share of the lesion's radius; its waves are half a radius long."""
TEXTURE_MM = (1.5, 4.0)
"""Gaussian sigma of the texture's noise."""
BLUR_MM = (2.0, 6.0)
"""Width over which the boundary fades."""
FARTHEST = 1.6
"""A lesion cut by pleura, vessels or others grows on elsewhere to keep its volume, to this many radii at most."""


@dataclass(frozen=True)
class Ellipsoid:
    """One lesion.

    Parameters
    ----------
    ml : float
        Volume within the lungs.
    place : float
        Of its centre, 0..1: the rank among voxels of healthy lung.
    half_axes_mm : tuple of float
        Of the undeformed ellipsoid of this volume.
    turn : tuple of float
        Rotation as a unit quaternion.
    edge_mm : float
        Standard deviation of the elastic displacement, along each axis.
    mean_hu, texture_hu : float
        Mean density and standard deviation of its texture.
    texture_mm, blur_mm : float
        Gaussian sigma of the texture; width of the boundary.
    seed : int
        Of the deformation's and the texture's noise.
    """

    ml: float
    place: float
    half_axes_mm: tuple[float, float, float]
    turn: tuple[float, float, float, float]
    edge_mm: float
    mean_hu: float
    texture_hu: float
    texture_mm: float
    blur_mm: float
    seed: int


@dataclass(frozen=True)
class EllipsoidsDraw:
    """What is drawn for one scan: its lesions, the largest first."""

    lesions: tuple[Ellipsoid, ...]


def draw(rng: np.random.Generator, lungs_ml: float) -> EllipsoidsDraw:
    """Draw the lesions of a scan.

    Parameters
    ----------
    rng : numpy.random.Generator
    lungs_ml : float
        Volume of the target's lungs, which bounds that of the lesions.
    """
    total = np.clip(MEDIAN_TOTAL_ML * np.exp(TOTAL_LOG_SPREAD * rng.standard_normal()), *TOTAL_ML)
    total = min(float(total), MOST_OF_LUNGS * lungs_ml)
    wanted = round(MEDIAN_NUMBER * float(np.exp(NUMBER_LOG_SPREAD * rng.standard_normal())))
    number = int(np.clip(wanted, 1, min(MOST_LESIONS, max(1, int(total / LEAST_ML)))))
    shares = rng.dirichlet(np.full(number, SIZE_CONCENTRATION))
    volumes = np.sort(LEAST_ML + shares * max(total - number * LEAST_ML, 0.0))[::-1]
    scan_hu = float(rng.normal(*SCAN_HU))
    return EllipsoidsDraw(tuple(_draw_lesion(rng, float(ml), scan_hu) for ml in volumes))


def _draw_lesion(rng: np.random.Generator, ml: float, scan_hu: float) -> Ellipsoid:
    radius = (3000.0 * ml / (4.0 * np.pi)) ** (1.0 / 3.0)
    stretch = AXIS_LOG_SPREAD * rng.standard_normal(3)
    axes = radius * np.exp(stretch - stretch.mean())
    turn = rng.standard_normal(4)
    turn /= np.linalg.norm(turn)
    return Ellipsoid(
        ml=ml,
        place=float(rng.random()),
        half_axes_mm=(float(axes[0]), float(axes[1]), float(axes[2])),
        turn=(float(turn[0]), float(turn[1]), float(turn[2]), float(turn[3])),
        edge_mm=float(radius * rng.uniform(*EDGE_SHARE)),
        mean_hu=float(np.clip(rng.normal(scan_hu, WITHIN_HU * SPREAD_BETWEEN**0.5), *MEAN_HU)),
        texture_hu=WITHIN_HU * (1.0 - SPREAD_BETWEEN) ** 0.5,
        texture_mm=float(rng.uniform(*TEXTURE_MM)),
        blur_mm=float(rng.uniform(*BLUR_MM)),
        seed=int(rng.integers(0, 2**63 - 1)),
    )


def apply(target: Scan, drawn: EllipsoidsDraw, seed: int) -> Scan:
    """The target with lesions in its healthy lung: a pure function of its arguments.

    Airways, vessels and what is annotated already are left as they are.

    Parameters
    ----------
    target : Scan
    drawn : EllipsoidsDraw
    seed : int
        From which `drawn` was drawn; for the provenance.

    Returns
    -------
    Scan
        The target with another signal, and with the lesions added to its infection.

    Raises
    ------
    DataError
        When the target has no healthy lung.
    """
    before = np.zeros_like(target.lungs) if target.infection is None else target.infection & target.lungs
    free = target.lungs & ~target.airways & ~target.vessels & ~before
    places = np.flatnonzero(free)
    if not len(places):
        raise DataError("the scan has no healthy lung for lesions", where=target.name)
    signal, infection = target.signal.copy(), before
    for lesion in drawn.lesions:
        centre = np.unravel_index(places[int(lesion.place * len(places))], free.shape)
        box = _box(lesion, (int(centre[0]), int(centre[1]), int(centre[2])), target)
        share, label, hu = _paint(lesion, centre, box, free[box] & ~infection[box], target)
        part = signal[box]
        part += share * (target.window.to_signal(hu) - part)
        infection[box] |= label
    told = {"generator": NAME, "seed": seed, "draw": asdict(drawn)}
    return replace(
        target,
        signal=signal,
        infection=infection,
        native_infection=None,
        provenance={**target.provenance, **told},
    )


def _box(lesion: Ellipsoid, centre: tuple[int, int, int], target: Scan) -> tuple[slice, slice, slice]:
    """The voxels that a lesion and its blurred boundary can reach."""
    reach_mm = FARTHEST * max(lesion.half_axes_mm) + 3.0 * lesion.edge_mm + lesion.blur_mm
    z, y, x = (
        slice(max(0, c - int(reach_mm / s) - 1), min(n, c + int(reach_mm / s) + 2))
        for c, s, n in zip(centre, target.grid.spacing_mm, target.grid.shape, strict=True)
    )
    return z, y, x


def _paint(
    lesion: Ellipsoid,
    centre: tuple[np.intp, ...],
    box: tuple[slice, slice, slice],
    free: NDArray[np.bool_],
    target: Scan,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """Share (0..1), label and HU of a lesion in its box; the share is 0 where the lung is not free."""
    rng = np.random.default_rng(lesion.seed)
    spacing = target.grid.spacing_mm
    shape = free.shape
    radius = float(np.prod(lesion.half_axes_mm)) ** (1.0 / 3.0)
    offsets = np.stack(
        np.meshgrid(
            *((np.arange(b.start, b.stop) - c) * s for b, c, s in zip(box, centre, spacing, strict=True)),
            indexing="ij",
        ),
        axis=-1,
    )
    for axis in range(3):
        offsets[..., axis] += lesion.edge_mm * _noise(rng, shape, 0.5 * radius, spacing)
    turned = offsets @ Rotation.from_quat(lesion.turn).as_matrix()
    radii = np.sqrt(np.square(turned / np.asarray(lesion.half_axes_mm)).sum(axis=-1))
    edge = _edge(radii[free], lesion.ml / target.grid.voxel_volume_ml)
    width = max(lesion.blur_mm, target.grid.voxel_volume_mm3 ** (1.0 / 3.0))
    share = np.clip(0.5 + (edge - radii) * radius / width, 0.0, 1.0) * free
    hu = lesion.mean_hu + lesion.texture_hu * _noise(rng, shape, lesion.texture_mm, spacing)
    return share.astype(np.float32), free & (radii < edge), hu.astype(np.float32)


def _edge(radii: NDArray[np.float64], voxels: float) -> float:
    """The radius (1: the ellipsoid's surface) within which the free voxels make up the volume."""
    count = min(max(round(voxels), 1), len(radii))
    if not count:
        return 0.0
    ordered = np.partition(radii, count - 1)
    beyond = ordered[count:].min() if count < len(radii) else np.inf
    return float(min(0.5 * (ordered[count - 1] + min(beyond, FARTHEST)), FARTHEST))


def _noise(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    sigma_mm: float,
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float32]:
    """Smoothed Gaussian noise of zero mean and unit variance."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise = gaussian_filter(noise, [sigma_mm / s for s in spacing_mm], mode="wrap", truncate=3.0)
    noise -= noise.mean()
    return np.asarray(noise / max(float(noise.std()), 1e-6), np.float32)
