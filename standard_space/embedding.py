"""Any chest CT into the standard embedding space, and the exact way back (paper III-B, DESIGN 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from standard_space.anatomy import WORKING_SPACING_MM, Anatomy, find_anatomy
from standard_space.errors import DataError, GeometryError, NoLungsError
from standard_space.geometry import Geometry, Placement, orient
from standard_space.grid import StandardGrid
from standard_space.image import CTImage
from standard_space.lanczos import Kernel, resample
from standard_space.scan import Scan
from standard_space.version import lungcast_version
from standard_space.window import AIR_HU, Window


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
    window: Window | None = None,
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
    window : Window, optional
        Overrides the window that the image carries; -600/1600 HU when neither is there.
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
        When the user's lung mask is empty, or infection is annotated entirely outside the standard extent.
    """
    for name, mask in (("infection", infection), ("lungs", lungs)):
        if mask is not None and mask.shape != image.geometry.shape:
            raise GeometryError(
                f"the {name} mask and the image differ in shape",
                got=mask.shape,
                expected=image.geometry.shape,
            )
    if lungs is not None and not lungs.any():
        raise DataError("the lung mask is empty", where=f"{patient}/{scan}", remedy="leave the column blank")
    notes = list(image.notes)
    oriented = orient(image.geometry.apply(image.array))
    hu = sitk.GetArrayFromImage(oriented)
    geometry = Geometry.of(oriented)
    spacing = geometry.spacing_mm[::-1]
    lungs_lps = None if lungs is None else _orient_mask(lungs, image.geometry)
    infection_lps = None if infection is None else _orient_mask(infection, image.geometry)

    found = _anatomy_at_working_spacing(hu, spacing, lungs_lps)
    if found is None:
        if require_lungs:
            raise NoLungsError(
                "no lungs were found",
                where=f"{patient}/{scan}",
                remedy="give a lung mask (column `lungs` of the manifest, or --lungs)",
            )
        notes.append("no lungs were found: centred on the image")
        centre = np.array([(n - 1) * s / 2 for n, s in zip(hu.shape, spacing, strict=True)])
    else:
        anatomy, working = found
        others = [tuple(a for a in range(3) if a != axis) for axis in range(3)]
        ends = [np.flatnonzero(anatomy.lungs.any(axis=axes)) for axes in others]
        centre = np.array([(e[0] + e[-1]) / 2 * s for e, s in zip(ends, working, strict=True)])
        extent = np.array([(e[-1] - e[0] + 1) * s for e, s in zip(ends, working, strict=True)])
        if (extent > np.asarray(grid.EXTENT_MM)).any():
            notes.append("the lungs are larger than the standard extent: what lies outside is cut")
    half = np.array([(n - 1) * s / 2 for n, s in zip(grid.shape, grid.spacing_mm, strict=True)])
    z, y, x = (centre - half).tolist()
    placement = Placement(image.geometry, geometry, (z, y, x))

    chosen = window or image.window or Window()
    standard_hu = _to_standard(hu, spacing, placement, grid, fill=AIR_HU, kernel="lanczos")
    del hu
    if found is None:
        empty = np.zeros(grid.shape, np.bool_)
        masks = Anatomy(empty, empty.copy(), empty.copy())
    else:
        masks = Anatomy(*(_mask_to_standard(mask, working, placement, grid) for mask in anatomy))
        if lungs_lps is not None:
            masks = masks._replace(lungs=_mask_to_standard(lungs_lps, spacing, placement, grid))
    standard_infection = None
    if infection_lps is not None:
        standard_infection = _mask_to_standard(infection_lps, spacing, placement, grid)
        if infection_lps.any() and not standard_infection.any():
            raise DataError(
                "the annotated infection vanishes in the standard grid",
                where=f"{patient}/{scan}",
                got=f"{int(infection_lps.sum())} native voxels",
                remedy="use a finer --grid, or check that the infection lies in the lungs",
            )
        outside = float((standard_infection & ~masks.lungs).sum()) / max(1.0, float(standard_infection.sum()))
        if outside > 0.05:
            # The lungs stay as they were found: if the annotation widened them, a score restricted to the lungs
            # would profit from the truth.
            notes.append(f"{outside:.0%} of the annotated infection lies outside the lungs")
    return Scan(
        patient=patient,
        scan=scan,
        day=day,
        stage=stage,
        grid=grid,
        signal=chosen.to_signal(standard_hu),
        lungs=masks.lungs,
        airways=masks.airways,
        vessels=masks.vessels & ~standard_infection if standard_infection is not None else masks.vessels,
        infection=standard_infection,
        window=chosen,
        placement=placement,
        native_infection=infection,
        native_lungs=lungs,
        provenance={
            "lungcast_version": lungcast_version(),
            "operation": "embed",
            "image_sha256": image.image_sha256,
            "window": {"level_hu": chosen.level_hu, "width_hu": chosen.width_hu, "source": chosen.source},
            "lungs": "user" if lungs is not None else ("none" if found is None else "classical"),
            "notes": notes,
        },
    )


def restore_volume(
    volume: NDArray[np.floating], placement: Placement, *, fill: float = 0.0
) -> NDArray[np.float32]:
    """Bring a standard volume back to the native grid by linear interpolation (averaging when shrinking).

    Parameters
    ----------
    volume : float array, shape (size, size, size)
        On the standard grid.
    placement : Placement
        The scan's placement.
    fill : float
        Value of native voxels outside the standard extent.

    Returns
    -------
    float32 array of the native shape (z, y, x).
    """
    grid = StandardGrid(volume.shape[0])
    spacing = placement.oriented.spacing_mm[::-1]
    start = [-o / s for o, s in zip(placement.offset_mm, grid.spacing_mm, strict=True)]
    step = [n / s for n, s in zip(spacing, grid.spacing_mm, strict=True)]
    oriented = resample(
        np.asarray(volume, np.float32),
        placement.oriented.shape,
        _triple(start),
        _triple(step),
        fill=fill,
        kernel="linear",
    )
    image = orient(placement.oriented.apply(oriented), placement.native.orientation)
    return sitk.GetArrayFromImage(image)


def restore_mask(mask: NDArray[np.bool_], placement: Placement) -> NDArray[np.bool_]:
    """Bring a standard mask back to the native grid: linear interpolation, cut at one half."""
    return restore_volume(mask.astype(np.float32), placement) >= 0.5


def _to_standard(
    volume: NDArray[np.float32],
    spacing_mm: tuple[float, ...],
    placement: Placement,
    grid: StandardGrid,
    *,
    fill: float,
    kernel: Kernel,
    origin_mm: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> NDArray[np.float32]:
    start = [(o - w) / s for o, w, s in zip(placement.offset_mm, origin_mm, spacing_mm, strict=True)]
    step = [g / s for g, s in zip(grid.spacing_mm, spacing_mm, strict=True)]
    return resample(volume, grid.shape, _triple(start), _triple(step), fill=fill, kernel=kernel)


def _mask_to_standard(
    mask: NDArray[np.bool_], spacing_mm: tuple[float, ...], placement: Placement, grid: StandardGrid
) -> NDArray[np.bool_]:
    volume = _to_standard(mask.astype(np.float32), spacing_mm, placement, grid, fill=0.0, kernel="linear")
    return volume >= 0.5


def _orient_mask(mask: NDArray[np.bool_], native: Geometry) -> NDArray[np.bool_]:
    return sitk.GetArrayFromImage(orient(native.apply(mask.astype(np.uint8)))) != 0


def _anatomy_at_working_spacing(
    hu: NDArray[np.float32], spacing_mm: tuple[float, ...], lungs: NDArray[np.bool_] | None
) -> tuple[Anatomy, tuple[float, float, float]] | None:
    """Anatomy on a grid of about 2 mm that shares voxel (0, 0, 0) with the image; None without lungs."""
    working = _triple([max(s, WORKING_SPACING_MM) for s in spacing_mm])
    step = _triple([w / s for w, s in zip(working, spacing_mm, strict=True)])
    shape = tuple(int(np.floor((n - 1) / t)) + 1 for n, t in zip(hu.shape, step, strict=True))
    shape3 = (shape[0], shape[1], shape[2])
    origin = (0.0, 0.0, 0.0)
    coarse = resample(hu, shape3, origin, step, fill=AIR_HU, kernel="linear")
    coarse_lungs = None
    if lungs is not None:
        soft = resample(lungs.astype(np.float32), shape3, origin, step, fill=0.0, kernel="linear")
        coarse_lungs = soft >= 0.5
    anatomy = find_anatomy(coarse, working, coarse_lungs)
    return None if anatomy is None else (anatomy, working)


def _triple(values: Any) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return (a, b, c)
