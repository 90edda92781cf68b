from __future__ import annotations

import csv
from typing import Any

import pytest

from segmentation.study.paper_tables import (
    all_tables,
    swept,
    table_components,
    table_methods,
    table_quantification,
)
from segmentation.study.records import Row
from segmentation.study.study_results import Level, StudyResults
from segmentation.study.table import Table
from tests.segmentation.study.synthetic import WHOLE_STUDY, arm, costs, results, row, without_infection


def study_of(rows: list[Row]) -> StudyResults:
    return StudyResults(tuple(rows))


def tables_of(study: StudyResults) -> dict[str, Table]:
    return {table.name: table for table in all_tables(study)}


def numbers(table: Table) -> list[dict[str, Any]]:
    """The table's CSV."""
    return list(csv.DictReader(table.to_csv().splitlines()))


@pytest.fixture(scope="module")
def whole() -> StudyResults:
    rows = results(WHOLE_STUDY, patients=15, external=("moscow",))
    rows += without_infection([one for one in rows if one.cohort == "own" and not one.variant], 3.2)
    return StudyResults(tuple(rows), tuple(costs(WHOLE_STUDY)))


@pytest.fixture(scope="module")
def tables(whole: StudyResults) -> dict[str, Table]:
    return tables_of(whole)


def difference(table: Table, cohort: str = "own", **names: str) -> float:
    (found,) = [
        line
        for line in numbers(table)
        if line["cohort"] == cohort and all(line[name] == value for name, value in names.items())
    ]
    return float(found["difference"])


def test_every_table_has_something_to_show(tables: dict[str, Table]) -> None:
    assert [name for name, table in tables.items() if table.absent] == []
    assert list(tables) == [
        "table_2_methods",
        "table_3_stages",
        "table_4_quantification",
        "table_5_ratios",
        "table_6_augmentation",
        "table_7_components",
        "table_s1_choices",
        "table_mueller",
        "table_generators",
        "table_negatives",
        "table_costs",
    ]
    for table in tables.values():
        assert {len(cells) for cells in table.rows} == {len(table.columns)}
        assert {len(line) for line in table.values} == {len(table.value_columns)}
        assert len(set(table.value_columns)) == len(table.value_columns)


@pytest.mark.parametrize("cohort", ["own", "moscow"])
def test_known_effects_are_recovered(tables: dict[str, Table], cohort: str) -> None:
    close = 0.015
    six = tables["table_6_augmentation"]
    assert difference(six, cohort, method="three-way", augmentation="offline 200 %") == pytest.approx(
        0.06, abs=close
    )
    assert difference(six, cohort, method="unet2d", augmentation="offline 200 %") == pytest.approx(
        0.0, abs=close
    )
    five = tables["table_5_ratios"]
    assert difference(five, cohort, method="three-way", ratio="50 %") == pytest.approx(0.03, abs=close)
    assert difference(five, cohort, method="three-way", ratio="400 %") == pytest.approx(0.05, abs=close)
    seven = tables["table_7_components"]
    assert difference(seven, cohort, removed="normalise") == pytest.approx(-0.12, abs=close)
    assert difference(seven, cohort, removed="augment") == pytest.approx(-0.06, abs=close)
    assert difference(seven, cohort, removed="combine (view x-y alone), the best view") == pytest.approx(
        -0.04, abs=close
    )
    choices = tables["table_s1_choices"]
    assert difference(choices, cohort, choice="offsets single") == pytest.approx(-0.04, abs=close)
    mueller = tables["table_mueller"]
    assert difference(mueller, cohort, k="3", preprocessing="off") == pytest.approx(-0.06, abs=close)
    assert difference(mueller, cohort, k="3", augmentation="off") == pytest.approx(-0.03, abs=close)
    assert difference(mueller, cohort, k="2") == pytest.approx(-0.01, abs=close)
    generators = tables["table_generators"]
    ours = {"method": "three-way", "generator": "offline"}
    assert difference(generators, cohort, **ours, compared_with="copy-paste") == pytest.approx(
        0.04, abs=close
    )
    assert difference(generators, cohort, method="three-way", generator="nothing") == pytest.approx(
        -0.05, abs=close
    )
    two = [
        line
        for line in numbers(tables["table_2_methods"])
        if (line["cohort"], line["arm_method"], line["arm_ratio"], line["row"])
        == (cohort, "unet2d", "200.0", "")
    ]
    assert float(two[0]["difference"]) == pytest.approx(0.14, abs=close)


def test_what_is_shown_and_what_is_not(tables: dict[str, Table]) -> None:
    shown = {
        contrast.subject: contrast.shown
        for contrast in tables["table_6_augmentation"].contrasts
        if contrast.cohort == "own"
    }
    assert shown == {
        "three-way: augmentation": True,
        "unet2d: augmentation": False,
        "mueller: augmentation": True,
    }
    for table in tables.values():
        for contrast in table.contrasts:
            assert (
                contrast.p_holm is None
                or contrast.difference.p is None
                or contrast.p_holm >= contrast.difference.p
            )


def test_cohorts_are_never_pooled(tables: dict[str, Table]) -> None:
    for table in tables.values():
        if table.columns[0] == "cohort":
            named = [cells[0] for cells in table.rows]
            assert named == sorted(named, key=["own test folds", "moscow", "healthy"].index)
    assert {line["cohort"] for line in numbers(tables["table_negatives"])} == {"healthy"}
    assert {line["cohort"] for line in numbers(tables["table_4_quantification"])} == {"own", "moscow"}


def test_main_choices(whole: StudyResults) -> None:
    assert whole.folds == 3
    assert whole.main_level == Level("offline", 200.0)
    assert whole.methods == ("three-way", "unet2d", "mueller")
    assert whole.cohorts == ("own", "healthy", "moscow")
    assert ("three-way", "offline", [50.0, 200.0, 400.0]) in swept(whole)
    assert "copy-paste" not in {generator for _, generator, _ in swept(whole)}


def test_marks_of_table_two() -> None:
    rows = [
        row(patient=f"p{k}", scanner="A" if k < 3 else "B", dice=0.1 if k == 0 else 0.6) for k in range(5)
    ]
    table = table_methods(study_of(rows))
    found = {line["row"]: line for line in numbers(table)}
    assert list(found) == ["", "*", "#", "@"]
    assert float(found[""]["dice_mean"]) == pytest.approx(0.5)
    assert (found[""]["failures"], found[""]["dice_worst"]) == ("1", "0.1")
    assert (float(found["*"]["dice_mean"]), found["*"]["scans"]) == (pytest.approx(0.6), "4")
    assert (float(found["#"]["dice_mean"]), found["#"]["scans"]) == (
        pytest.approx((0.1 + 0.6 + 0.6) / 3),
        "3",
    )
    assert float(found["@"]["dice_mean"]) == pytest.approx(0.6)
    assert "own test folds: #: scanner A alone" in table.notes


def test_table_two_without_scanners_says_so() -> None:
    table = table_methods(study_of([row(scanner=None), row(patient="p1", scanner=None)]))
    assert [line["row"] for line in numbers(table)] == ["", "*", "@"]
    assert any("no scanner is known" in note for note in table.notes)


def test_quantification_counts_healthy_scans_of_a_mixed_cohort_only() -> None:
    ill = [row(patient=f"p{k}", true_ml=10.0 * k, predicted_ml=10.0 * k + 2) for k in range(1, 5)]
    healthy = row(patient="h", dice=None, true_ml=0.0, predicted_ml=8.0, true_share=0.0, predicted_share=0.01)
    (line,) = numbers(table_quantification(study_of([*ill, healthy, *without_infection(ill, 9.0)])))
    assert (line["cohort"], line["scans"]) == ("own", "5")
    assert float(line["ml_worst_error"]) == 8.0
    assert float(line["ml_rmse"]) == pytest.approx(((4 * 4 + 64) / 5) ** 0.5)


def test_unequal_pairs_are_named_below_the_table() -> None:
    rows = results([(arm(), 0.0), (arm(generator="offline", ratio=200.0), 0.1)], patients=6)
    kept = [one for one in rows if not (one.ratio and (one.patient, one.scan) == ("p02", "t1"))]
    table = tables_of(study_of(kept))["table_6_augmentation"]
    assert any("three-way, 0 % alone has p02/t1 (fold 3, seed 0)" in note for note in table.notes)
    (line,) = [line for line in numbers(table) if line["pairs"]]
    assert (line["pairs"], line["unpaired_first"], line["unpaired_second"]) == ("11", "0", "1")


def test_one_method_at_one_level_leaves_comparisons_out() -> None:
    study = study_of(results([(arm(), 0.0)], patients=3))
    absent = {name for name, table in tables_of(study).items() if table.absent}
    assert absent == {
        *(
            "table_5_ratios",
            "table_6_augmentation",
            "table_7_components",
            "table_s1_choices",
            "table_mueller",
        ),
        *("table_generators", "table_negatives", "table_costs"),
    }


def test_one_fold_and_one_patient() -> None:
    rows = [row(method=method, folds=1, dice=0.6) for method in ("three-way", "unet2d")]
    rows += [row(folds=1, generator="offline", ratio=200.0, dice=0.7)]
    tables = tables_of(study_of(rows))
    (contrast,) = tables["table_6_augmentation"].contrasts
    assert contrast.difference.mean == pytest.approx(0.1)
    assert not contrast.shown
    assert any("unet2d was not run at offline 200 %" in note for note in tables["table_6_augmentation"].notes)


def test_negatives_only() -> None:
    tables = tables_of(study_of(without_infection(results([(arm(), 0.0)], patients=3), 3.2)))
    assert [name for name, table in tables.items() if not table.absent] == ["table_negatives"]
    (line,) = numbers(tables["table_negatives"])
    assert (float(line["mean_ml"]), line["scores_above_1_ml"], line["scans"]) == (
        pytest.approx(3.2),
        "6",
        "6",
    )


def test_empty_metrics_are_dashes() -> None:
    rows = [row(patient=f"p{k}", dice=None, recall=None, nsd=None) for k in range(2)]
    table = table_methods(study_of(rows))
    assert table.rows[0][5:9] == ("-", "-", "-", "0 of 0")


def test_components_at_the_level_they_were_removed_at() -> None:
    """Views were scored without augmentation only: that is where they are compared, and it is said."""
    rows = results(
        [(arm(), 0.0), (arm(variant="view=xy"), -0.1), (arm(generator="offline", ratio=200.0), 0.05)],
        patients=6,
    )
    table = table_components(study_of(rows))
    assert "three-way, 0 %" in table.title
    assert [line["removed"] for line in numbers(table)] == [
        "none: the whole method",
        "combine (view x-y alone)",
    ]


def test_markdown_and_csv_do_not_depend_on_the_order_of_rows() -> None:
    rows = results([(arm(), 0.0), (arm(generator="offline", ratio=200.0), 0.1)], patients=4)
    one, other = (tables_of(study_of(order)) for order in (rows, rows[::-1]))
    for name, table in one.items():
        assert table.to_csv() == other[name].to_csv()
        if not table.absent:
            assert table.to_markdown() == other[name].to_markdown()
