"""What every command shares: one-sentence errors, progress bars, notes, summaries."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.progress import STYLES, Shown, shown
from standard_space.errors import LungcastError, UsageError
from standard_space.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

AGAIN = "no file is half-written: run the command again"
WITH_FORCE = "what it was writing is incomplete, no file half-written: run the command again with --force"
KEPT = "what is done is kept: the same command goes on"


def count(number: int, what: str) -> str:
    """A number of things in words: "1 scan", "3 scans"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Failure(click.ClickException):
    """A mistake told in one sentence, with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code  # type: ignore[misc]


class LungcastGroup(click.Group):
    """A group whose commands answer a user's mistake with one sentence and an exit code, never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        from simulator.dynamics.errors import DynamicsError

        try:
            return super().invoke(context)
        except DynamicsError as error:
            raise _Failure(str(error), 1) from None
        except LungcastError as error:
            raise _Failure(str(error), error.exit_code) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise _Failure(f"{where}{error.strerror or error}", 1) from None
        except MemoryError:
            raise _Failure("out of memory; use a smaller --grid", 1) from None

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command for a misspelt one."""
        import difflib

        if args and self.get_command(context, args[0]) is None:
            near = difflib.get_close_matches(args[0], self.list_commands(context), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            context.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(context, args)


class Console:
    """Progress to the terminal's error stream, results to standard output."""

    def __init__(self, quiet: bool, progress: str = "bar") -> None:
        self.quiet = quiet
        self._style = progress

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """A progress callable that shows a stage with the time left; silent when quiet."""
        one = shown(label, self._style, self.quiet)
        try:
            yield one
        finally:
            one.close()

    @contextmanager
    def stages(self) -> Iterator[Callable[[str], Progress]]:
        """Stages one after the other, each from its first report on: a callable that gives one by its name."""
        begun: list[Shown] = []

        def stage(label: str) -> Progress:
            mine: list[Shown] = []

            def report(item: str, done: int, total: int) -> None:
                if not mine:
                    for one in begun:
                        one.close()
                    mine.append(shown(label, self._style, self.quiet))
                    begun.extend(mine)
                mine[0](item, done, total)

            return report

        try:
            yield stage
        finally:
            for one in begun:
                one.close()

    def say(self, text: str = "") -> None:
        """Print a line of the result, unless quiet."""
        if not self.quiet:
            click.echo(text)

    def note(self, text: str) -> None:
        """Say what a user should know, on the error stream."""
        if not self.quiet:
            click.echo(f"note: {text}", err=True)

    def problem(self, text: str) -> None:
        """Say what went wrong with a part of the work, on the error stream, quiet or not."""
        click.echo(f"problem: {' '.join(text.split())}", err=True)

    def wrote(self, what: Mapping[str, str | Path]) -> None:
        """The summary at the end: what was written where."""
        width = max(len(name) for name in what)
        for name, path in what.items():
            self.say(f"  {name:<{width}}  {path}")

    def finish(
        self,
        failures: Mapping[str, str],
        notes: Mapping[str, Sequence[str]] | None = None,
        *,
        nothing_done: bool = False,
    ) -> None:
        """Name notes and failures; exit with code 1 when anything failed."""
        for name, lines in (notes or {}).items():
            for line in lines:
                self.note(f"{name}: {line}")
        for name, text in failures.items():
            self.problem(text if text.startswith(name) or name in text else f"{name}: {text}")
        if failures:
            rest = "nothing was completed" if nothing_done else "the rest was completed"
            click.echo(f"{len(failures)} failed; {rest}", err=True)
            raise click.exceptions.Exit(1)


def shared_options(interrupted: str = AGAIN) -> Callable[[F], F]:
    """Add `--quiet` and `--progress`, and hand the command a `Console`.

    Parameters
    ----------
    interrupted : str
        What is safe after Ctrl-C, and how to go on.
    """

    def decorate(command: F) -> F:
        @click.option("--quiet", "-q", is_flag=True, help="Say nothing but problems.")
        @click.option(
            "--progress",
            "progress_style",
            type=click.Choice(STYLES),
            default=STYLES[0],
            show_default=True,
            help="bar: for people, on a terminal only; json: lines for programs, on the error stream.",
        )
        @functools.wraps(command)
        def wrapped(*args: Any, quiet: bool, progress_style: str, **kwargs: Any) -> Any:
            try:
                return command(Console(quiet, progress_style), *args, **kwargs)
            except KeyboardInterrupt:
                click.echo(f"\ninterrupted; {interrupted}", err=True)
                raise click.exceptions.Exit(INTERRUPTED) from None

        return wrapped  # type: ignore[return-value]

    return decorate


force_option = click.option("--force", is_flag=True, help="Replace what lungcast wrote there before.")


def example(text: str) -> str:
    """The example at the end of a command's help, kept on its own lines."""
    return f"\b\nExample:\n  {text}"


def table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Aligned columns, those of `left` to the left, the others to the right; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time as a person says it: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def parse_window(text: str | None) -> tuple[float, float] | None:
    """Level and width from "-600,1600".

    Raises
    ------
    UsageError
        When it is not two numbers.
    """
    if text is None:
        return None
    parts = text.split(",")
    try:
        level, width = (float(part) for part in parts)
    except ValueError:
        raise UsageError("the window is not LEVEL,WIDTH", got=text, expected="-600,1600") from None
    return level, width
