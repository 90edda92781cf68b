"""Help, exit codes and what the console promises, without any work."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli.console import table
from cli.main import main

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(main.commands)
HELP_BUDGET_S = 0.3
"""More than this is felt as waiting."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"lungcast {command} " in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_names_only_options_that_exist(command: str) -> None:
    known = {name for parameter in main.commands[command].params for name in parameter.opts}
    epilog = main.commands[command].epilog or ""
    assert {word for word in epilog.split() if word.startswith("--")} <= known


def test_help_imports_no_heavy_library() -> None:
    code = "import sys; from cli.main import main; print('torch' in sys.modules, 'numba' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]


def test_a_misspelt_command_suggests_the_right_one() -> None:
    result = CliRunner().invoke(main, ["segmnt"])
    assert result.exit_code == 2
    assert "Did you mean 'segment'?" in result.output


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["embed", "m.csv", "c", "--gird", "64"], "--grid"),
        (["simulate", "c", "s", "--patiant", "p"], "--patient"),
        (["augment", "c", "a", "--rato", "1"], "--ratio"),
        (["view", "c", "--no-browse"], "--no-browser"),
    ],
)
def test_a_misspelt_option_suggests_the_right_one(words: list[str], meant: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert meant in result.output.partition("No such option")[2]


def shell(variables: dict[str, str]) -> str:
    """What `lungcast` prints when a shell asks it."""
    command = [sys.executable, "-c", "from cli.main import main; main(prog_name='lungcast')"]
    shown = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return shown.stdout


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_shells_are_given_a_completion(name: str) -> None:
    if name == "bash" and shutil.which("bash") is None:
        pytest.skip("no bash here, which click asks for its version")
    assert "_LUNGCAST_COMPLETE" in shell({"_LUNGCAST_COMPLETE": f"{name}_source"})
    howto = (ROOT / "docs/howto.md").read_text(encoding="utf-8")
    assert f"_LUNGCAST_COMPLETE={name}_source lungcast" in howto


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("lungcast cross", "crossvalidate"),
        ("lungcast fit c --interv", "--intervals"),
        ("lungcast fit c --loss p", "poisson"),
    ],
)
def test_commands_options_and_choices_are_completed(typed: str, offered: str) -> None:
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    shown = shell({"_LUNGCAST_COMPLETE": "bash_complete", **asked})
    assert [line.partition(",")[2] for line in shown.split()] == [offered]


def test_help_answers_at_once() -> None:
    """Processor time, which other work on the machine does not lengthen; the best of five starts."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run(
            [sys.executable, "-m", "cli.main", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "lungcast segment" in shown.stdout
    assert min(times) < HELP_BUDGET_S, times


def test_tables_are_aligned() -> None:
    assert table([["scan", "ml"], ["a", "10.0"], ["long", "9.5"]]) == "scan    ml\na     10.0\nlong   9.5"


def test_every_command_can_be_quiet() -> None:
    for command in main.commands.values():
        assert any(isinstance(p, click.Option) and "--quiet" in p.opts for p in command.params), command.name


def test_morphology_defaults_are_the_engine_s() -> None:
    from simulator.dynamics.controls import Controls

    for command in ("simulate", "augment"):
        given = {parameter.name: parameter.default for parameter in main.commands[command].params}
        names = ("spread", "seeded_share", "clustering", "correlation_mm")
        assert Controls(*(given[name] for name in names)) == Controls()
