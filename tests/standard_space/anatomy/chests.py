"""Chests with known lungs, oriented to LPS: phantoms, healthy or consolidated, and what scores masks on them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from simulator.phantom.lesion_dynamics import DynamicLesionSource
from simulator.phantom.lesion_fields import FieldLesionSource
from simulator.phantom.patient import acquisition_of, make_patient, scan_patient
from simulator.phantom.scanner import frame_of
from standard_space.anatomy import WORKING_SPACING_MM, Anatomy, find_anatomy, refine_anatomy
from standard_space.geometry import orient_array
from standard_space.lanczos import resample
from standard_space.masks import resample_mask

ORIGIN = (0.0, 0.0, 0.0)


class Chest(NamedTuple):
    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    lungs: np.ndarray
    left: np.ndarray
    infection: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        return self.lungs & ~self.left


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


@cache
def phantom(seed: int, index: int, grid: int = 96, lesions: str | None = None) -> Chest:
    patient = make_patient(seed, index)
    lesion = None
    if lesions == "fields":
        lesion = next(FieldLesionSource(patient).over([4.0])).map
    elif lesions == "dynamics":
        lesion = next(DynamicLesionSource(patient, grid, 1).over([0.0])).map
    scan = scan_patient(patient, 1, grid, lesion)
    frame = frame_of(scan.geometry, acquisition_of(patient, 1), patient.shape.apex_z)
    k, j, i = np.ogrid[tuple(slice(0, n) for n in scan.geometry.shape)]
    to_x = frame.to_mm[0]
    left = scan.lungs & (to_x[0] * k + to_x[1] * j + to_x[2] * i + to_x[3] > 0)
    hu, geometry = orient_array(scan.image.astype(np.float32), scan.geometry)
    masks = [
        np.ascontiguousarray(orient_array(m, scan.geometry)[0]) for m in (scan.lungs, left, scan.infection)
    ]
    z, y, x = geometry.spacing_mm[::-1]
    return Chest(np.ascontiguousarray(hu), (z, y, x), masks[0], masks[1], masks[2])


def consolidated(
    chest: Chest, seed: int, share: float = 0.3, where: np.ndarray | None = None, sigma_mm: float = 14.0
) -> tuple[Chest, np.ndarray]:
    """The chest with `share` of `where` (both lungs) made solid, -100 to 50 HU: a smooth random field that prefers
    the pleura, the back and the base. Also returns what was made solid."""
    rng = np.random.default_rng(seed)

    def field(mm: float) -> np.ndarray:
        noise = rng.standard_normal(chest.hu.shape).astype(np.float32)
        smooth = ndimage.gaussian_filter(noise, [mm / s for s in chest.spacing_mm])
        return (smooth - smooth.mean()) / smooth.std()

    where = chest.lungs if where is None else where
    z, y, _ = np.meshgrid(
        *(np.arange(n) * s for n, s in zip(chest.hu.shape, chest.spacing_mm, strict=True)), indexing="ij"
    )
    up, back = ((v - v[where].mean()) / v[where].std() for v in (z, y))
    depth = ndimage.distance_transform_edt(chest.lungs, sampling=chest.spacing_mm)
    score = 1.3 * field(sigma_mm) + 0.6 * back - 0.6 * up + np.exp(-depth / 12.0)
    solid = where & (score >= np.quantile(score[where], 1.0 - share))
    density = -100.0 + 150.0 * (np.clip(field(6.0), -2, 2) / 4 + 0.5) + rng.normal(0, 15, chest.hu.shape)
    return chest._replace(hu=np.where(solid, density, chest.hu).astype(np.float32)), solid


def chest_of(image_file: Path, labels_file: Path, lungs: list[int], left: list[int]) -> Chest:
    image, labels = (sitk.DICOMOrient(sitk.ReadImage(str(f)), "LPS") for f in (image_file, labels_file))
    array = sitk.GetArrayFromImage(labels)
    z, y, x = image.GetSpacing()[::-1]
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    return Chest(hu, (z, y, x), np.isin(array, lungs), np.isin(array, left))


def shipped_ct() -> Chest:
    """The real CT that the test dependency slicerio ships with labels (MIT)."""
    import slicerio

    folder = Path(slicerio.__file__).parent / "data"
    return chest_of(folder / "CTChest4.nrrd", folder / "Segmentation.seg.nrrd", [5, 6], [6])


class Found(NamedTuple):
    """Masks found coarsely and refined, all on the chest's own grid; None where no lungs were found."""

    lungs: np.ndarray
    left: np.ndarray
    airways: np.ndarray
    vessels: np.ndarray
    notes: tuple[str, ...]


def find(chest: Chest, user: np.ndarray | None = None) -> Found | None:
    """As `embed` does: coarsely at the working spacing, then refined on the grid (here the chest's own)."""
    working = tuple(max(s, WORKING_SPACING_MM) for s in chest.spacing_mm)
    step = tuple(w / s for w, s in zip(working, chest.spacing_mm, strict=True))
    shape = tuple(int((n - 1) // t) + 1 for n, t in zip(chest.hu.shape, step, strict=True))
    hu = resample(chest.hu, shape, ORIGIN, step, fill=-1000.0, kernel="linear")
    coarse = find_anatomy(hu, working, None if user is None else resample_mask(user, shape, ORIGIN, step))
    if coarse is None:
        return None
    back = tuple(1.0 / t for t in step)
    moved = [resample_mask(m, chest.hu.shape, ORIGIN, back) for m in coarse[:4]]
    fine = refine_anatomy(chest.hu, chest.spacing_mm, Anatomy(*moved, coarse.notes), user)
    return Found(fine.lungs, fine.left_lung, fine.airways, fine.vessels, fine.notes)


def swapped(found: Found, chest: Chest) -> float:
    """Share of the found lung volume that is on the wrong side."""
    both = found.lungs & chest.lungs
    return float(((found.left != chest.left) & both).sum()) / float(both.sum())
