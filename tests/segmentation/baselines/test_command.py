"""A rival on the road of every method: train, resume, segment, evaluate, threshold, tune, cross-validate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

pytest.importorskip("monai")

from cli.main import main
from segmentation.baselines.model import RIVALS, BaselineSegmenter
from segmentation.crossvalidation import run as crossvalidation
from segmentation.methods import load_segmenter, options_for
from segmentation.segmenter import patient_sha256
from segmentation.training import TrainingOptions, items_of, train
from segmentation.training.loop import ViewTrainer
from segmentation.training.mixture import Mixture
from segmentation.training.request import sampler_of
from simulator.cohort_fit import fit_cohort
from standard_space.cohort import Cohort
from standard_space.files import sha256_of
from standard_space.image import read_mask
from standard_space.image_file import read_geometry
from tests.segmentation.baselines.test_transfer import r3d_18_state
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.images import write_chest
from tests.segmentation.toys import toy_items, toy_scan
from tests.simulator.scans import cohort_of, small_scan

QUICK = ["--width", "2", "--batch", "2", "--patch", "16", "--device", "cpu"]
METHOD = "unet3d"


def lungcast(*words: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(main, [str(word) for word in words])


def done(*words: object) -> str:
    result = lungcast(*words)
    assert result.exit_code == 0, result.output
    return result.output


def fails(code: int, text: str, *words: object) -> None:
    result = lungcast(*words)
    assert (result.exit_code, text in result.output) == (code, True), result.output
    assert "Traceback" not in result.output


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rivals") / "c"
    return toy_cohort(folder, *(toy_scan(f"P{k}", "1", seed=k) for k in range(4))).folder


@pytest.fixture(scope="module")
def trained(cohort: Path) -> Path:
    """A rival's model, trained by the command."""
    model = cohort.parent / METHOD
    flags = ["--method", METHOD, "--steps", 2, "--validation-share", 0.25]
    said = done("train", cohort, model, *flags, *QUICK)
    assert "Validation: median Dice" in said
    assert "at mean, t = " in said
    return model


def bytes_of(folder: Path, parts: tuple[str, ...] = ("network",)) -> list[bytes]:
    return [(folder / f"{part}.pt").read_bytes() for part in parts]


def test_a_trained_rival_keeps_who_it_learned_from(trained: Path) -> None:
    model = load_segmenter(trained)
    assert isinstance(model, BaselineSegmenter)
    assert (model.method, model.grid_size, model.width) == (METHOD, 32, 2)
    assert model.aggregation.rule == "mean"
    assert model.training["steps_per_view"] == {"network": 2}
    learned, held = (
        {entry["patient_sha256"] for entry in model.training[key]}
        for key in ("patients", "validation_patients")
    )
    assert (len(learned), len(held), learned & held) == (3, 1, set())
    assert model.scores["validation"]["rule"] == "mean"
    assert str(trained.parent) not in (trained / "model.json").read_text()
    assert (trained / "curves.png").stat().st_size > 5000


def test_what_there_is_to_know_of_a_folder(trained: Path) -> None:
    said = done("info", trained)
    assert f"a {METHOD} segmenter for the 32^3 grid, which finds the infection" in said


def stop_before(step: int) -> Callable[..., Any]:
    taken = [0]
    whole = ViewTrainer.step

    def limited(self: ViewTrainer, batch: Any) -> Any:
        if taken[0] == step:
            raise KeyboardInterrupt
        taken[0] += 1
        return whole(self, batch)

    return limited


def test_interrupted_by_a_user_and_resumed_it_is_the_same(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--method", METHOD, "--steps", 3, "--validation-share", 0.25, *QUICK]
    flags += ["--checkpoint-minutes", 0]
    done("train", cohort, tmp_path / "whole", *flags)
    with monkeypatch.context() as patched:
        patched.setattr(ViewTrainer, "step", stop_before(2))
        fails(130, "--resume", "train", cohort, tmp_path / "m", *flags)
    assert not (tmp_path / "m" / "model.json").exists()
    fails(2, "another method", "train", cohort, tmp_path / "m", "--resume", "--method", "vnet3d")
    fails(2, "another width", "train", cohort, tmp_path / "m", "--resume", "--width", 4)
    done("train", cohort, tmp_path / "m", "--resume", "--device", "cpu")
    assert bytes_of(tmp_path / "m") == bytes_of(tmp_path / "whole")
    one, other = (load_segmenter(tmp_path / name) for name in ("m", "whole"))
    assert (one.aggregation, one.model_id) == (other.aggregation, other.model_id)


QUICKEST = "mueller"
"""Its learning rate depends on its history; of the others on the step alone."""


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name == QUICKEST else [pytest.mark.slow]) for name in RIVALS]
)
def test_every_rival_killed_between_steps_ends_like_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    width, patch = (16, None) if method == "h-denseunet" else (2, 16 if method == QUICKEST else 32)
    options = options_for(
        method, width=width, patch=patch, batch_size=2, steps=3, validate_every=2, validation_slices=2
    )
    options = replace(options, checkpoint_minutes=0.0)
    items = toy_items(3)

    def run(folder: Path) -> None:
        train(items[:2], validation=items[2:], options=options, device="cpu", folder=folder, resume=True)

    run(tmp_path / "whole")
    for _ in range(2):  # each time it comes one step further
        with monkeypatch.context() as patched:
            patched.setattr(ViewTrainer, "step", stop_before(1))
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "m")
    run(tmp_path / "m")
    assert bytes_of(tmp_path / "m") == bytes_of(tmp_path / "whole")


@pytest.mark.usefixtures("small_pictures")
def test_a_segmentation_lies_on_its_image(trained: Path, tmp_path: Path) -> None:
    image = tmp_path / "chest.nii.gz"
    where, _, _ = write_chest(image)
    done("segment", trained, image, tmp_path / "out", "--device", "cpu", "--threshold", "0.01")
    mask_file = tmp_path / "out" / "chest_infection.nii.gz"
    assert read_geometry(mask_file).same_as(where)
    mask = read_mask(mask_file, where)
    report = json.loads((tmp_path / "out" / "quantification.json").read_text())
    assert report["infection_ml"] == pytest.approx(mask.sum() * where.voxel_volume_ml, rel=1e-6)
    assert "three" not in json.dumps(report).lower()

    cut_anew = ("threshold", tmp_path / "out", image)
    done(*cut_anew, tmp_path / "more", "--threshold", "0.999")
    fewer = read_mask(tmp_path / "more" / "chest_infection.nii.gz", where)
    assert not (fewer & ~mask).any()
    fails(2, "out of range", *cut_anew, tmp_path / "none", "--threshold", "2")


def test_it_is_scored_and_knows_its_patients(trained: Path, cohort: Path, tmp_path: Path) -> None:
    toy_cohort(tmp_path / "new", toy_scan("P9", "1", seed=9))
    done("evaluate", trained, tmp_path / "new", "--json", tmp_path / "scores.json", "--device", "cpu")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [row["group"] for row in scores["scans"]] == ["held_out"]
    done("evaluate", trained, cohort, "--json", tmp_path / "own.json", "--device", "cpu")
    groups = [row["group"] for row in json.loads((tmp_path / "own.json").read_text())["scans"]]
    assert sorted(groups) == ["training", "training", "training", "validation"]
    toy_cohort(tmp_path / "small", toy_scan("P8", "1", size=16))
    fails(1, "different grids", "evaluate", trained, tmp_path / "small", "--device", "cpu")


def test_it_is_tuned_by_its_own_rules_only(trained: Path, cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "m")
    toy_cohort(tmp_path / "new", toy_scan("P9", "1", seed=9))
    before = (tmp_path / "m" / "model.json").read_bytes()
    fails(2, "has no such rule", "tune", tmp_path / "m", tmp_path / "new", "--rule", "sum>t")
    fails(2, "has no such rule", "tune", tmp_path / "m", tmp_path / "new", "--rule", "logistic")
    fails(2, "was trained on patients", "tune", tmp_path / "m", cohort)
    assert (tmp_path / "m" / "model.json").read_bytes() == before
    for flags in (["--rule", "mean"], []):
        said = done("tune", tmp_path / "m", tmp_path / "new", *flags, "--device", "cpu")
        assert said.startswith("mean: threshold ")
    model = load_segmenter(tmp_path / "m")
    assert model.trained_on(patient_sha256("P9"), None) == "validation patient"
    assert bytes_of(tmp_path / "m") == bytes_of(trained)


def test_it_is_cross_validated(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossvalidation, "draw_scores", lambda *_, **__: [])
    flags = ["--method", "unet2d", "--folds", 2, "--steps", 2, *QUICK]
    said = done("crossvalidate", cohort, tmp_path / "cv", *flags)
    assert "All folds together: 4 scans of 4 patients" in said
    scores = json.loads((tmp_path / "cv" / "scores.json").read_text())
    assert {row["group"] for row in scores["scans"]} == {"held_out"}
    assert {fold["aggregation"]["rule"] for fold in scores["folds"]} == {"mean"}
    assert load_segmenter(tmp_path / "cv" / "fold-1" / "model").method == "unet2d"
    again = done("crossvalidate", cohort, tmp_path / "cv", *flags)
    assert "2 folds were finished by an earlier run" in again
    flags[1] = "unet3d"
    fails(2, "another cross-validation", "crossvalidate", cohort, tmp_path / "cv", *flags)


def test_what_a_rival_cannot_do_is_refused_before_anything_is_written(cohort: Path, tmp_path: Path) -> None:
    train_it = ("train", cohort, tmp_path / "m", "--method", "unet3d")
    fails(2, "has no such rule", *train_it, "--aggregation", "sum>t")
    fails(2, "cannot be trained for this target", *train_it, "--target", "lungs")
    fails(2, "neither", *train_it, "--slice-offsets-mm", "0")
    fails(2, "neither", *train_it, "--compile")
    fails(2, "only the method mueller", *train_it, "--no-preprocess")
    fails(2, "only the method transfer", *train_it, "--encoder-weights", cohort / "manifest.csv")
    fails(2, "unknown view", *train_it, "--views", "xy")
    fails(2, "'heart' is not one of", "train", cohort, tmp_path / "m", "--method", "heart")
    fails(2, "has no such rule", "crossvalidate", *train_it[1:], "--aggregation", "majority")
    assert not (tmp_path / "m").exists()


def test_a_rival_learns_from_synthetic_scans_and_from_those_made_meanwhile(tmp_path: Path) -> None:
    scans = [small_scan(name, shift=shift) for name, shift in (("p", 0.0), ("q", 0.04))]
    cohort = cohort_of(tmp_path / "c", *scans)
    fits = fit_cohort(cohort)
    items = items_of(Cohort.open(tmp_path / "c"))
    synthetic = [replace(item, name=f"{item.name}-sim1", synthetic=True) for item in items]
    for method, sides in (("unet3d", 32), ("mueller", 16)):
        options: TrainingOptions = options_for(
            method, width=2, patch=sides, synthetic_share=0.25, on_the_fly_share=0.5
        )

        def mixture(options: TrainingOptions = options) -> Mixture:
            sampler = sampler_of(cohort, fits, options, kinds=2)
            return Mixture(items, synthetic, sampler, options, pytest.fail, steps=4)

        first, again = mixture(), mixture()
        assert first.shares == [0.25, 0.5, 0.25]
        for step in range(4):
            batch, same = first.batch("network", step), again.batch("network", step)
            assert batch.stack.shape == (2, 1, sides, sides, sides)
            assert batch.truth.shape == batch.counted.shape == batch.stack.shape
            for name in ("stack", "truth", "counted"):
                assert torch.equal(getattr(batch, name), getattr(same, name))
                assert torch.isfinite(getattr(batch, name)).all()
    model = train(
        items[:1],
        synthetic[:1],
        sampler=sampler_of(Cohort(cohort.folder, cohort.entries[:1]), fits, options, kinds=2),
        options=replace(options, steps=2),
        device="cpu",
    )
    assert (model.training["originals"], model.training["synthetic"], model.training["on_the_fly"]) == (
        1,
        1,
        1,
    )
    assert [entry["patient_sha256"] for entry in model.training["patients"]] == [patient_sha256("p")]


def test_where_a_users_encoder_weights_lay_does_not_travel_with_the_model(
    cohort: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "jane_doe" / "r3d.pth"
    weights.parent.mkdir()
    torch.save(r3d_18_state(2), weights)
    flags = ["--method", "transfer", "--encoder-weights", weights, "--steps", 2, *QUICK]
    said = done("train", cohort, tmp_path / "m", *flags)
    digest = sha256_of(weights)
    assert digest in said
    for name in ("model.json", "lungcast.json", "history.csv"):
        assert "jane_doe" not in (tmp_path / "m" / name).read_text(), name
    assert digest in (tmp_path / "m" / "model.json").read_text()
    done("train", cohort, tmp_path / "m", "--resume", "--steps", 3, "--device", "cpu")
    plain = flags[:2] + flags[4:]
    done("train", cohort, tmp_path / "plain", *plain)
    assert "random" in (tmp_path / "plain" / "model.json").read_text()
    assert bytes_of(tmp_path / "plain") != bytes_of(tmp_path / "m")
