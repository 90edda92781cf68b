"""`lungcast train`: the arguments are kept, and what contradicts them is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cli.main import main
from segmentation.model import ThreeWaySegmenter
from segmentation.rule_in_folder import tune_folder
from segmentation.segmenter import patient_sha256
from segmentation.training import TrainingOptions, items_of, train
from segmentation.training.cut import MARGIN_MM
from segmentation.training.material import material_of
from segmentation.training.mixture import SLICES_PER_VOLUME, Mixture
from segmentation.training.pool import ProgressionPool
from segmentation.training.request import opened, sampler_of
from segmentation.views import VIEWS
from simulator.cohort_fit import fit_cohort
from simulator.fits import CohortFits
from simulator.sampler import ProgressionSampler
from standard_space.cohort import Cohort
from standard_space.errors import UsageError
from standard_space.scan import Scan
from tests.simulator.scans import cohort_of, small_scan

QUICK = ["--width", "2", "--batch", "2", "--patch", "16", "--device", "cpu"]


def own_image(scan: Scan, patient: str | None = None) -> Scan:
    """The same scan as if it came from an image of its own, or of another patient."""
    provenance = {**scan.provenance, "image_sha256": patient_sha256(patient or scan.patient)}
    return dataclasses.replace(scan, provenance=provenance)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with fits: `c`, `fits.json`."""
    folder = tmp_path_factory.mktemp("command")
    shifts = (("p", 0.0), ("q", 0.04), ("rr", 0.02))
    scans = [own_image(small_scan(name, shift=shift)) for name, shift in shifts]
    made = cohort_of(folder / "c", *scans)
    fit_cohort(made).save(folder / "fits.json")
    return folder


def lungcast(*words: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(main, [str(word) for word in words])


def done(*words: object) -> Result:
    result = lungcast(*words)
    assert result.exit_code == 0, result.output
    return result


def fails(code: int, text: str, *words: object) -> None:
    result = lungcast(*words)
    assert (result.exit_code, text in result.output) == (code, True), result.output
    assert "Traceback" not in result.output


def model_id(folder: Path) -> str:
    return ThreeWaySegmenter.load(folder).model_id


def test_resume_needs_no_other_flag_and_extends(cohort: Path, tmp_path: Path) -> None:
    flags = ["--on-the-fly", 0.4, "--fits", cohort / "fits.json", "--validation-share", 0.3, "--steps", 2]
    done("train", cohort / "c", tmp_path / "m", *flags, *QUICK, "--optimiser", "sgd")
    first = model_id(tmp_path / "m")
    said = done("train", cohort / "c", tmp_path / "m", "--resume")
    assert "Trained on 1 of 2 scans and 0 synthetic ones (each view at least);" in said.output
    assert "Validation: median Dice" in said.output
    assert model_id(tmp_path / "m") == first
    done("train", cohort / "c", tmp_path / "m", "--resume", "--steps", 3, "--device", "cpu")
    longer = ThreeWaySegmenter.load(tmp_path / "m")
    assert longer.training["steps_per_view"] == dict.fromkeys(VIEWS, 3)
    assert longer.training["options"]["optimiser"] == "sgd"
    assert longer.training["options"]["on_the_fly_share"] == 0.4
    held_out = {entry["patient_sha256"] for entry in longer.training["validation_patients"]}
    learned = {entry["patient_sha256"] for entry in longer.training["patients"]}
    assert held_out | learned == {patient_sha256(name) for name in ("p", "q", "rr")}
    assert held_out.isdisjoint(learned)
    for folder in (cohort, tmp_path):
        assert str(folder) not in (tmp_path / "m" / "model.json").read_text()
    assert (tmp_path / "m" / "curves.png").stat().st_size > 5000


def test_what_contradicts_the_stored_run_is_refused(cohort: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    done("train", cohort / "c", model, "--steps", 2, *QUICK)
    before = model_id(model)
    fails(2, "begun with another width", "train", cohort / "c", model, "--resume", "--width", 4)
    fails(2, "begun with another seed", "train", cohort / "c", model, "--resume", "--seed", 4)
    fails(2, "exclude each other", "train", cohort / "c", model, "--resume", "--force")
    fails(2, "gone further already", "train", cohort / "c", model, "--resume", "--steps", 1)
    fails(2, "not empty", "train", cohort / "c", model, "--steps", 2, *QUICK)
    shutil.copytree(cohort / "c", tmp_path / "c")
    (tmp_path / "c" / "q_a.h5").unlink()
    entries = [entry for entry in Cohort.open(tmp_path / "c").entries if entry.patient != "q"]
    Cohort.write_manifest(tmp_path / "c", entries)
    fails(2, "begun with other scans", "train", tmp_path / "c", model, "--resume")
    done("train", cohort / "c", model, "--resume", "--width", 2)
    assert model_id(model) == before
    done("train", cohort / "c", model, "--steps", 1, *QUICK, "--force")
    assert model_id(model) != before


def test_a_rule_tuned_since_is_told_apart_and_an_extension_replaces_it(cohort: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    others = [own_image(small_scan(name, shift=0.03)) for name in ("s", "t")]
    cohort_of(tmp_path / "v", *others)
    for flags, first in (([], False), (["--validation-share", 0.3, "--force"], True)):
        done("train", cohort / "c", model, "--steps", 2, *QUICK, *flags)
        tune_folder(model, Cohort.open(tmp_path / "v"), rule="product", device="cpu")
        said = done("train", cohort / "c", model, "--resume").output
        assert ("Validation: median Dice" in said) == first
        assert not first or "1 scans at sum>t, t = " in said
        assert "Tuned since by `lungcast tune`: median Dice" in said
        assert "2 scans at product, t = " in said
    said = done("train", cohort / "c", model, "--resume", "--steps", 3).output
    assert "the rule of `lungcast tune` (product, t = " in said
    assert "Tuned since" not in said
    assert ThreeWaySegmenter.load(model).aggregation.rule == "sum>t"


def test_the_same_image_under_two_names_does_not_play_for_its_twin(cohort: Path, tmp_path: Path) -> None:
    twins = [
        own_image(small_scan("p")),
        own_image(small_scan("w", shift=0.02), "q"),
        own_image(small_scan("q")),
    ]
    made = cohort_of(tmp_path / "c", *twins)
    fit_cohort(made).save(tmp_path / "fits.json")
    cohort_of(tmp_path / "v", own_image(small_scan("q")))
    arguments = {"on_the_fly": 0.4, "fits": tmp_path / "fits.json", "validation": tmp_path / "v"}
    options = TrainingOptions(steps=1, on_the_fly_share=0.4)
    what = opened(tmp_path / "c", arguments, options)
    assert {entry.patient for entry in what["sampler"].entries} == {"p"}
    wide = ProgressionSampler(made, CohortFits.load(tmp_path / "fits.json"), seed=0, margin_mm=MARGIN_MM)
    wide.entries = [entry for entry in wide.entries if entry.patient != "q"]
    with pytest.raises(UsageError, match=r"made of validation patients.*w"):
        material_of(what["originals"], (), what["validation"], wide, options, print)


def test_views_apart_and_then_the_model(cohort: Path, tmp_path: Path) -> None:
    first = done("train", cohort / "c", tmp_path / "m", "--steps", 2, *QUICK, "--views", "xz")
    assert "still to be trained" in first.output
    assert not (tmp_path / "m" / "model.json").exists()
    said = done("train", cohort / "c", tmp_path / "m", "--resume", "--views", "xy,yz")
    assert "last mean loss" in said.output
    done("train", cohort / "c", tmp_path / "whole", "--steps", 2, *QUICK, "--resume")
    assert model_id(tmp_path / "m") == model_id(tmp_path / "whole")


def test_wrong_requests(cohort: Path, tmp_path: Path) -> None:
    c, m = cohort / "c", tmp_path / "m"
    fits = cohort / "fits.json"
    fails(2, "go together", "train", c, m, "--on-the-fly", 0.5)
    fails(2, "go together", "train", c, m, "--fits", fits)
    fails(2, "named twice", "train", c, m, "--augmented", c, "--augmented", c)
    fails(2, "exclude each other", "train", c, m, "--validation", c, "--validation-share", 0.5)
    fails(2, "above 1 together", "train", c, m, "--augmented", c, "--on-the-fly", 0.6, "--fits", fits)
    fails(2, "unknown view", "train", c, m, "--views", "xx")
    fails(2, "multiple of 16", "train", c, m, "--patch", 20)
    fails(2, "learned on validation scans", "train", c, m, "--aggregation", "svm")
    fails(2, "patience needs validation", "train", c, m, "--patience", 3)
    fails(2, "where lungs end", "train", c, m, "--target", "lungs", "--on-the-fly", 0.5, "--fits", fits)
    fails(2, "not a lungcast cohort", "train", tmp_path / "none", m)
    fails(2, "holds what is read", "train", c, cohort)
    fails(2, "lies in what is read", "train", c, c / "m")
    fails(2, "more than one value", "train", c, m, "--batch", 1, "--patch", 16)
    assert not m.exists()
    alone = cohort_of(tmp_path / "one", small_scan())
    fails(2, "cannot both train and validate", "train", alone.folder, m, "--validation-share", 0.5)


def test_a_damaged_scan_is_left_out_and_named(cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort / "c", tmp_path / "c")
    broken = tmp_path / "c" / "q_a.h5"
    broken.write_bytes(broken.read_bytes()[:2000])
    said = done("train", tmp_path / "c", tmp_path / "m", "--steps", 3, *QUICK)
    assert "note: q/a: left out, it cannot be read" in said.output
    assert any("q/a" in note for note in ThreeWaySegmenter.load(tmp_path / "m").training["notes"])
    for file in (tmp_path / "c").glob("*.h5"):
        file.write_bytes(b"")
    fails(1, "no scan to train on can be used", "train", tmp_path / "c", tmp_path / "n", *QUICK)


def test_ctrl_c_says_how_to_continue(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, batch: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("segmentation.training.loop.ViewTrainer.step", interrupted)
        fails(130, "--resume", "train", cohort / "c", tmp_path / "m", "--steps", 2, *QUICK)
    assert json.loads((tmp_path / "m" / "training" / "run.json").read_text())["steps"] == 2
    done("train", cohort / "c", tmp_path / "m", "--resume")


def test_progressions_are_made_on_the_fly(cohort: Path) -> None:
    made_cohort, fits = Cohort.open(cohort / "c"), CohortFits.load(cohort / "fits.json")
    options = TrainingOptions(batch_size=4, patch=16, on_the_fly_share=0.5, vary=False)

    def mixture() -> Mixture:
        sampler = sampler_of(made_cohort, fits, options, kinds=1)
        return Mixture(items_of(made_cohort), (), sampler, options, print)

    first, again = mixture(), mixture()
    assert first.shares == [0.5, 0.5]
    pool = first._pools[0]
    assert isinstance(pool, ProgressionPool)
    made: list[int] = []
    load = pool.load
    pool.load = lambda volume: made.append(volume) or load(volume)  # type: ignore[method-assign, func-returns-value]
    batches = [first.batch("xy", step) for step in range(30)]
    assert torch.equal(batches[-1].stack, again.batch("xy", 29).stack)
    assert made == sorted(set(made), key=made.index)
    assert len(made) <= pool.held + 120 * 0.5 / SLICES_PER_VOLUME
    volume = pool.draw("xy", 0, np.random.default_rng(0))
    sampler = sampler_of(made_cohort, fits, options, kinds=1)
    crop = sampler.make(sampler.draw(made[0]))
    again_made = load(made[0])
    assert again_made is not None
    assert int(again_made.truth.sum()) == int(crop.infection.sum())
    assert volume.truth.any()


def test_a_sampler_that_cannot_be_used(cohort: Path) -> None:
    made_cohort, fits = Cohort.open(cohort / "c"), CohortFits.load(cohort / "fits.json")
    options = TrainingOptions(steps=1, batch_size=2, width=2, patch=16)
    items = items_of(made_cohort)
    narrow = ProgressionSampler(made_cohort, fits, seed=0)
    with pytest.raises(UsageError, match="margin is too narrow"):
        train(items, sampler=narrow, options=options, device="cpu")
    wide = ProgressionSampler(made_cohort, fits, seed=0, margin_mm=MARGIN_MM)
    with pytest.raises(UsageError, match="made of validation patients"):
        train(items, validation=items[:1], sampler=wide, options=options, device="cpu")
    only = train((), sampler=wide, options=dataclasses.replace(options, steps=1), device="cpu")
    assert {entry["patient_sha256"] for entry in only.training["patients"]} == {
        patient_sha256(name) for name in ("p", "q", "rr")
    }
