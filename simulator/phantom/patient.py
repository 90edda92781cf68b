"""One virtual patient, ready to be scanned: anatomy, trees, texture; and the taking of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from simulator.phantom.anatomy import Anatomy
from simulator.phantom.draws import draw_acquisition, draw_anatomy, draw_protocol, stream
from simulator.phantom.lesion import CONSOLIDATION_HU, LesionMap
from simulator.phantom.raster import Raster, lung_distances, random_field, sample
from simulator.phantom.scanner import Acquisition, Protocol, Scanner, expose, frame_of, native_geometry
from simulator.phantom.skeleton import CARTILAGE_HU, CORTEX_HU, MARROW_HU, Skeleton, build_skeleton
from simulator.phantom.tissue import evaluate_tissue
from simulator.phantom.trees import AIRWAY_WALL_HU, BLOOD_HU, LUMEN_HU, Trees, build_trees
from simulator.phantom.tubes import Frame, paint, paint_coverage
from standard_space.geometry import Geometry

RASTER_STEP_MM = (2.5, 2.5, 2.5)


@dataclass(frozen=True)
class Patient:
    """Everything about a patient that does not depend on the grid."""

    index: int
    seed: int
    shape: Anatomy
    protocol: Protocol
    skeleton: Skeleton
    trees: Trees
    raster: Raster
    inner_mm: NDArray[np.float32]  # signed distance to the lung surface on the raster
    outer_mm: NDArray[np.float32]  # the same to the outer pleura only
    texture: NDArray[np.float32]


@dataclass(frozen=True)
class PhantomScan:
    """One scan as a user would have it, with its truth."""

    geometry: Geometry
    image: NDArray[np.int16]
    lungs: NDArray[np.bool_]
    infection: NDArray[np.bool_]
    clean_consolidated: int  # infected voxels above the clinical cut before noise, vessels included


def make_patient(seed: int, index: int, scanners: Sequence[Scanner] | None = None) -> Patient:
    """Draw and build one patient; see `draws.draw_protocol` for `scanners`."""
    shape = draw_anatomy(stream(seed, index, 0, "anatomy"))
    raster = Raster.over_lungs(shape, RASTER_STEP_MM)
    inner, outer = lung_distances(shape, raster)
    rng = stream(seed, index, 0, "texture")
    texture = 0.8 * random_field(rng, raster, 12.0) + 0.6 * random_field(rng, raster, 3.5)
    return Patient(
        index=index,
        seed=seed,
        shape=shape,
        protocol=draw_protocol(stream(seed, index, 0, "protocol"), index, shape, scanners),
        skeleton=build_skeleton(shape),
        trees=build_trees(stream(seed, index, 0, "trees"), shape, raster, -inner),
        raster=raster,
        inner_mm=inner,
        outer_mm=outer,
        texture=texture.astype(np.float32),
    )


def acquisition_of(patient: Patient, scan: int) -> Acquisition:
    """Positioning and inspiration of one scan."""
    return draw_acquisition(stream(patient.seed, patient.index, scan, "acquisition"))


@njit(cache=True, nogil=True, parallel=True)
def _blend_lesion(
    hu: NDArray[np.float32],
    share: NDArray[np.uint8],
    infected: NDArray[np.bool_],
    extent: NDArray[np.float32],
    density: NDArray[np.float32],
    placing: NDArray[np.float64],
    to_mm: NDArray[np.float64],
    breath: NDArray[np.float64],
    w: float,
) -> None:
    n0, n1, n2 = hu.shape
    for k in prange(n0):
        for j in range(n1):
            for i in range(n2):
                if share[k, j, i] == 0:
                    continue
                x = to_mm[0, 0] * k + to_mm[0, 1] * j + to_mm[0, 2] * i + to_mm[0, 3]
                y = to_mm[1, 0] * k + to_mm[1, 1] * j + to_mm[1, 2] * i + to_mm[1, 3]
                z = to_mm[2, 0] * k + to_mm[2, 1] * j + to_mm[2, 2] * i + to_mm[2, 3]
                u = (x - breath[3]) / breath[0]
                v = (y - breath[4]) / breath[1]
                t = (z - breath[5]) / breath[2]
                edge = sample(extent, placing, u, v, t)
                m = min(max(0.5 + edge / w, 0.0), 1.0)
                if m <= 0.0:
                    continue
                m *= share[k, j, i] / 255.0
                hu[k, j, i] += m * (sample(density, placing, u, v, t) - hu[k, j, i])
                if edge > 0.0 and share[k, j, i] >= 128:
                    infected[k, j, i] = True


def render(
    patient: Patient, frame: Frame, lesion: LesionMap | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """A noise-free image with its lung and infection masks, all of `frame.shape`.

    The lung mask holds the lungs with their vessels and airways, without trachea and main bronchi, as
    radiologists draw it.
    """
    hu, share = evaluate_tissue(patient.shape, frame, patient.raster, patient.texture)
    scratch = np.zeros(frame.shape, np.uint8)
    paint(hu, frame, patient.skeleton.cartilage, CARTILAGE_HU, scratch)
    paint(hu, frame, patient.skeleton.bone, CORTEX_HU, scratch)
    paint(hu, frame, patient.skeleton.marrow, MARROW_HU, scratch)
    infected = np.zeros(frame.shape, np.bool_)
    if lesion is not None:
        _blend_lesion(
            hu,
            share,
            infected,
            lesion.extent_mm,
            lesion.hu,
            lesion.raster.placing(),
            frame.to_mm,
            frame.breath,
            max(lesion.softness_mm, frame.voxel_mm),
        )
    trees = patient.trees
    paint(hu, frame, frame.breathe(trees.vessels), BLOOD_HU, scratch)
    paint(hu, frame, frame.breathe(trees.walls), AIRWAY_WALL_HU, scratch)
    paint(hu, frame, frame.breathe(trees.lumina), LUMEN_HU, scratch)
    lungs = share >= 128
    paint_coverage(scratch, frame.breathe(trees.trunk), frame.to_mm, frame.to_index)
    lungs &= scratch < 128
    infected &= lungs
    return hu, lungs, infected


def frame_of_raster(raster: Raster) -> Frame:
    """The frame in which a raster's voxels are scanned as they are, at neutral inspiration."""
    step_z, step_y, step_x = raster.step_mm
    z, y, x = raster.start_mm
    to_mm = np.array([[0.0, 0.0, step_x, x], [0.0, step_y, 0.0, y], [step_z, 0.0, 0.0, z]])
    return Frame(raster.shape, to_mm, np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))


def tree_coverage(patient: Patient, frame: Frame) -> NDArray[np.uint8]:
    """Share (0..255) of each voxel taken by vessels or airways."""
    coverage = np.zeros(frame.shape, np.uint8)
    for tubes in (patient.trees.vessels, patient.trees.walls):
        paint_coverage(coverage, frame.breathe(tubes), frame.to_mm, frame.to_index)
    return coverage


def scan_patient(patient: Patient, scan: int, grid: int, lesion: LesionMap | None) -> PhantomScan:
    """Scan `scan` (from 1) of a patient at a grid, with noise."""
    acquisition = acquisition_of(patient, scan)
    geometry = native_geometry(patient.protocol, acquisition, grid, patient.shape.apex_z)
    frame = frame_of(geometry, acquisition, patient.shape.apex_z)
    hu, lungs, infected = render(patient, frame, lesion)
    dense = int(np.count_nonzero(hu[infected] > CONSOLIDATION_HU))
    rng = stream(patient.seed, patient.index, scan, "noise")
    image = expose(hu, patient.protocol.scanner, geometry, rng)
    return PhantomScan(geometry, image, lungs, infected, dense)
