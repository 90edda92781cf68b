from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.evidence import main
from segmentation.study.results_file import write_costs, write_results
from tests.segmentation.study.synthetic import arm, costs, results

ARMS = [(arm(), 0.0), (arm(generator="offline", ratio=200.0), 0.08)]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    evidence = tmp_path / "docs" / "evidence"
    for name, title, arms in (("small", None, ARMS), ("a-small-one", "Phantoms on a coarse grid", ARMS[:1])):
        folder = evidence / name
        folder.mkdir(parents=True)
        write_results(folder / "results.csv.gz", results(arms, patients=4))
        write_costs(folder / "costs.csv", costs(arms))
        (folder / "study.json").write_text(json.dumps({"title": title} if title else {"grid": 128}))
    (evidence / "findings.md").write_text("## Findings\n\nBy hand.\n")
    return evidence


def run(folder: Path, *options: str) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["--folder", str(folder), *options])
    return found.exit_code, found.output


def test_the_page_is_rebuilt(stored: Path) -> None:
    (stored / "small_generators.png").write_text("of an earlier study")
    (stored / "by_hand.png").write_text("kept")
    assert run(stored, "--docs")[0] == 0
    page = stored.with_suffix(".md").read_text()
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## Findings", "## Phantoms on a coarse grid", "## small"]
    pictures = {path.name for path in stored.glob("*.png")}
    for name in ("small_methods.png", "a-small-one_methods.png", "small_augmentation.png"):
        assert name in pictures
        assert f"(evidence/{name})" in page
    assert "by_hand.png" in pictures
    assert "small_generators.png" not in pictures


def test_without_docs_nothing_is_written(stored: Path) -> None:
    (stored / "findings.md").unlink()
    before = sorted(stored.parent.rglob("*"))
    code, text = run(stored)
    assert code == 0
    assert "## Phantoms on a coarse grid" in text
    assert "Findings" not in text
    assert sorted(stored.parent.rglob("*")) == before


def test_no_stored_study(tmp_path: Path) -> None:
    code, text = run(tmp_path)
    assert code == 2
    assert "no stored study" in text
