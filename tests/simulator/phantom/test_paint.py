"""Lesions painted into lungs that are no phantom's: where they lie, how much, how dense, over what noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from benchmarks import evidence_data
from benchmarks.evidence_data import Thorax, painted_thoraces, untouched_thoraces
from simulator.phantom.lesion import LesionMap
from simulator.phantom.lesion_fields import FieldLesionSource, volume_ml
from simulator.phantom.paint import RealChest, paint_lesion, real_chest, visible_share
from standard_space.cohort import Cohort
from standard_space.embedding import embed
from standard_space.errors import DataError, ReadError
from standard_space.geometry import Geometry
from standard_space.grid import StandardGrid
from standard_space.image import write_volume
from tests.standard_space.bodies import body, geometry, rotation

WHERE = geometry((96, 72, 60), (4.0, 4.0, 5.0), rotation(5.0, 1))
NOISE_HU = 20.0
DAY = 3.0


class Toy:
    """A body of 4 mm voxels, its lungs with a vessel and an airway, and a virtual patient in them."""

    def __init__(self) -> None:
        image, self.lungs, _ = body(WHERE, noise_hu=0.0)
        hu = image.array
        hu[self.lungs] = -860.0
        self.vessels, self.airways = np.zeros_like(self.lungs), np.zeros_like(self.lungs)
        for row in range(22, 50, 6):
            self.vessels[:, row, ::9] = True
            self.airways[:, row + 3, ::9] = True
        self.vessels &= self.lungs
        self.airways &= self.lungs
        hu[self.vessels], hu[self.airways] = 40.0, -1020.0
        self.clean = hu.copy()
        self.hu = hu + np.random.default_rng(3).normal(0.0, NOISE_HU, hu.shape).astype(np.float32)
        self.chest = real_chest(self.lungs, WHERE, seed=5, index=0)
        self.source = FieldLesionSource(self.chest)
        self.source.lesion = replace(self.source.lesion, peak_ml=300.0, peak_solid_share=0.4)
        self.painted, self.infection = paint_lesion(
            self.hu, self.lungs, WHERE, self.source.at(DAY), self.chest
        )


def block() -> tuple[np.ndarray, np.ndarray, Geometry]:
    """HU, lungs and geometry of a cube of lung, 80 mm wide."""
    hu = np.full((24, 24, 24), 30.0, np.float32)
    lungs = np.zeros(hu.shape, bool)
    lungs[4:20, 4:20, 4:20] = True
    hu[lungs] = -860.0
    direction = tuple(np.eye(3).ravel().tolist())
    return hu, lungs, Geometry(hu.shape, (5.0, 5.0, 5.0), (0.0, 0.0, 0.0), direction)


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


def test_the_infection_lies_in_the_lungs_and_nothing_changes_beyond_their_rim(toy: Toy) -> None:
    assert toy.infection.any()
    assert not (toy.infection & ~toy.lungs).any()
    changed = toy.painted != toy.hu
    assert not (changed & ~binary_dilation(toy.lungs)).any()
    far = toy.lungs & ~binary_dilation(toy.infection, iterations=3)
    assert np.mean(changed[far]) < 0.005, "but for faint spots that are no lesion yet"


def test_volumes_are_those_asked_for_on_every_day(toy: Toy) -> None:
    previous = 0.0
    for day in (0.0, 3.0, 6.0):
        _, infection = paint_lesion(toy.hu, toy.lungs, WHERE, toy.source.at(day), toy.chest)
        ml = float(infection.sum()) * WHERE.voxel_volume_ml
        assert ml == pytest.approx(volume_ml(toy.source.lesion, day), rel=0.1)
        assert ml > previous, "it grows before its peak"
        previous = ml


def test_densities_spread_over_the_modes_of_sick_lung(toy: Toy) -> None:
    hu = toy.painted[toy.infection & ~toy.vessels & ~toy.airways & ~binary_dilation(~toy.lungs)]
    assert 0.25 < np.mean(hu < -500.0) < 0.8, "ground glass"
    assert 0.1 < np.mean(hu > -200.0) < 0.6, "consolidation"
    assert np.percentile(hu, 1) > -960.0
    assert np.percentile(hu, 99) < 75.0 + 4.0 * NOISE_HU
    assert np.median(hu) > np.median(toy.hu[toy.lungs]) + 150.0


def test_the_image_s_noise_its_vessels_and_its_airways_stay(toy: Toy) -> None:
    core = toy.infection & ~binary_dilation(toy.lungs & ~toy.infection, iterations=2)
    clean, _ = paint_lesion(toy.clean, toy.lungs, WHERE, toy.source.at(DAY), toy.chest)
    plain = core & ~binary_dilation(toy.vessels | toy.airways | ~toy.lungs)
    left = (toy.painted - clean)[plain]
    assert left.std() == pytest.approx(NOISE_HU, rel=0.25)
    before, after = (values[core & toy.vessels] for values in (toy.hu, toy.painted))
    assert len(before)
    assert np.all(after >= before)
    assert np.median(after) < 90.0, "a vessel gets no denser than blood or the lesion"
    filled = toy.infection | toy.airways
    surrounded = toy.airways & ~binary_dilation(toy.lungs & ~filled, iterations=2)
    assert surrounded.sum() > 5
    assert np.mean((toy.painted == toy.hu)[surrounded]) > 0.9, "air bronchograms"
    assert np.mean(toy.infection[surrounded]) < 0.1


def test_the_edge_fades(toy: Toy) -> None:
    rise = toy.painted - toy.hu
    beside = binary_dilation(toy.infection) & ~toy.infection & toy.lungs & ~toy.vessels & ~toy.airways
    core = toy.infection & ~binary_dilation(~toy.infection)
    assert 0.0 < np.mean(rise[beside]) < 0.6 * np.mean(rise[core])


def test_no_dark_seam_is_left_at_the_pleura() -> None:
    """A rim voxel that is half lung takes half of what a lesion adds."""
    hu, lungs, where = block()
    rim = np.zeros_like(lungs)
    rim[4:20, 3, 4:20] = True
    hu[rim] = -415.0  # half parenchyma, half tissue
    chest = real_chest(lungs, where, seed=1, index=0, side="right")
    painted, infection = paint_lesion(hu, lungs, where, thick_lesion(chest, -60.0), chest)
    np.testing.assert_array_equal(infection, lungs)
    np.testing.assert_allclose(painted[lungs], -60.0, atol=1.0)
    np.testing.assert_allclose(painted[rim][20:-20], -15.0, atol=15.0)
    assert painted[~lungs & ~rim].min() == painted[~lungs & ~rim].max() == 30.0


def test_it_is_a_pure_function_of_seed_and_patient() -> None:
    hu, lungs, where = block()

    def once(seed: int, index: int) -> bytes:
        chest = real_chest(lungs, where, seed=seed, index=index, side="right")
        painted, infection = paint_lesion(hu, lungs, where, FieldLesionSource(chest).at(DAY), chest)
        return painted.tobytes() + infection.tobytes()

    first = once(5, 0)
    assert first == once(5, 0)
    assert len({first, once(5, 1), once(6, 0)}) == 3


def thick_lesion(chest: RealChest, hu: float) -> LesionMap:
    """A lesion that fills the lungs."""
    everywhere = replace(FieldLesionSource(chest).at(1.0), softness_mm=1.0)
    everywhere.extent_mm[...] = 9.0
    everywhere.hu[...] = hu
    return everywhere


def test_in_dense_lungs_a_lesion_is_still_seen(toy: Toy) -> None:
    """Lungs of -740 HU, where the phantoms' ground glass (-650 +- 85 HU) would hide."""
    dense = toy.hu + np.float32(120.0) * (toy.lungs & ~toy.vessels & ~toy.airways)
    painted, infection = paint_lesion(dense, toy.lungs, WHERE, toy.source.at(DAY), toy.chest)
    visible, vessels = visible_share(dense, painted, infection)
    assert visible > 0.97
    assert vessels < 0.1
    plain = infection & ~toy.vessels
    assert np.mean((painted - dense)[plain] >= 49.0) > 0.97
    assert np.percentile(painted[infection], 99) < 75.0 + 4.0 * NOISE_HU, "consolidation is no denser for it"


def test_truth_that_nothing_shows_is_counted() -> None:
    before = np.array([-800.0, -800.0, -800.0, 40.0, -300.0], np.float32)
    after = np.array([-751.0, -750.0, -800.0, 40.0, -200.0], np.float32)
    infection = np.array([True, True, True, True, True])
    assert visible_share(before, after, infection) == pytest.approx((0.6, 0.2))
    assert visible_share(before, after, np.array([False, True, False, False, False])) == (1.0, 0.0)
    with pytest.raises(DataError, match="no infection"):
        visible_share(before, after, np.zeros(5, bool))


def test_dark_noise_is_painted_and_a_connected_lumen_is_neither_painted_nor_truth() -> None:
    hu, lungs, coarse = block()
    where = replace(coarse, spacing_mm=(2.5, 2.5, 2.5))
    hu[lungs] = -900.0
    lumen = np.zeros_like(lungs)
    lumen[6:18, 11:13, 11:13] = True
    hu[lumen] = -1010.0
    hu[lungs & ~lumen] += np.random.default_rng(8).normal(0.0, 40.0, int((lungs & ~lumen).sum()))
    spots = np.zeros_like(lungs)
    spots[6:18:4, 6:18:4, 6] = True
    hu[spots] = -1024.0
    chest = real_chest(lungs, where, seed=1, index=0, side="right")
    painted, infection = paint_lesion(hu, lungs, where, thick_lesion(chest, -600.0), chest)
    dark = lungs & (hu < -950.0) & ~binary_dilation(lumen)
    assert np.mean(dark[lungs]) > 0.08
    assert np.all(infection[lungs & ~binary_dilation(lumen)])
    assert np.mean(infection[lumen]) < 0.1, "but for its ends"
    assert np.all((painted - hu)[dark] >= 50.0)
    np.testing.assert_array_equal(painted[lungs & ~infection], hu[lungs & ~infection])
    assert visible_share(hu, painted, infection)[0] == 1.0


def test_vessels_in_a_lesion_are_truth(toy: Toy) -> None:
    _, infection = paint_lesion(toy.hu, toy.lungs, WHERE, thick_lesion(toy.chest, -600.0), toy.chest)
    assert np.all(infection[toy.vessels])
    deep = toy.airways & ~binary_dilation(~toy.lungs, iterations=4)
    assert deep.sum() > 100
    assert np.mean(infection[deep]) < 0.02


def test_another_breath_shows_the_same_lesion_at_the_same_place_of_the_lungs(toy: Toy) -> None:
    deeper = geometry((96, 72, 60), (4.0, 4.4, 6.0), rotation(5.0, 1), (20.0, 0.0, 100.0))
    _, again = paint_lesion(toy.hu, toy.lungs, deeper, toy.source.at(DAY), toy.chest)
    both = float((again & toy.infection).sum())
    assert 2.0 * both / (again.sum() + toy.infection.sum()) > 0.9


def test_a_single_lung_lies_on_its_side_of_the_midline(toy: Toy) -> None:
    half = toy.lungs.copy()
    half[:, :, 48:] = False
    found: dict[str, RealChest] = {
        side: real_chest(half, WHERE, seed=5, index=0, side=side)  # type: ignore[arg-type]
        for side in ("right", "left")
    }
    for side, chest in found.items():
        x = np.broadcast_to(chest.raster.axes()[2], chest.inner_mm.shape)[chest.inner_mm < 0]
        assert np.all(x < 0 if side == "right" else x > 0)


def test_between_the_lungs_there_is_no_costal_pleura(toy: Toy) -> None:
    z, _, x = toy.chest.raster.axes()
    deep = toy.chest.inner_mm < 0
    facing = deep & (toy.chest.inner_mm > -6.0) & (np.abs(x) < 40.0) & (np.abs(z - 115.0) < 20.0)
    outward = deep & (toy.chest.inner_mm > -6.0) & (np.abs(x) > 105.0)
    assert np.median(toy.chest.outer_mm[facing]) < -25.0
    np.testing.assert_allclose(toy.chest.outer_mm[outward], toy.chest.inner_mm[outward])


def test_embedded_scans_can_be_painted_too(toy: Toy) -> None:
    image, lungs, _ = body(geometry())
    scan = embed(image, StandardGrid(64), lungs=lungs)
    chest = real_chest(scan.lungs, scan.standard_geometry, seed=5, index=0)
    hu = scan.window.to_hu(scan.signal)
    lesion = FieldLesionSource(chest).at(DAY)
    painted, infection = paint_lesion(hu, scan.lungs, scan.standard_geometry, lesion, chest)
    assert infection.any()
    assert not (infection & ~scan.lungs).any()
    assert painted[infection].mean() > hu[infection].mean() + 100.0


def test_no_lungs_are_refused() -> None:
    with pytest.raises(DataError, match="no lungs"):
        real_chest(np.zeros(WHERE.shape, bool), WHERE, seed=1, index=0)


def test_cohorts_of_painted_and_of_untouched_thoraces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_data, "FINDING_GRID", StandardGrid(64))
    where = geometry()
    image, lungs, _ = body(where)
    write_volume(tmp_path / "shared" / "ct.nii.gz", np.round(image.array).astype(np.int16), where)
    write_volume(tmp_path / "shared" / "labels.nii.gz", np.where(lungs, np.uint8(12), np.uint8(3)), where)
    toys = (
        Thorax("t1", "a", ("ct.nii.gz",), ("labels.nii.gz",), (11, 12)),
        Thorax("t2", "b", ("ct.nii.gz",)),
    )
    grid, shared = StandardGrid(32), tmp_path / "shared"
    painted = Cohort.open(painted_thoraces(tmp_path / "painted", shared, grid, 7, 3, 1, toys))
    truth = json.loads((tmp_path / "painted_images" / "truth.json").read_text())
    listed = [
        (f"{patient['patient']}/{scan['scan']}", 1000.0 * lesion["lesion"] + scan["day"])
        for patient in truth["patients"]
        for lesion in patient["lesions"]
        for scan in lesion["scans"]
    ]
    assert [(entry.name, entry.day) for entry in painted.entries] == listed
    assert [entry.patient for entry in painted.entries] == ["t1", "t1", "t2"], "a thorax is a patient"
    assert [name for name, _ in listed] == ["t1/l1d0", "t1/l2d0", "t2/l1d0"]
    for patient in truth["patients"]:
        for lesion in patient["lesions"]:
            assert all(0.9 <= scan["visible_share"] <= 1.0 for scan in lesion["scans"])
    scans = [painted.read(entry) for entry in painted.entries]
    assert [scan.provenance["scanner"] for scan in scans] == ["a", "a", "b"]
    for scan in scans:
        assert scan.native_infection is not None
        assert scan.native_lungs is not None
        assert scan.native_infection.any()
        assert not (scan.native_infection & ~scan.native_lungs).any()
    assert len({scan.native_infection.tobytes() for scan in scans if scan.native_infection is not None}) == 3
    untouched = Cohort.open(untouched_thoraces(tmp_path / "untouched", shared, grid, toys[:1]))
    assert [entry.name for entry in untouched.entries] == ["t1/untouched1"]
    for entry in untouched.entries:
        assert entry.infected_ml == 0.0
    monkeypatch.setattr(evidence_data, "visible_share", lambda *_: (0.8, 0.1))
    with pytest.raises(DataError, match="cannot be seen"):
        painted_thoraces(tmp_path / "hidden", shared, grid, 7, 1, 1, toys[:1])
    with pytest.raises(ReadError, match="no such real chest"):
        untouched_thoraces(tmp_path / "none", tmp_path, grid, toys)
