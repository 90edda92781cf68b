"""One style: letters that can be read in print, and nothing global touched."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.text import Text
from PIL import Image

from simulator.figure_style import DPI, LARGEST_PT, SMALLEST_PT, new_figure, save_figure
from standard_space.errors import UsageError


def test_letters_lie_within_bounds_whatever_was_asked_for(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figure, axes = new_figure(4, 3)
    curve = axes[0, 0]
    curve.plot([0, 1], [0, 1], label="tiny")
    curve.set_title("large", fontsize=20)
    curve.set_xlabel("day", fontsize=3)
    curve.legend(fontsize=4, frameon=True)
    figure.suptitle("heading $x$", parse_math=False, fontsize=16)
    save_figure(figure, tmp_path / "figure.png")
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
    assert min(sizes) >= SMALLEST_PT
    assert max(sizes) <= LARGEST_PT
    assert not curve.spines["top"].get_visible()
    assert not curve.get_legend().get_frame_on()
    assert dict(matplotlib.rcParams) == before
    with Image.open(tmp_path / "figure.png") as opened:
        assert opened.size == (4 * DPI, 3 * DPI)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg", "jpg"])
def test_the_format_goes_by_the_suffix(tmp_path: Path, suffix: str) -> None:
    figure, _ = new_figure(2, 2)
    save_figure(figure, tmp_path / f"figure.{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"figure.{suffix}"]


@pytest.mark.parametrize("name", ["figure", "figure.bmp3"])
def test_another_suffix_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    figure, _ = new_figure(2, 2)
    with pytest.raises(UsageError, match="no such format of a figure"):
        save_figure(figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_pictures_keep_their_frame(tmp_path: Path) -> None:
    figure, axes = new_figure(2, 2)
    axes[0, 0].imshow([[0, 1]])
    save_figure(figure, tmp_path / "figure.pdf")
    assert axes[0, 0].spines["top"].get_visible()
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
