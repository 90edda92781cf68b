"""Any chest CT into the standard embedding space (paper III-B, DESIGN 2); `restore` is the way back."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from standard_space.anatomy import WORKING_SPACING_MM, Anatomy, find_anatomy, refine_anatomy
from standard_space.errors import DataError, GeometryError, NoLungsError
from standard_space.geometry import Placement, Triple, orient_array
from standard_space.grid import StandardGrid
from standard_space.image import CTImage
from standard_space.lanczos import resample
from standard_space.masks import bounding_box, resample_labels, resample_mask
from standard_space.scan import Scan
from standard_space.version import lungcast_version
from standard_space.window import AIR_HU, Window, auto_window

BODY_ABOVE_HU = -400.0
OUTSIDE_LUNGS_NOTED = 0.05


class NativeMasks(NamedTuple):
    """The user's own masks on the image's grid, (z, y, x); None where there is none.

    `infection` and `lungs` are bool, `lobes` is uint8 labels.
    """

    infection: NDArray[np.bool_] | None = None
    lungs: NDArray[np.bool_] | None = None
    lobes: NDArray[np.uint8] | None = None


def embed(
    image: CTImage,
    grid: StandardGrid,
    *,
    patient: str = "patient",
    scan: str = "scan",
    day: float = 0.0,
    stage: str | None = None,
    infection: NDArray[np.bool_] | None = None,
    lungs: NDArray[np.bool_] | None = None,
    lobes: NDArray[np.uint8] | None = None,
    window: Window | Literal["auto"] | None = None,
    lungs_source: str = "user",
    require_lungs: bool = True,
) -> Scan:
    """Embed a CT: orient to LPS, centre on the lungs, pad with air, Lanczos on three axes, window.

    Parameters
    ----------
    image : CTImage
        HU on the native grid.
    grid : StandardGrid
        The standard grid.
    patient, scan, day, stage
        Names and time for the scan (days).
    infection, lungs : bool array, native shape (z, y, x), optional
        The user's masks on the image's grid. The annotation never changes the lungs.
    lobes : uint8 array, native shape (z, y, x), optional
        The user's lobe labels, carried along.
    window : Window or "auto", optional
        Overrides the window that the image carries; "auto" takes it from the parenchyma. -600/1600 HU when there
        is none.
    lungs_source : str
        Who made `lungs`, for the provenance: "user" or "lungmask".
    require_lungs : bool
        When False, a scan without lungs is centred on the image and embedded with empty masks.

    Returns
    -------
    Scan

    Raises
    ------
    GeometryError
        When a mask's shape is not the image's.
    NoLungsError
        When no lungs are found and they are required.
    DataError
        When the user's lung mask is empty, the annotated infection vanishes in the standard grid, or "auto" finds
        no aerated lung.
    """
    name = f"{patient}/{scan}"
    masks = NativeMasks(infection, lungs, lobes)
    _check_masks(masks, image, name)
    notes = list(image.notes)
    hu, geometry = orient_array(image.array, image.geometry)
    oriented = NativeMasks(
        None if infection is None else orient_array(infection, image.geometry)[0],
        None if lungs is None else orient_array(lungs, image.geometry)[0],
        None if lobes is None else orient_array(lobes, image.geometry)[0],
    )
    found = _anatomy_at_working_spacing(hu, geometry.spacing_mm[::-1], oriented.lungs)
    if found is None and require_lungs:
        raise NoLungsError(
            "no lungs were found",
            where=name,
            remedy="give a lung mask (column `lungs` of the manifest; --lungs of `lungcast segment`)",
        )
    if found is None:
        notes.append("no lungs were found: centred on the image")
    else:
        notes += found.anatomy.notes
    centre = _centre_mm(hu.shape, geometry.spacing_mm[::-1], found, grid, notes)
    placement = Placement(image.geometry, geometry, _offset_mm(centre, geometry.spacing_mm[::-1], grid))

    start, step = placement.to_standard(grid)
    standard_hu = resample(hu, grid.shape, start, step, fill=AIR_HU)
    # Lanczos overshoots beside sharp edges: nothing gets darker or brighter than the scan itself.
    np.clip(standard_hu, min(float(hu.min()), AIR_HU), float(hu.max()), out=standard_hu)
    del hu
    standard = NativeMasks(
        None if oriented.infection is None else resample_mask(oriented.infection, grid.shape, start, step),
        None if oriented.lungs is None else resample_mask(oriented.lungs, grid.shape, start, step),
        None if oriented.lobes is None else resample_labels(oriented.lobes, grid.shape, start, step),
    )
    anatomy = _standard_anatomy(standard_hu, grid, placement, found, standard.lungs)
    notes += _infection_notes(oriented.infection, standard.infection, anatomy.lungs, placement, grid, name)
    chosen = window or image.window or Window()
    if chosen == "auto":
        healthy = anatomy.lungs if standard.infection is None else anatomy.lungs & ~standard.infection
        chosen = auto_window(standard_hu[healthy])
    return Scan(
        patient=patient,
        scan=scan,
        day=day,
        stage=stage,
        grid=grid,
        signal=chosen.to_signal(standard_hu, out=standard_hu),
        lungs=anatomy.lungs,
        left_lung=anatomy.left_lung,
        airways=anatomy.airways,
        vessels=anatomy.vessels if standard.infection is None else anatomy.vessels & ~standard.infection,
        infection=standard.infection,
        lobes=standard.lobes,
        window=chosen,
        placement=placement,
        native_infection=infection,
        native_lungs=lungs,
        provenance={
            "lungcast_version": lungcast_version(),
            "operation": "embed",
            "image_sha256": image.image_sha256,
            "window": {"level_hu": chosen.level_hu, "width_hu": chosen.width_hu, "source": chosen.source},
            "lungs": lungs_source if lungs is not None else ("none" if found is None else "classical"),
            "notes": notes,
        },
    )


def has_lungs(image: CTImage) -> bool:
    """Whether `embed` would find lungs in an image without a mask."""
    hu, geometry = orient_array(image.array, image.geometry)
    return _anatomy_at_working_spacing(hu, geometry.spacing_mm[::-1], None) is not None


def _check_masks(masks: NativeMasks, image: CTImage, name: str) -> None:
    for kind, mask in masks._asdict().items():
        if mask is not None and mask.shape != image.geometry.shape:
            raise GeometryError(
                f"the {kind} mask and the image differ in shape",
                where=name,
                got=mask.shape,
                expected=image.geometry.shape,
            )
    if masks.lungs is not None and not masks.lungs.any():
        raise DataError("the lung mask is empty", where=name, remedy="leave the column blank")


class _Coarse(NamedTuple):
    """Anatomy at the working spacing (z, y, x), sharing voxel (0, 0, 0) with the image."""

    anatomy: Anatomy
    spacing_mm: Triple
    body_x_mm: tuple[float, float]


def _anatomy_at_working_spacing(
    hu: NDArray[np.float32], spacing_mm: Triple, lungs: NDArray[np.bool_] | None
) -> _Coarse | None:
    working = (
        max(spacing_mm[0], WORKING_SPACING_MM),
        max(spacing_mm[1], WORKING_SPACING_MM),
        max(spacing_mm[2], WORKING_SPACING_MM),
    )
    step = (working[0] / spacing_mm[0], working[1] / spacing_mm[1], working[2] / spacing_mm[2])
    nz, ny, nx = (int(np.floor((n - 1) / t)) + 1 for n, t in zip(hu.shape, step, strict=True))
    origin = (0.0, 0.0, 0.0)
    coarse = resample(hu, (nz, ny, nx), origin, step, fill=AIR_HU, kernel="linear")
    coarse_lungs = None if lungs is None else resample_mask(lungs, (nz, ny, nx), origin, step)
    anatomy = find_anatomy(coarse, working, coarse_lungs)
    if anatomy is None:
        return None
    columns = np.flatnonzero((coarse > BODY_ABOVE_HU).mean(axis=(0, 1)) > 0.05)
    ends = (0.0, (nx - 1) * working[2]) if not len(columns) else tuple(columns[[0, -1]] * working[2])
    return _Coarse(anatomy, working, (float(ends[0]), float(ends[1])))


def _centre_mm(
    shape: tuple[int, ...], spacing_mm: Triple, found: _Coarse | None, grid: StandardGrid, notes: list[str]
) -> list[float]:
    """Centre of the standard extent from the oriented image's voxel (0, 0, 0), (z, y, x), mm."""
    if found is None:
        return [(n - 1) * s / 2 for n, s in zip(shape, spacing_mm, strict=True)]
    box = bounding_box(found.anatomy.lungs)
    if box is None:
        raise NoLungsError("the lungs vanish at the working spacing", remedy="check the lung mask's size")
    low = [b.start * s for b, s in zip(box, found.spacing_mm, strict=True)]
    high = [(b.stop - 1) * s for b, s in zip(box, found.spacing_mm, strict=True)]
    centre = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    left = found.anatomy.left_lung
    if not left.any() or not (found.anatomy.lungs & ~left).any():
        # Only one lung was found: the other may be white. Centred on the body as far as the found one allows, it
        # stays in the picture.
        room = (grid.EXTENT_MM[2] - (high[2] - low[2])) / 2 - found.spacing_mm[2]
        body = (found.body_x_mm[0] + found.body_x_mm[1]) / 2
        centre[2] += float(np.clip(body - centre[2], -max(0.0, room), max(0.0, room)))
    size = [b - a + s for a, b, s in zip(low, high, found.spacing_mm, strict=True)]
    if any(have > room for have, room in zip(size, grid.EXTENT_MM, strict=True)):
        inside = [min(1.0, room / have) for have, room in zip(size, grid.EXTENT_MM, strict=True)]
        axis = int(np.argmin(inside))
        notes.append(
            f"the lungs are larger than the standard extent ({size[axis]:.0f} mm along {'zyx'[axis]}, "
            f"{grid.EXTENT_MM[axis]:.0f} mm fit): what lies outside is cut"
        )
    return centre


def _offset_mm(centre_mm: list[float], spacing_mm: Triple, grid: StandardGrid) -> Triple:
    """Position of standard voxel (0, 0, 0): centred to within half a native voxel, on an edge of one.

    Where voxel edges coincide, slices of 1, 2 or 5 mm become 1, 2 or 5 whole standard slices and come back
    exactly; half a voxel beside them, a mask would grow there and back.
    """
    offset = []
    for centre, native, standard, count in zip(
        centre_mm, spacing_mm, grid.spacing_mm, grid.shape, strict=True
    ):
        edges = centre - (count - 1) * standard / 2 + (native - standard) / 2
        offset.append(round(edges / native) * native - (native - standard) / 2)
    return (offset[0], offset[1], offset[2])


def _standard_anatomy(
    standard_hu: NDArray[np.float32],
    grid: StandardGrid,
    placement: Placement,
    found: _Coarse | None,
    user_lungs: NDArray[np.bool_] | None,
) -> Anatomy:
    if found is None:
        empty = np.zeros(grid.shape, np.bool_)
        return Anatomy(empty, empty.copy(), empty.copy(), empty.copy())
    start, step = placement.to_standard(grid, found.spacing_mm)
    coarse = found.anatomy
    moved = Anatomy(
        resample_mask(coarse.lungs, grid.shape, start, step),
        resample_mask(coarse.left_lung, grid.shape, start, step),
        resample_mask(coarse.airways, grid.shape, start, step),
        resample_mask(coarse.vessels, grid.shape, start, step),
        coarse.notes,
    )
    refined = refine_anatomy(standard_hu, grid.spacing_mm, moved, user_lungs)
    # The air that a scan is padded with is no lung, where the field of view cuts one.
    start, step = placement.to_standard(grid)
    for axis, count in enumerate(placement.oriented.shape):
        at = start[axis] + step[axis] * np.arange(grid.size)
        beyond = (slice(None),) * axis + ((at < -0.5) | (at > count - 0.5),)
        for mask in refined[:4]:
            mask[beyond] = False
    return refined


def _infection_notes(
    native: NDArray[np.bool_] | None,
    standard: NDArray[np.bool_] | None,
    lungs: NDArray[np.bool_],
    placement: Placement,
    grid: StandardGrid,
    name: str,
) -> list[str]:
    """What a user should know of the annotation: how much of it is cut off, how much lies outside the lungs.

    The lungs stay as they were found: if the annotation widened them, a score restricted to the lungs would
    profit from the truth.
    """
    if native is None or standard is None or not native.any():
        return []
    if not standard.any():
        raise DataError(
            "the annotated infection vanishes in the standard grid",
            where=name,
            got=f"{int(native.sum())} native voxels",
            remedy="use a finer --grid, or check that the infection lies in the lungs",
        )
    notes = []
    start, step = placement.to_standard(grid)
    inner = tuple(
        slice(max(0, int(np.ceil(a - t / 2))), max(0, int(np.floor(a + (n - 0.5) * t)) + 1))
        for a, t, n in zip(start, step, grid.shape, strict=True)
    )
    cut = 1.0 - float(native[inner].sum()) / float(native.sum())
    if cut > 0:
        notes.append(f"{cut:.1%} of the annotated infection lies outside the standard extent and is cut")
    outside = float((standard & ~lungs).sum()) / float(standard.sum())
    if outside > OUTSIDE_LUNGS_NOTED:
        notes.append(f"{outside:.0%} of the annotated infection lies outside the lungs")
    return notes
