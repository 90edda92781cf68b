"""docs/cli.md, made of the commands themselves: `python -m cli.reference docs/cli.md`."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent, indent

import click

from cli.main import main
from standard_space.files import write_text

HEAD = """# Commands

Made from the commands themselves by `python -m cli.reference docs/cli.md`; `lungcast COMMAND --help` says
the same.
"""


def reference() -> str:
    """Return the page: every command with its help, arguments and options."""
    parts = [HEAD, _text(main.help or "")]
    for name, command in main.commands.items():
        context = click.Context(command, info_name=f"lungcast {name}")
        parts += [f"## {name}\n", f"    {command.get_usage(context).removeprefix('Usage: ')}\n"]
        parts.append(_text(command.help or ""))
        options = [one for one in command.params if isinstance(one, click.Option)]
        rows = [record for option in options if (record := option.get_help_record(context)) is not None]
        parts.append("| option | meaning |\n|---|---|\n" + "".join(_row(*record) for record in rows))
        example = (command.epilog or "").replace("\b", "").replace("Example:", "").strip()
        parts.append(f"Example:\n\n    {example}\n")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _text(help_text: str) -> str:
    """A help text as Markdown: paragraphs that click keeps as they are become blocks."""
    shown = []
    for paragraph in help_text.strip().split("\n\n"):
        lines = paragraph.split("\n")
        if lines[0].strip() == "\b":
            shown.append(indent(dedent("\n".join(lines[1:])), "    "))
        else:
            shown.append("\n".join(line.strip() for line in lines))
    return "\n\n".join(shown) + "\n"


def _row(flags: str, meaning: str) -> str:
    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|")

    return f"| `{cell(flags)}` | {cell(meaning)} |\n"


if __name__ == "__main__":
    write_text(Path(sys.argv[1]), reference())
