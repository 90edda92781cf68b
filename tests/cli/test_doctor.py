from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main
from segmentation import doctor
from standard_space.memory import Memory


def test_it_says_what_is_here_and_that_the_demo_would_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", str(tmp_path), "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    for words in ("processor", "memory", "torch", "compiles", "The demo would run here"):
        assert words in done.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["demo_would_run"] is True
    assert {"topic", "name", "value", "problem", "remedy"} == set(found["findings"][0])


def test_a_problem_is_told_with_its_remedy_even_when_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "memory", lambda: Memory(1.0, 0.2))
    done = CliRunner().invoke(main, ["doctor", str(tmp_path), "--quiet"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "problem: memory: 1.0 GB, free 0.2 GB; close other programs" in done.stderr
    assert "the demo would not run here" in done.stderr


def test_an_extra_that_is_missing_comes_with_what_would_bring_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import PackageNotFoundError, version

    def without(name: str) -> str:
        if name == "lungmask":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", without)
    done = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert done.exit_code == 0
    assert "lungmask missing; `pip install 'lungcast[lungmask]'` brings it" in done.output
