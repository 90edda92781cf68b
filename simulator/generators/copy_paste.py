"""Lesions of one scan pasted into another at the same place, after CarveMix.

Zhang et al., CarveMix: a simple data augmentation method for brain lesion segmentation, MICCAI 2021, DOI
10.1007/978-3-030-87193-2_19; NeuroImage 271:120041 (2023). A region around the donor's lesions, grown or shrunk by
a margin that goes with the lesions' own size, replaces the target's voxels, signal and label alike.

Both scans lie centred on their lungs in the standard space, so the same place is the same voxel, as in the paper;
no signal is interpolated. Ours: what is pasted is lung of both scans (or annotated in the donor), and signal goes
by way of HU, for the scans' windows may differ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from standard_space.errors import DataError, UsageError
from standard_space.masks import bounding_box
from standard_space.scan import Scan

NAME = "copy-paste"
MOST_SHRUNK, MOST_GROWN = -0.5, 1.0
"""Ends of the margin as shares of the lesions' largest depth [Zhang et al. 2021, section 2.3]."""


@dataclass(frozen=True)
class CopyPasteDraw:
    """What is drawn for one scan.

    Parameters
    ----------
    margin_share : float
        Margin of the region beyond the lesions' edge, as a share of their largest depth; -0.5..1, negative within.
    """

    margin_share: float


def draw(rng: np.random.Generator) -> CopyPasteDraw:
    """Draw a margin: shrunk or grown with equal probability, uniform within either (section 2.3)."""
    grown = bool(rng.random() < 0.5)
    return CopyPasteDraw(float(rng.uniform(0.0, MOST_GROWN) if grown else rng.uniform(MOST_SHRUNK, 0.0)))


def carve(
    infection: NDArray[np.bool_], spacing_mm: tuple[float, float, float], margin_share: float
) -> NDArray[np.bool_]:
    """The region around lesions whose signed distance to their edge is below a share of their largest depth.

    Parameters
    ----------
    infection : bool array, shape (z, y, x)
    spacing_mm : tuple of float
        (z, y, x), mm.
    margin_share : float
        See `CopyPasteDraw`.

    Returns
    -------
    bool array, shape (z, y, x); never empty unless `infection` is.
    """
    region = np.zeros_like(infection)
    box = bounding_box(infection)
    if box is None:
        return region
    # The volume's edge is no edge of a lesion, hence no padding but what lies beyond the box.
    inner = _grown(box, (1, 1, 1), infection.shape)
    depth_mm = _depths(infection[inner], spacing_mm)
    deepest_mm = float(depth_mm.max())
    reach = [int(np.ceil(max(margin_share, 0.0) * deepest_mm / s)) + 1 for s in spacing_mm]
    outer = _grown(box, (reach[0], reach[1], reach[2]), infection.shape)
    lesion = infection[outer]
    signed_mm = np.where(lesion, -_depths(lesion, spacing_mm), _depths(~lesion, spacing_mm))
    region[outer] = signed_mm < margin_share * deepest_mm
    return region


def fits(target: Scan, donor: Scan, drawn: CopyPasteDraw) -> bool:
    """Whether any of the donor's lesions would lie within the target's lungs; raises as `apply` does otherwise."""
    return bool(_placed(target, donor, drawn)[1].any())


def apply(target: Scan, donor: Scan, drawn: CopyPasteDraw, seed: int) -> Scan:
    """The target with the donor's lesions pasted in: a pure function of its arguments.

    Parameters
    ----------
    target, donor : Scan
        On the same standard grid; the donor is annotated and has lesions.
    drawn : CopyPasteDraw
    seed : int
        From which `drawn` was drawn; for the provenance.

    Returns
    -------
    Scan
        The target with another signal and infection, within its lungs; the label in the region is the donor's.

    Raises
    ------
    UsageError
        When the grids differ.
    DataError
        When the donor has no lesion, or none of it lies within the target's lungs.
    """
    region, lesion = _placed(target, donor, drawn)
    if not lesion.any():
        raise DataError(f"no lesion of {donor.name} lies within the lungs", where=target.name)
    signal = target.signal.copy()
    signal[region] = target.window.to_signal(donor.window.to_hu(donor.signal[region]))
    infection = np.zeros_like(region) if target.infection is None else target.infection & target.lungs
    infection[region] = lesion[region]
    told = {"generator": NAME, "seed": seed, "draw": {**asdict(drawn), "donor": donor.name}}
    return replace(
        target,
        signal=signal,
        infection=infection,
        native_infection=None,
        provenance={**target.provenance, **told},
    )


def _placed(target: Scan, donor: Scan, drawn: CopyPasteDraw) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The carved region as far as it is lung of the target and lung or lesion of the donor; the lesions in it."""
    if target.grid != donor.grid:
        raise UsageError(
            "a lesion can be pasted between scans of one grid only",
            where=target.name,
            got=f"{donor.name} at {donor.grid.size}^3",
            expected=f"{target.grid.size}^3",
        )
    if donor.infection is None or not donor.infection.any():
        raise DataError("the scan has no lesion to paste", where=donor.name)
    region = carve(donor.infection, donor.grid.spacing_mm, drawn.margin_share)
    region &= target.lungs & (donor.lungs | donor.infection)
    return region, region & donor.infection


def _depths(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Distance to the nearest voxel outside a mask, mm; of a mask that fills its array, to beyond the array."""
    if mask.all():
        return np.asarray(distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm))[1:-1, 1:-1, 1:-1]
    return np.asarray(distance_transform_edt(mask, sampling=spacing_mm))


def _grown(
    box: tuple[slice, slice, slice], by: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    z, y, x = (
        slice(max(0, part.start - n), min(size, part.stop + n))
        for part, n, size in zip(box, by, shape, strict=True)
    )
    return z, y, x
