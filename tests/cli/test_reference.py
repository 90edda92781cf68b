from __future__ import annotations

from pathlib import Path

from cli.main import main
from cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `python -m cli.reference docs/cli.md`"


def test_every_command_and_option_is_on_it() -> None:
    page = reference()
    for name, command in main.commands.items():
        assert f"\n## {name}\n" in page
        for parameter in command.params:
            for flag in parameter.opts:
                if flag.startswith("--"):
                    assert flag in page, f"{name} {flag}"
