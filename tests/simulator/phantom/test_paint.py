"""Lesions painted into lungs that are no phantom's: where they lie, how much, how dense, over what noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from benchmarks import evidence_data
from benchmarks.evidence_data import Thorax, painted_thoraces, untouched_thoraces
from simulator.phantom.lesion_fields import FieldLesionSource, volume_ml
from simulator.phantom.paint import RealChest, paint_lesion, real_chest
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
    lumina = core & toy.airways
    assert np.median(toy.painted[lumina]) < -900.0, "air bronchograms"


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
    everywhere = replace(FieldLesionSource(chest).at(1.0), softness_mm=1.0)
    everywhere.extent_mm[...] = 9.0
    everywhere.hu[...] = -60.0
    painted, infection = paint_lesion(hu, lungs, where, everywhere, chest)
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
    painted = Cohort.open(painted_thoraces(tmp_path / "painted", shared, grid, 7, 2, 1, toys))
    assert [entry.name for entry in painted.entries] == ["t1-01/s1", "t2-02/s1"]
    scans = [painted.read(entry) for entry in painted.entries]
    assert [scan.provenance["scanner"] for scan in scans] == ["a", "b"]
    for scan in scans:
        assert scan.native_infection is not None
        assert scan.native_lungs is not None
        assert scan.native_infection.any()
        assert not (scan.native_infection & ~scan.native_lungs).any()
    assert len({scan.native_infection.tobytes() for scan in scans if scan.native_infection is not None}) == 2
    untouched = Cohort.open(untouched_thoraces(tmp_path / "untouched", shared, grid, toys[:1]))
    for entry in untouched.entries:
        assert entry.infected_ml == 0.0
    with pytest.raises(ReadError, match="no such real chest"):
        untouched_thoraces(tmp_path / "none", tmp_path, grid, toys)
