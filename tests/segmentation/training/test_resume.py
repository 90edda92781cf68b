"""A run that ends anywhere and is continued gives the weights of one that was never interrupted."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segmentation.model import ThreeWaySegmenter
from segmentation.training import TrainingItem, TrainingOptions, run_folder, train
from segmentation.training.checkpoint import CHECKPOINT, read_state
from segmentation.training.material import Material
from segmentation.training.mixture import Mixture
from segmentation.training.run import train_views
from segmentation.training.run_folder import TRAINING
from segmentation.views import VIEWS
from standard_space.errors import DataError, UsageError
from standard_space.files import write_mark
from standard_space.folders import folder_lock
from tests.segmentation.toys import toy_items

OPTIONS = TrainingOptions(
    steps=6, batch_size=2, width=2, patch=16, validate_every=2, validation_slices=4, checkpoint_minutes=0.0
)
OPTIONS_PLAIN = TrainingOptions(steps=2, batch_size=2, width=2, patch=16)


class Stop(Exception):
    """Stands for whatever ends a run."""


def after(calls: int) -> Callable[[str, int, int], None]:
    left = [calls]

    def progress(item: str, done: int, total: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    return progress


def run(folder: Path | None, **given: Any) -> ThreeWaySegmenter:
    originals, validation = toy_items(3)[:2], toy_items(3)[2:]
    synthetic = toy_items(1, synthetic=True, seed=9)
    arguments = {"options": OPTIONS, "device": "cpu", "validation": validation, **given}
    return train(originals, synthetic, folder=folder, **arguments)


def weights(folder: Path) -> dict[str, bytes]:
    """Every bit of the weights; the files' own bytes hold more."""
    networks = ThreeWaySegmenter.load(folder).networks
    return {
        f"{view}.{name}": tensor.numpy().tobytes()
        for view in VIEWS
        for name, tensor in networks[view].state_dict().items()
    }


def said(folder: Path) -> dict[str, Any]:
    """A model's description without the hashes of its files."""
    described = json.loads((folder / "model.json").read_text())
    return {key: value for key, value in described.items() if key != "views"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "whole"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(folder)
    torch.set_num_threads(threads)
    return folder


@pytest.mark.parametrize("calls", [1, 4, 6, 9, 18])
def test_interrupted_and_continued_to_the_same_bytes(whole: Path, tmp_path: Path, calls: int) -> None:
    with pytest.raises(Stop):
        run(tmp_path / "m", progress=after(calls))
    assert not (tmp_path / "m" / "model.json").exists()
    run(tmp_path / "m", resume=True)
    assert weights(tmp_path / "m") == weights(whole)
    assert said(tmp_path / "m") == said(whole)
    rows = [(row["view"], row["step"], row["kind"]) for row in history(tmp_path / "m")]
    assert len(rows) == len(set(rows)) == 3 * (6 + 3)
    assert rows == [(row["view"], row["step"], row["kind"]) for row in history(whole)]


def test_rare_checkpoints_lose_steps_but_no_bits(whole: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, checkpoint_minutes=60.0)
    with pytest.raises(Stop):
        run(tmp_path / "m", options=options, progress=after(10))
    assert read_state(tmp_path / "m" / TRAINING / "yz" / CHECKPOINT) is None
    run(tmp_path / "m", options=options, resume=True)
    assert weights(tmp_path / "m") == weights(whole)


def test_with_and_without_a_folder_the_weights_are_the_same(whole: Path) -> None:
    assert run(None).model_id == ThreeWaySegmenter.load(whole).model_id


def test_a_finished_run_is_not_trained_again(whole: Path) -> None:
    before = weights(whole)
    calls: list[str] = []
    again = run(whole, resume=True, options=None, progress=lambda item, done, total: calls.append(item))
    assert not calls
    assert weights(whole) == before
    assert again.scores["validation"]["scans"] == 1


def test_a_run_killed_while_the_model_was_written(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "m")
    (tmp_path / "m" / "yz.pt").write_bytes((tmp_path / "m" / "xz.pt").read_bytes())
    run(tmp_path / "m", resume=True)
    assert weights(tmp_path / "m") == weights(whole)


def test_rows_that_a_kill_kept_from_the_history_are_written_with_the_model(
    whole: Path, tmp_path: Path
) -> None:
    written = run_folder.write_rows

    def killed(path: Path, rows: Any) -> None:
        if path.parent.name == "xy" and len(rows["xy"]) == 9:
            raise Stop
        written(path, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "write_rows", killed)
        with pytest.raises(Stop):
            run(tmp_path / "m")
    run(tmp_path / "m", resume=True)
    rows = [(row["view"], row["step"], row["kind"]) for row in history(tmp_path / "m")]
    assert rows == [(row["view"], row["step"], row["kind"]) for row in history(whole)]


def test_a_run_killed_between_the_model_and_its_mark_is_whole_when_continued(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    run(folder, options=OPTIONS_PLAIN, validation=())
    mark = (folder / "lungcast.json").read_bytes()
    write_mark(folder, "model", {"complete": False})
    model = (folder / "model.json").read_bytes()
    run(folder, options=OPTIONS_PLAIN, validation=(), resume=True)
    assert (folder / "lungcast.json").read_bytes() == mark
    # Without its run the model is still never emptied.
    write_mark(folder, "model", {"complete": False})
    shutil.rmtree(folder / TRAINING)
    with pytest.raises(UsageError, match="not empty"):
        run(folder, options=OPTIONS_PLAIN, validation=(), resume=True)
    assert (folder / "model.json").read_bytes() == model


def test_an_extension_keeps_how_often_scans_are_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_with = []
    made = Material.mixture

    def spied(self: Material, options: TrainingOptions, steps: int, *given: Any, **more: Any) -> Mixture:
        begun_with.append(steps)
        return made(self, options, steps, *given, **more)

    monkeypatch.setattr(Material, "mixture", spied)
    for steps in (2, 4):
        options = dataclasses.replace(OPTIONS_PLAIN, steps=steps)
        train(toy_items(1), options=options, folder=tmp_path / "m", device="cpu", resume=True)
    assert len(begun_with) >= 3
    assert set(begun_with) == {2}
    stored = json.loads((tmp_path / "m" / TRAINING / "run.json").read_text())
    assert (stored["begun_with"], stored["steps"]) == (2, 4)


def test_more_steps_extend_a_run_finished_or_not(tmp_path: Path) -> None:
    more = dataclasses.replace(OPTIONS, steps=9)
    for name in ("a", "b"):
        run(tmp_path / name)
    run(tmp_path / "a", options=more, resume=True)
    with pytest.raises(Stop):
        run(tmp_path / "b", options=more, resume=True, progress=after(5))
    longer = run(tmp_path / "b", resume=True, options=None)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert longer.training["steps_per_view"] == dict.fromkeys(VIEWS, 9)
    rates = {
        int(row["step"]): float(row["learning_rate"])
        for row in history(tmp_path / "a")
        if row["view"] == "xy" and row["kind"] == "training"
    }
    assert list(rates) == list(range(1, 10))
    assert rates[7] > rates[6]  # the schedule is that of nine steps from there on
    unfinished = tmp_path / "c"
    with pytest.raises(Stop):
        run(unfinished, progress=after(4))
    run(unfinished, options=more, resume=True)
    with pytest.raises(UsageError, match="gone further already"):
        run(unfinished, options=dataclasses.replace(OPTIONS, steps=8), resume=True)


def test_another_run_is_not_continued(whole: Path) -> None:
    with pytest.raises(UsageError, match=r"other options.*batch_size 3.*expected 2"):
        run(whole, options=dataclasses.replace(OPTIONS, batch_size=3), resume=True)
    with pytest.raises(UsageError, match="other scans"):
        run(whole, resume=True, validation=toy_items(4)[2:])
    with pytest.raises(UsageError, match="not empty"):
        run(whole)


def test_force_replaces_a_run(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "m", options=dataclasses.replace(OPTIONS, seed=1))
    assert weights(tmp_path / "m") != weights(whole)
    model = train_views(
        toy_items(3)[:2],
        toy_items(1, synthetic=True, seed=9),
        validation=toy_items(3)[2:],
        options=OPTIONS,
        device="cpu",
        folder=tmp_path / "m",
        force=True,
    )
    assert model is not None
    assert weights(tmp_path / "m") == weights(whole)


def test_a_view_that_is_being_trained_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path / "m", progress=after(2))
    before = (tmp_path / "m" / TRAINING / "run.json").read_bytes()
    with folder_lock(tmp_path / "m" / TRAINING / "yz"):
        for given in (
            {"resume": True},
            {"resume": True, "options": dataclasses.replace(OPTIONS, steps=9)},
        ):
            with pytest.raises(UsageError, match="another run is writing"):
                run(tmp_path / "m", **given)
        with pytest.raises(UsageError, match="another run is writing"):
            train_views(toy_items(1), options=OPTIONS_PLAIN, folder=tmp_path / "m", force=True, device="cpu")
    assert (tmp_path / "m" / TRAINING / "run.json").read_bytes() == before


def test_views_trained_apart_make_the_same_model(whole: Path, tmp_path: Path) -> None:
    made = []
    for views in (["yz"], ["xz", "xy"]):
        made.append(
            train_views(
                toy_items(3)[:2],
                toy_items(1, synthetic=True, seed=9),
                validation=toy_items(3)[2:],
                options=OPTIONS,
                views=views,
                device="cpu",
                folder=tmp_path / "m",
                resume=True,
            )
        )
    assert made[0] is None
    assert made[1] is not None
    assert weights(tmp_path / "m") == weights(whole)
    assert len(history(tmp_path / "m")) == len(history(whole))
    for wrong in (["xx"], [], ["xy"]):
        with pytest.raises(UsageError):
            train_views(toy_items(1), options=OPTIONS, views=wrong)


def test_damaged_state_is_told(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path / "m", progress=after(3))
    state = tmp_path / "m" / TRAINING / "xy" / CHECKPOINT
    content = state.read_bytes()
    for damaged in (content[:1000], b"torn", b""):
        state.write_bytes(damaged)
        with pytest.raises(DataError, match="checkpoint is damaged"):
            run(tmp_path / "m", resume=True)
    torch.save({"weights": 1}, state)
    with pytest.raises(DataError, match="no checkpoint of this version"):
        run(tmp_path / "m", resume=True)
    (tmp_path / "m" / TRAINING / "run.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        run(tmp_path / "m", resume=True)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        run(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written to"):
        run(tmp_path / "file" / "m")


def test_no_path_and_no_argument_reaches_the_model(tmp_path: Path) -> None:
    train_views(
        toy_items(2), options=OPTIONS_PLAIN, device="cpu", folder=tmp_path / "m", arguments={"a": "/secret"}
    )
    assert "/secret" not in (tmp_path / "m" / "model.json").read_text()
    assert json.loads((tmp_path / "m" / TRAINING / "run.json").read_text())["arguments"] == {"a": "/secret"}


def test_patients_are_told_apart_without_their_names(tmp_path: Path) -> None:
    items = [TrainingItem("Anna/S1", False, toy_items(1)[0].load)]
    model = train(items, options=OPTIONS_PLAIN, folder=tmp_path / "m", device="cpu")
    assert "Anna" not in (tmp_path / "m" / "model.json").read_text()
    assert len(model.training["patients"]) == 1


def history(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))
