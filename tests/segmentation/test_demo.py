"""The demo at a tiny size, the same code as at full size; and its network on a real CT."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicerio

from segmentation.demo import DemoResult, DemoSize, run_demo
from segmentation.model import ThreeWaySegmenter
from segmentation.predict import predict_scan
from segmentation.results.native import to_native
from segmentation.results.segment_image import segment_image
from simulator.dynamics.engine import start_state
from simulator.progression import DEFAULT_DYNAMICS, progress, with_reference
from simulator.seeding import seed_infection
from simulator.simulation import seeded_scan
from standard_space.embedding import embed
from standard_space.image import read_image, read_mask
from standard_space.restore import restore_mask

TINY = DemoSize(
    grid=64, training=(2, 2), validation=(1, 1), test=(2, 1), ratio=1.0, steps=30, width=4, film_days=0.5
)
CT = Path(slicerio.get_testdata_file("CTChest4.nrrd"))
LABELS = Path(slicerio.get_testdata_file("Segmentation.seg.nrrd"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoResult]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, run_demo(out, size=TINY)


def test_the_report_stands_alone(tiny: tuple[Path, DemoResult]) -> None:
    _, result = tiny
    page = result.report.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"https?:", page)
    images = re.findall(r'<img src="([^"]+)" alt="([^"]+)"', page)
    assert {"scan.png", "fit.png", "progression.gif", "augmented.png", "scores.png"} <= {
        name for name, _ in images
    }
    assert all((result.report.parent / name).stat().st_size > 1000 for name, _ in images)
    assert "Dice of HU threshold" in page


def test_every_step_left_its_output(tiny: tuple[Path, DemoResult]) -> None:
    out, result = tiny
    scores = json.loads((out / "scores.json").read_text())
    assert {row["group"] for row in scores["scans"]} == {"held_out"}
    dice = [row["dice"] for row in scores["scans"]]
    assert result.model_dice == pytest.approx(float(np.median(dice)))
    assert len(list((out / "segmentation").glob("*_infection.nii.gz"))) == 1


def test_the_road_on_a_real_ct(tiny: tuple[Path, DemoResult], tmp_path: Path) -> None:
    """Embed a real CT, check its lungs, progress an infection in it, segment it, bring all back onto its grid."""
    model = ThreeWaySegmenter.load(tiny[0] / "model")
    image = read_image(CT)
    scan = embed(image, model.grid)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(LABELS)))
    truth = np.isin(labels if labels.ndim == 3 else labels[..., 0], (5, 6))
    lungs = restore_mask(scan.lungs, scan.placement)
    assert 2.0 * (lungs & truth).sum() / (lungs.sum() + truth.sum()) >= 0.9

    seeds = seed_infection(scan, 6, radius_mm=12.0, seed=1)
    seeded = seeded_scan(scan, seeds)
    state = start_state(scan.signal, seeds, seeded.susceptible, scan.grid.spacing_mm, recovery_limit=True)
    parameters = with_reference(DEFAULT_DYNAMICS, state)
    *_, last = progress(seeded, parameters, days=3.0, every=1.5, seed=1, state=state)
    assert last.counts[30:].sum() > 0
    assert not (last.infection & ~seeded.susceptible).any()
    native = restore_mask(last.infection, scan.placement)
    assert native.sum() * image.geometry.voxel_volume_ml == pytest.approx(
        last.infection.sum() * scan.grid.voxel_volume_ml, rel=0.3
    )

    report = segment_image(model, CT, tmp_path)
    mask = read_mask(tmp_path / f"{CT.stem}_infection.nii.gz", image.geometry)
    assert report["infection_ml"] == pytest.approx(mask.sum() * image.geometry.voxel_volume_ml, rel=1e-6)
    assert not (mask & ~to_native(predict_scan(model, scan), scan).lungs).any()


@pytest.mark.slow
def test_the_full_demo_really_segments(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "out")
    assert result.model_dice >= 0.6
    assert result.model_dice >= result.threshold_dice + 0.15
