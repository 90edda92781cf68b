"""The chest: geometry, lungs, tissues, and the same patient at any grid."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from simulator.phantom.anatomy import envelope, lung
from simulator.phantom.patient import (
    Patient,
    acquisition_of,
    frame_of_raster,
    make_patient,
    render,
    scan_patient,
)
from simulator.phantom.raster import Raster, sample
from simulator.phantom.scanner import SCANNERS, native_geometry
from simulator.phantom.skeleton import build_skeleton
from simulator.phantom.tissue import BLOOD
from simulator.phantom.tubes import Frame, paint_coverage
from standard_space.geometry import Geometry
from tests.simulator.phantom.conftest import Written


@pytest.fixture(scope="module")
def patient() -> Patient:
    return make_patient(3, 0)


def _resample(mask: NDArray[np.bool_], of: Geometry, onto: Geometry) -> NDArray[np.bool_]:
    """`mask` at the voxel centres of another geometry, by world coordinates."""
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in onto.size], indexing="ij"), -1)
    source = np.rint(of.to_index(onto.to_world(index))).astype(int)
    inside = ((source >= 0) & (source < np.asarray(of.size))).all(-1)
    source = np.clip(source, 0, np.asarray(of.size) - 1)
    found = mask[source[..., 2], source[..., 1], source[..., 0]] & inside
    return np.ascontiguousarray(found.transpose(2, 1, 0))


def test_native_geometries_differ(cohort: Written) -> None:
    firsts = [patient["scans"][0]["geometry"] for patient in cohort.truth["patients"]]
    assert len({tuple(g["spacing_mm"]) for g in firsts}) == len(firsts)
    assert len({tuple(g["size"]) for g in firsts}) > len(firsts) // 2
    assert len({p["scans"][0]["orientation"] for p in cohort.truth["patients"]}) >= 4
    for g in firsts:
        direction = np.array(g["direction"]).reshape(3, 3)
        assert np.allclose(direction @ direction.T, np.eye(3), atol=1e-6)
        tilt = np.rad2deg(np.arccos(np.clip(np.abs(direction).max(axis=0), 0, 1)))
        assert 0.3 < tilt.max() < 8.0, "tilted, and by a few degrees only"
    for patient in cohort.truth["patients"]:
        scans = patient["scans"]
        assert scans[0]["acquisition"] != scans[1]["acquisition"]
        assert 0.80 < scans[0]["lung_ml"] / scans[1]["lung_ml"] < 1.25


def test_lung_volume_is_an_adults(cohort: Written) -> None:
    litres = np.array([s["lung_ml"] / 1000 for p in cohort.truth["patients"] for s in p["scans"]])
    assert (litres > 2.2).all()
    assert (litres < 6.0).all()
    assert 2.9 < np.median(litres) < 4.8


def test_lungs_look_like_lungs_to_a_histogram(fields_cohort: Written) -> None:
    for row in fields_cohort.rows[::2]:
        hu, _, lungs, infection = fields_cohort.load(row)
        healthy = hu[lungs & ~infection]
        assert -900 < np.median(healthy) < -760
        assert (healthy > -500).mean() > 0.02, "vessels and partial volume"
        assert hu.min() >= -1024
        assert (hu > 300).mean() > 0.002, "bone"
        assert (hu < -950).mean() > 0.1, "air around"


def test_two_lungs_of_similar_size(patient: Patient) -> None:
    scan = scan_patient(patient, 1, 64, None)
    core = ndimage.binary_erosion(scan.lungs)
    labels, _ = ndimage.label(core)
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    assert sizes[1] > 0.5 * sizes[0]
    assert sizes[:2].sum() > 0.97 * core.sum()
    assert not scan.infection.any()


def test_right_lung_is_larger_and_the_heart_lies_left(patient: Patient) -> None:
    raster, inner = patient.raster, patient.inner_mm
    x = np.broadcast_to(raster.axes()[2], raster.shape)
    assert (inner[x < 0] < 0).sum() > (inner[x > 0] < 0).sum()
    hu, lungs, _ = render(patient, frame_of_raster(raster), None)
    assert not lungs[inner > 2.0 * max(raster.step_mm)].any()
    middle = int((patient.shape.chambers[0, 2] - raster.start_mm[0]) / raster.step_mm[0])
    section = np.abs(hu[middle] - BLOOD) < 6
    front = np.broadcast_to(raster.axes()[1][0], section.shape) < 20
    where = x[middle][section & front]
    assert where.mean() > 4.0


def test_diaphragm_is_domed(patient: Patient) -> None:
    shape = patient.shape
    step = np.arange(-10.0, 140.0, 1.0)

    def lowest(x: float, y: float) -> float:
        return float(next(z for z in step if lung(x, y, z, shape) < 0))

    middle = lowest(-shape.axis_x, -10.0)
    behind = lowest(-shape.axis_x, shape.posterior - 14.0)
    beside = lowest(-shape.axis_x - shape.lateral + 8.0, 0.0)
    assert middle > behind + 30
    assert middle > beside + 15


def test_bones_stay_out_of_the_lungs() -> None:
    for index in range(4):
        shape = make_patient(7, index).shape
        bones = build_skeleton(shape).bone
        middles = 0.5 * (bones[:, 0:3] + bones[:, 3:6])
        depth = np.array([lung(p[0], p[1], p[2], shape) for p in middles])
        assert (depth - bones[:, 6]).min() > -1.5
        wall = np.array([envelope(p[0], p[1], p[2], shape, True) for p in middles])
        assert np.median(np.abs(wall)) < 30, "they lie on the chest wall"


def test_the_same_patient_at_two_grids(patient: Patient) -> None:
    coarse = scan_patient(patient, 1, 64, None)
    fine = scan_patient(patient, 1, 112, None)
    moved = _resample(fine.lungs, fine.geometry, coarse.geometry)
    overlap = 2 * (moved & coarse.lungs).sum() / (moved.sum() + coarse.lungs.sum())
    assert overlap > 0.94
    shifted = _resample(np.roll(fine.lungs, 8, axis=1), fine.geometry, coarse.geometry)
    assert 2 * (shifted & coarse.lungs).sum() / (shifted.sum() + coarse.lungs.sum()) < 0.9


def test_grid_sets_the_voxel_size(patient: Patient) -> None:
    acquisition = acquisition_of(patient, 1)
    at = {g: native_geometry(patient.protocol, acquisition, g, patient.shape.apex_z) for g in (64, 128, 512)}
    assert 4.0 < min(at[64].spacing_mm) < 7.5
    assert 2.0 < min(at[128].spacing_mm) < 4.0
    assert 0.6 < min(at[512].spacing_mm) < 1.0
    assert max(at[512].spacing_mm) <= 2.5


def test_noise_belongs_to_the_scanner(fields_cohort: Written) -> None:
    noise = {}
    for patient, row in zip(fields_cohort.truth["patients"], fields_cohort.rows[::2], strict=True):
        hu, _, _, _ = fields_cohort.load(row)
        scanner = patient["protocol"]["scanner"]
        # Clipping at -1024 halves noise in air; soft tissue tells it.
        smooth = ndimage.uniform_filter(hu, 3)
        soft = ndimage.binary_erosion(np.abs(smooth - BLOOD) < 25, iterations=2)
        noise[scanner["name"]] = (scanner["noise_hu"], float(hu[soft].std()))
    nominal, measured = np.array(sorted(noise.values())).T
    assert len(noise) >= 4
    assert np.corrcoef(nominal, measured)[0, 1] > 0.6
    assert {s.name for s in SCANNERS} >= set(noise)


def test_trilinear_sampling_is_exact_on_a_linear_field() -> None:
    raster = Raster((5, 6, 7), (-3.0, 2.0, 1.0), (2.0, 1.5, 2.5))
    z, y, x = raster.axes()
    field = (2.0 * z - y + 0.5 * x).astype(np.float32)
    for point in ((-1.1, 4.3, 7.7), (2.9, 6.1, 2.2)):
        value = sample(field, raster.placing(), point[2], point[1], point[0])
        assert value == pytest.approx(2.0 * point[0] - point[1] + 0.5 * point[2], abs=1e-4)


def test_a_tubes_coverage_sums_to_its_volume() -> None:
    step = 1.0
    to_mm = np.array([[0.0, 0.0, step, 0.0], [0.0, step, 0.0, 0.0], [step, 0.0, 0.0, 0.0]])
    frame = Frame((40, 40, 40), to_mm, np.array([1.0, 1, 1, 0, 0, 0]))
    for radius in (0.3, 0.8, 3.0):
        coverage = np.zeros(frame.shape, np.uint8)
        tube = np.array([[8.0, 11.0, 9.0, 30.0, 28.0, 31.0, radius, radius]])
        paint_coverage(coverage, tube, frame.to_mm, frame.to_index)
        length = float(np.linalg.norm(tube[0, 3:6] - tube[0, :3]))
        expected = np.pi * radius**2 * (length + 4.0 / 3.0 * radius)
        assert coverage.sum() / 255.0 == pytest.approx(expected, rel=0.5 if radius < 0.5 else 0.2)


def test_trees_taper_and_stay_inside(patient: Patient) -> None:
    vessels = patient.trees.vessels
    ends = vessels[:, 3:6]
    thin = vessels[:, 7] < 1.0
    depth = np.array([lung(p[0], p[1], p[2], patient.shape) for p in ends[thin]])
    assert len(depth) > 2000
    assert np.quantile(depth, 0.99) < 0.0
    assert np.quantile(depth, 0.90) < -2.0, "small vessels end short of the pleura"
    assert vessels[:, 7].max() > 5.0
    assert (vessels[:, 7] <= vessels[:, 6] + 1e-9).all()
