"""Every code block of the documentation: commands are ones that exist, Python runs, files can be read."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from cli.main import main
from standard_space.manifest import read_manifest
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_scan

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

RUN_ELSEWHERE = {"api.md": "tests/docs/test_api.py", "on_the_fly.md": "tests/simulator/test_on_the_fly.py"}
"""Pages whose Python blocks build on one another, and who runs them."""

_PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]+\b|\.\.\.|…|[<>|]|\bi/N\b|\bI/N\b")


def lines_of(page: Path) -> list[str]:
    """Command lines of code blocks, without what is said beside them."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.split("\n") if line.startswith("    ")]
    lines += [line for block in re.findall(r"```\w*\n(.*?)```", text, re.S) for line in block.split("\n")]
    parts = [part.strip() for line in lines for part in re.split(r"\s{3,}|  #|&&|;", line)]
    parts = [re.sub(r"^(?:\$ |time |\.venv/bin/|OMP_NUM_THREADS=\d+ )+", "", part) for part in parts]
    return [part for part in parts if part.startswith("lungcast ")]


def commands(page: Path) -> list[str]:
    """The same, and words in backticks that begin with `lungcast COMMAND`."""
    quoted = re.findall(r"`(lungcast [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    return lines_of(page) + [" ".join(words.split()) for words in quoted]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists_with_its_options(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line)
        assert words[1] in main.commands or words[1] == "COMMAND", f"{page.name}: {line}"
        if words[1] == "COMMAND":
            continue
        known = {flag for one in main.commands[words[1]].params for flag in one.opts} | {"--help", "-h"}
        given = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        assert given <= known, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_whole_command_lines_are_understood(page: Path) -> None:
    """Types, choices and numbers of arguments; nothing is run, so no file need be there."""
    for line in lines_of(page):
        words = shlex.split(line)
        if len(words) < 3 or _PLACEHOLDER.search(line):
            continue
        try:
            with main.commands[words[1]].make_context(words[1], words[2:], resilient_parsing=False):
                pass
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {line}\n{error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_are_run_exist(page: Path) -> None:
    for module in re.findall(r"python -m ((?:benchmarks|cli)\.\w+)", page.read_text(encoding="utf-8")):
        assert importlib.util.find_spec(module) is not None, f"{page.name}: {module}"


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toy_cohort(tmp_path / "cohort", toy_scan("P1", "a"), toy_scan("P2", "a", seed=1))
    ran = 0
    for page in PAGES:
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
        if page.name in RUN_ELSEWHERE:
            assert page.name in (ROOT / RUN_ELSEWHERE[page.name]).read_text(encoding="utf-8")
            assert blocks
            continue
        for block in blocks:
            quick = block.replace("steps=200", "steps=2, width=4")
            exec(compile(quick, page.name, "exec"), {})
            ran += 1
    assert ran >= 1


def test_the_manifest_of_the_readme_can_be_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```csv\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "manifest.csv").write_text(block, encoding="utf-8")
    rows = read_manifest(tmp_path / "manifest.csv")
    assert [(row.patient, row.scan, row.day) for row in rows] == [("p1", "a", 0.0), ("p1", "b", 4.0)]
    assert rows[1].image == tmp_path / "p1/b_dicom"
