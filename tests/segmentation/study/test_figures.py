from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation.study.figures import ratios_figure, study_figures
from segmentation.study.paper_tables import all_tables
from segmentation.study.records import Row
from segmentation.study.study_results import StudyResults
from simulator.figure_style import save_figure
from tests.figures import cut_texts
from tests.segmentation.study.synthetic import WHOLE_STUDY, arm, results, row, without_infection


def study_of(rows: list[Row]) -> StudyResults:
    return StudyResults(tuple(rows))


def test_every_figure_is_drawn_and_saved(tmp_path: Path) -> None:
    study = study_of(results(WHOLE_STUDY, patients=4))
    drawn = study_figures(study, all_tables(study))
    assert set(drawn) == {
        *(
            "methods",
            "dice_by_ratio_offline",
            "ratios",
            "augmentation",
            "components",
            "generators",
            "choices",
            "scanners",
        ),
    }
    for name, (figure, caption) in drawn.items():
        assert caption.endswith(".")
        assert cut_texts(figure) == [], name
        save_figure(figure, tmp_path / f"{name}.png", dpi=40)
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10
        labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
        assert any("Dice" in label for label in labels)
    assert any("%" in axes.get_xlabel() for axes in drawn["dice_by_ratio_offline"][0].axes)


def test_a_curve_goes_through_the_means() -> None:
    arms = [(arm(), 0.0), *((arm(generator="offline", ratio=ratio), 0.1) for ratio in (100.0, 400.0))]
    study = study_of(results(arms, patients=4, spread=0.0))
    figure = ratios_figure(study, "offline")
    assert figure is not None
    (line,) = figure.axes[0].get_lines()
    means = [np.mean([one.dice for one in study.rows if one.ratio == ratio]) for ratio in (0.0, 100.0, 400.0)]
    assert np.asarray(line.get_xdata()).tolist() == [0.0, 100.0, 400.0]
    np.testing.assert_allclose(np.asarray(line.get_ydata(), np.float64), means)
    assert ratios_figure(study, "copy-paste") is None


def test_the_differences_of_ratios_are_drawn_where_there_are_several() -> None:
    def names(*ratios: float) -> set[str]:
        arms = [(arm(), 0.0), *((arm(generator="offline", ratio=ratio), 0.1) for ratio in ratios)]
        study = study_of(results(arms, patients=4))
        return set(study_figures(study, all_tables(study)))

    assert "ratios" in names(100.0, 200.0)
    assert names(200.0).isdisjoint({"ratios"})
    assert "augmentation" in names(200.0)


@pytest.mark.parametrize(
    "rows",
    [
        [row()],
        [row(scanner=None, stage=None), row(generator="offline", ratio=200.0, scanner=None, stage=None)],
        [row(dice=None)],
    ],
    ids=["one scan", "one patient, no scanner", "no score"],
)
def test_little_to_show(rows: list[Row], tmp_path: Path) -> None:
    study = study_of(rows)
    for name, (figure, _) in study_figures(study, all_tables(study)).items():
        assert cut_texts(figure) == [], name
        save_figure(figure, tmp_path / f"{name}.png", dpi=40)


def test_nothing_to_show() -> None:
    study = study_of(without_infection([row()], 1.0))
    assert study_figures(study, all_tables(study)) == {}
