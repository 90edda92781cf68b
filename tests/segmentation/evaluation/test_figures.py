from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

from segmentation.evaluation.cohort_scores import groups_of
from segmentation.evaluation.figures import (
    agreement_figure,
    case_figure,
    draw_scores,
    metrics_figure,
    worst,
)
from standard_space.scan import Scan
from tests.figures import cut_texts
from tests.segmentation.evaluation.test_summary import row
from tests.segmentation.toys import toy_scan


def scores_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "space": "native",
        "target": "infection",
        "nsd_tolerance_mm": 2.0,
        "scans": rows,
        "groups": groups_of(rows),
    }


def texts(axes: Axes) -> str:
    legend = axes.get_legend()
    return " ".join(text.get_text() for text in legend.get_texts()) if legend else ""


def test_every_group_has_its_own_figures_and_old_ones_go(tmp_path: Path) -> None:
    rows = [row(f"P{k}", "1", 0.2 * k, "early" if k % 2 else "late") for k in range(5)]
    rows += [row("T", "1", 0.9, group="training", recall=None)]
    asked = []

    def found(wanted: Any) -> tuple[Scan, NDArray[np.bool_]]:
        asked.append(wanted["patient"])
        scan = toy_scan()
        assert scan.infection is not None
        return scan, np.roll(scan.infection, 2, 0)

    for name in ("validation_worst_3.png", "validation_notes.png"):
        (tmp_path / name).write_bytes(b"")
    paths = draw_scores(scores_of(rows), tmp_path, found, subject="model x")
    assert sorted(path.name for path in paths) == [
        "held_out_agreement.png",
        "held_out_metrics.png",
        "held_out_worst_1.png",
        "held_out_worst_2.png",
        "held_out_worst_3.png",
        "training_agreement.png",
        "training_metrics.png",
        "training_worst_1.png",
    ]
    assert all(path.stat().st_size > 5000 for path in paths)
    assert asked == ["P0", "P1", "P2", "T"]
    assert not (tmp_path / "validation_worst_3.png").exists()
    assert (tmp_path / "validation_notes.png").exists()


def test_the_worst_come_first_and_ties_by_name() -> None:
    rows = [row("B", "1", 0.5), row("A", "2", 0.1), row("A", "1", 0.1), row("C", "1", 0.9)]
    assert [(r["patient"], r["scan"]) for r in worst(rows)] == [("A", "1"), ("A", "2"), ("B", "1")]


def test_a_point_for_every_scan_and_a_box_by_stage() -> None:
    rows = [row(f"P{k}", "1", 0.1 * k, "early" if k < 6 else "late") for k in range(8)]
    rows[0]["precision"] = None
    figure = metrics_figure(rows, "title", scores_of(rows))
    assert cut_texts(figure) == []
    drawn, precision = figure.axes[0], figure.axes[2]
    assert drawn.get_title() == "Dice"
    assert [len(points.get_offsets()) for points in drawn.collections] == [8, 6, 2]
    assert [label.get_text() for label in drawn.get_xticklabels()] == ["all\n(8)", "early\n(6)", "late\n(2)"]
    assert [label.get_text() for label in precision.get_xticklabels()] == [
        "all\n(7)",
        "early\n(5)",
        "late\n(2)",
    ]
    heights = np.sort(np.asarray(drawn.collections[0].get_offsets())[:, 1])
    assert heights == pytest.approx(np.arange(8) * 0.1)
    assert figure.axes[6].get_title() == "surface Dice, 2 mm"


def test_limits_of_agreement_are_mean_and_1_96_sd() -> None:
    rows = [
        row(f"P{k}", "1", 0.5, predicted_ml=10.0 + error, true_ml=10.0)
        for k, error in enumerate((1.0, 2.0, 6.0))
    ]
    figure = agreement_figure(rows, "title")
    assert cut_texts(figure) == []
    mean, sd = 3.0, np.std([1.0, 2.0, 6.0], ddof=1)
    assert f"limits of agreement {mean - 1.96 * sd:+.4g} to {mean + 1.96 * sd:+.4g}" in texts(figure.axes[0])
    assert np.asarray(figure.axes[0].collections[0].get_offsets())[:, 1] == pytest.approx([1.0, 2.0, 6.0])
    assert "no limits from fewer than 3 scans" in texts(agreement_figure(rows[:2], "title").axes[0])


def test_a_model_of_the_lungs_has_no_infected_share() -> None:
    rows = [row("A", "1", 0.9, true_share=None, predicted_share=None)]
    assert len(agreement_figure(rows, "title").axes) == 1


def test_a_case_is_cut_where_truth_and_mistake_meet() -> None:
    scan = toy_scan(seed=1)
    assert scan.infection is not None
    flooded = case_figure(scan, scan.lungs, scan.infection, row("P1", "S1", 0.1), "heading", "native")
    assert cut_texts(flooded) == []
    lower = [axes for axes in flooded.axes if axes.collections]
    assert len(lower) == 3  # the outline of the truth shows in every plane
    healthy = replace(scan, infection=np.zeros_like(scan.infection))
    nothing = case_figure(
        scan, healthy.infection, healthy.infection, row("P1", "S1", 1.0), "heading", "native"
    )
    assert not any(axes.collections for axes in nothing.axes)
