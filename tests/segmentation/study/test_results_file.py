from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path
from typing import Any

import pytest

from segmentation.study.records import CostRow, Row, canonical_variant, columns
from segmentation.study.results_file import merge, read_costs, read_results, write_costs, write_results
from standard_space.errors import DataError, ReadError
from tests.segmentation.study.synthetic import arm, costs, results, row


def test_the_columns_are_the_agreed_ones() -> None:
    assert ",".join(columns(Row)) == (
        "method,generator,ratio,variant,folds,fold,seed,cohort,patient,scan,stage,scanner,dice,recall,precision,"
        "specificity,iou,dice_2voxel,nsd,true_ml,predicted_ml,true_share,predicted_share"
    )
    assert ",".join(columns(CostRow)) == (
        "method,generator,ratio,variant,folds,fold,seed,parameters,steps,train_s,predict_s,peak_memory_mb"
    )


@pytest.mark.parametrize("name", ["results.csv", "results.csv.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    rows = [
        *results([(arm(), 0.0), (arm(generator="offline", ratio=62.5), 0.1)], patients=3),
        row(patient='a, "b"\nc', dice=None, nsd=None, stage=None, scanner=None, true_share=None),
    ]
    write_results(tmp_path / name, rows)
    assert sorted(rows, key=lambda one: one.key) == read_results(tmp_path / name)
    # The order of rows does not matter, nor when it is written.
    first = (tmp_path / name).read_bytes()
    write_results(tmp_path / name, rows[::-1])
    assert (tmp_path / name).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_costs_too(tmp_path: Path) -> None:
    rows = [*costs([(arm(), 0.0)]), CostRow("unet2d", "none", 0, "", 3, 1, 0, None, 5, None, 0.25, None)]
    write_costs(tmp_path / "costs.csv", rows)
    assert read_costs(tmp_path / "costs.csv") == rows


def test_a_variant_has_one_spelling() -> None:
    assert row(variant="vary=off;preprocess=off").variant == "preprocess=off;vary=off"
    for wrong in ("off", "view=xy;view=yz", "view=", "a=b;;c=d"):
        with pytest.raises(DataError, match="variant"):
            canonical_variant(wrong)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dice": 1.2}, "dice is out of range"),
        ({"dice": float("nan")}, "dice is out of range"),
        ({"true_ml": -1.0}, "true_ml is out of range"),
        ({"fold": 3}, "fold is out of range"),
        ({"fold": 0}, "fold is out of range"),
        ({"generator": "dream", "ratio": 50.0}, "no such generator"),
        ({"generator": "offline"}, "does not go with the ratio"),
        ({"ratio": 100.0}, "does not go with the ratio"),
        ({"patient": ""}, "names no patient"),
        ({"method": ""}, "names no method"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        row(**values)


def _spoilt(folder: Path, old: str, new: str) -> Path:
    path = folder / "results.csv"
    write_results(path, [row()])
    path.write_text(path.read_text().replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("true_share,predicted_share", "true_share", "columns"),
        ("method,", "model,", "columns"),
        ("0.99", "much", r"line 2: a value cannot be read \(could not convert string to float: 'much'\)"),
        ("0.99", "inf", "line 2: specificity is out of range"),
        ("50,55,", "50,,", "line 2: a value cannot be read"),
        ("own,p0", "own,", r"line 2: .*cut short|line 2: a row names no patient|cut short"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises((ReadError, DataError), match=message):
        read_results(_spoilt(tmp_path, old, new))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        read_results(tmp_path / "results.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ReadError, match="columns"):
        read_results(tmp_path / "empty.csv")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"method")[:12])
    with pytest.raises(ReadError, match="cannot be read"):
        read_results(tmp_path / "torn.csv.gz")


def test_a_row_comes_once(tmp_path: Path) -> None:
    twice = [row(dice=0.5), row(dice=0.6)]
    with pytest.raises(DataError, match="three-way, 0 %, fold 1 of 2, seed 0, cohort own, p0/t1"):
        write_results(tmp_path / "results.csv", twice)
    assert not list(tmp_path.iterdir())
    path = tmp_path / "results.csv"
    write_results(path, [row()])
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    with pytest.raises(DataError, match="line 3: line 2 is about the same"):
        read_results(path)


def test_shards_are_merged_and_contradictions_refused() -> None:
    rows = results([(arm(), 0.0)], patients=4)
    assert merge(rows[2:], rows[:3], rows) == sorted(rows, key=lambda one: one.key)
    with pytest.raises(DataError, match=r"contradict.*got predicted_ml 9.0, expected predicted_ml"):
        merge(rows, [dataclasses.replace(rows[1], predicted_ml=9.0)])
