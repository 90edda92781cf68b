"""Help, exit codes and what the console promises, without any work."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cli.console import table
from cli.main import main

COMMANDS = sorted(main.commands)


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
