"""Progress for people and for programs, and what Ctrl-C says."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli import progress
from cli.console import AGAIN, KEPT, WITH_FORCE, Console, LungcastGroup, shared_options
from cli.main import main


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_json_lines_say_item_count_and_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Console(False, "json").progress("embed") as report:
        report("p1/a", 0, 4)
        clock[0] += 3.0
        report("p1/b", 1, 4)
        clock[0] += 3.0
        report("", 4, 4)
    assert lines(capsys) == [
        {"stage": "embed", "item": "p1/a", "done": 0, "total": 4, "elapsed_s": 0.0, "left_s": None},
        {"stage": "embed", "item": "p1/b", "done": 1, "total": 4, "elapsed_s": 3.0, "left_s": 9.0},
        {"stage": "embed", "item": "", "done": 4, "total": 4, "elapsed_s": 6.0, "left_s": 0.0},
    ]


def test_no_more_than_a_line_a_second_and_the_last_one_once(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Console(False, "json").progress("train") as report:
        for step in range(1000):
            report("", step, 1000)
            clock[0] += 0.01
        report("", 1000, 1000)
        report("", 1000, 1000)
    told = lines(capsys)
    assert 10 <= len(told) <= 12
    assert [line["done"] for line in told].count(1000) == 1


def test_what_an_earlier_call_did_does_not_count_as_fast_work(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Console(False, "json").progress("augment") as report:
        report("", 90, 100)
        clock[0] += 10.0
        report("", 92, 100)
    assert [line["left_s"] for line in lines(capsys)] == [None, 40.0]


def test_stages_have_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(False, "json").stages() as stage:
        stage("fit")("a", 1, 1)
        stage("study")("b", 1, 1)
    assert [line["stage"] for line in lines(capsys)] == ["fit", "study"]


@pytest.mark.parametrize("console", [Console(True, "json"), Console(True), Console(False)])
def test_quiet_and_a_bar_without_a_terminal_say_nothing(
    console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress("embed") as report:
        report("", 0, 2)
        report("", 2, 2)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_every_command_has_progress_for_programs() -> None:
    for command in main.commands.values():
        (option,) = [one for one in command.params if "--progress" in one.opts]
        assert isinstance(option.type, click.Choice)
        assert set(option.type.choices) == {"bar", "json"}


def test_a_command_writes_them_on_the_error_stream(tmp_path: Path) -> None:
    arguments = [
        "phantom",
        tmp_path / "data",
        "--patients",
        1,
        "--scans",
        1,
        "--grid",
        32,
        "--progress",
        "json",
    ]
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert told[-1]["done"] == told[-1]["total"]
    assert "{" not in done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [("crossvalidate", KEPT), ("augment", KEPT), ("study", KEPT), ("phantom", WITH_FORCE), ("check", AGAIN)],
)
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(self: Console, *args: object) -> None:
        raise KeyboardInterrupt

    # Whatever a command does first with its console, or with a path, is where the user's Ctrl-C comes.
    for method in ("progress", "stages", "note", "say"):
        monkeypatch.setattr(Console, method, interrupted)
    for opened in ("standard_space.cohort.Cohort.open", "standard_space.check.check_cohort"):
        monkeypatch.setattr(opened, interrupted)
    command = main.commands[name]
    needed = [p for p in command.params if isinstance(p, click.Argument)]
    result = CliRunner().invoke(main, [name, *(str(tmp_path / str(p.name)) for p in needed)])
    assert result.exit_code == 130, result.output
    assert f"interrupted; {words}" in result.stderr
    assert result.stdout == ""


def test_an_interrupted_command_of_ours_is_no_abort() -> None:
    @click.group(cls=LungcastGroup)
    def group() -> None:
        pass

    @group.command()
    @shared_options("nothing is lost")
    def work(console: Console) -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(group, ["work"])
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted; nothing is lost"
