from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from segmentation.study.conclusions import verdict
from segmentation.study.missing import missing_sentences
from segmentation.study.paper_tables import all_tables
from segmentation.study.records import Row
from segmentation.study.report import study_markdown, write_report, write_tables
from segmentation.study.results_file import write_costs, write_results
from segmentation.study.statistics import paired
from segmentation.study.study_results import StudyResults
from segmentation.study.table import Contrast
from standard_space.errors import DataError, ReadError, UsageError
from tests.segmentation.study.synthetic import arm, costs, results, row, without_infection

ARMS = [
    (arm(), 0.0),
    (arm(generator="offline", ratio=200.0), 0.08),
    (arm(method="unet2d"), -0.1),
    (arm(method="unet2d", generator="offline", ratio=200.0), -0.1),
]


def store(folder: Path, rows: list[Row], *, about: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    write_results(folder / "results.csv", rows)
    write_costs(folder / "costs.csv", costs(ARMS))
    (folder / "study.json").write_text(json.dumps(about or {"grid": 128, "notes": ["seed 1 was not run"]}))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = store(tmp_path_factory.mktemp("study"), results(ARMS, patients=9))
    (folder / "tables").mkdir()
    for name in ("table_mueller.csv", "mine.csv"):
        (folder / "tables" / name).write_text("old")
    return folder, write_report(folder, title="A small study")


def test_everything_is_written_where_it_is_said(written: tuple[Path, list[Path]]) -> None:
    folder, paths = written
    assert paths[0] == folder / "report.md"
    assert all(path.stat().st_size for path in paths)
    text = paths[0].read_text()
    assert text.startswith("# A small study\n")
    for path in paths[1:]:
        assert path.suffix == ".csv" or f"({path.relative_to(folder).as_posix()})" in text
    assert not (folder / "tables" / "table_mueller.csv").exists()
    assert (folder / "tables" / "mine.csv").exists()
    assert not list(folder.rglob(".tmp*"))


def test_few_training_seeds_are_named_before_any_verdict() -> None:
    def told(seeds: tuple[int, ...], arms: list = ARMS) -> str:  # type: ignore[type-arg]
        study = StudyResults(tuple(results(arms, patients=9, seeds=seeds)))
        return study_markdown(study, all_tables(study), {})

    lines = told((0,)).splitlines()
    assert lines[2].startswith("**1 training seed: a difference holds for these trained models")
    assert told((0, 1)).splitlines()[2].startswith("**2 training seeds:")
    assert "training seeds:" not in told((0, 1, 2))
    assert "training seed:" not in told((0,), ARMS[:1])


def test_it_says_what_held_and_what_did_not(written: tuple[Path, list[Path]]) -> None:
    text = written[1][0].read_text()
    (held,) = [
        line
        for line in text.splitlines()
        if line.startswith("- Augmentation at 200 % (offline) changed the Dice of three-way by +0.0")
    ]
    assert held.endswith("9 patients, own test folds: shown, an increase.")
    (not_held,) = [
        line
        for line in text.splitlines()
        if "changed the Dice of unet2d by" in line and line.startswith("- Aug")
    ]
    assert "no difference was shown" in not_held
    assert "would be found with 80 % power" in not_held
    assert "own test folds: 3 folds and 9 patients are few" in text
    assert "supplement S1 is not public" in text


def test_it_names_tables_without_content_and_how_it_was_run(written: tuple[Path, list[Path]]) -> None:
    text = written[1][0].read_text()
    assert "Table VII: components removed: no component of the three-way method was removed" not in text
    assert (
        "- Mueller et al.: preprocessing, augmentation and folds: Mueller's method was run in one way only"
        in text
    )
    assert "- grid: 128" in text
    assert "  - seed 1 was not run" in text


def test_same_results_same_bytes(written: tuple[Path, list[Path]]) -> None:
    folder, paths = written
    study = StudyResults(
        tuple(results(ARMS, patients=9)[::-1]),
        tuple(costs(ARMS)[::-1]),
        json.loads((folder / "study.json").read_text()),
    )
    tables = all_tables(study)
    text = paths[0].read_text()
    links = dict(re.findall(r"!\[.*?\]\((.*?)\)\n\n(.*?)\n", text))
    assert text == "# A small study\n\n" + study_markdown(study, tables, links)
    for table in tables:
        if table.absent is None:
            assert (folder / "tables" / f"{table.name}.csv").read_text() == table.to_csv()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    rows = [
        one
        for one in results(ARMS[:3], patients=6, external=("moscow",))
        if one.method != "unet2d"
        or not (one.cohort == "moscow" or one.fold == 2 or (one.patient, one.scan) == ("p00", "t1"))
    ]
    study = StudyResults(tuple(rows))
    tables = all_tables(study)
    text = study_markdown(study, tables, {})
    assert "- own test folds, unet2d, 0 %, seed 0 lacks all of fold 2; p00/t1 (fold 1)" in text
    assert "- moscow, not scored: unet2d, 0 %" in text
    write_tables(tables, tmp_path)
    lines = (tmp_path / "unpaired.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 + 1
    assert 'table_2_methods,own,"three-way - unet2d, 0 %",first,p00,t1,1,0' in lines


def test_folds_that_were_not_run_are_named() -> None:
    rows = [one for one in results(ARMS[:1], patients=6) if one.fold == 1]
    assert "of 3 folds, not run: 2, 3" in missing_sentences(StudyResults(tuple(rows)))


def test_a_study_of_negatives_only(tmp_path: Path) -> None:
    rows = without_infection(results(ARMS[:2], patients=3), 3.2)
    text = write_report(store(tmp_path, rows))[0].read_text()
    assert "three-way, offline 200 %, finds 3.2 [3.2, 3.2] ml on average" in text
    assert "![" not in text


def test_one_score_is_no_comparison(tmp_path: Path) -> None:
    write_results(tmp_path / "results.csv.gz", [row()])
    text = write_report(tmp_path)[0].read_text()
    assert "Nothing was compared" in text
    assert "There is no study.json" in text
    assert "Costs of a model: no costs were measured" in text


def test_folders_that_hold_no_study(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no results of a study"):
        write_report(tmp_path)
    write_results(tmp_path / "results.csv", [])
    with pytest.raises(DataError, match="no results yet"):
        write_report(tmp_path)
    write_results(tmp_path / "results.csv.gz", [row()])
    with pytest.raises(UsageError, match="both plain and compressed"):
        write_report(tmp_path)
    (tmp_path / "results.csv").unlink()
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(ReadError, match="description"):
        write_report(tmp_path)


def test_a_difference_that_too_many_comparisons_hide_says_so() -> None:
    every_patient = results([(arm(), 0.0), (arm(method="unet2d"), -0.4)], patients=10)
    first = [row for row in every_patient if row.method == "three-way"]
    second = [row for row in every_patient if row.method == "unet2d"]
    found = paired(first, second)
    assert found.p == found.smallest_p
    hidden = verdict(Contrast("own", "unet2d", "It is", found, 0.08))
    assert hidden.startswith("not shown: the interval excludes 0")
    assert "p is the least that 10 patients can give, all of whom differ this way" in hidden
    assert "too large for so many comparisons" in hidden
    assert "least" not in verdict(Contrast("own", "unet2d", "It is", found, 0.04))
