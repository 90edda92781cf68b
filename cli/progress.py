"""How a command shows where it is: a bar for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Protocol

import click

STYLES = ("bar", "json")

_SHOW_AFTER_SECONDS = 1.0
_SECONDS_BETWEEN_LINES = 1.0


class Shown(Protocol):
    """A `standard_space.progress.Progress` that ends."""

    def __call__(self, item: str, done: int, total: int) -> None: ...

    def close(self) -> None: ...


def shown(label: str, style: str, quiet: bool) -> Shown:
    """Return the progress of one stage, in one of `STYLES`; a bar only where the error stream is a terminal."""
    if style == "json" and not quiet:
        return _JsonLines(label)
    return _Bar(label, shown=not quiet and sys.stderr.isatty())


class _JsonLines:
    """One JSON object a line on the error stream, at most one a second besides the last."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._begun = time.monotonic()
        self._first_done: int | None = None
        self._last: tuple[int, int] | None = None
        self._told = float("-inf")

    def __call__(self, item: str, done: int, total: int) -> None:
        if total <= 0 or (done, total) == self._last == (total, total):
            return
        now = time.monotonic()
        if self._first_done is None:
            self._first_done = done  # what an earlier call has done says nothing of the speed of this one
        if done < total and now - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told, self._last = now, (done, total)
        elapsed, fresh = now - self._begun, done - self._first_done
        line = {
            "stage": self._label,
            "item": item,
            "done": done,
            "total": total,
            "elapsed_s": round(elapsed, 1),
            "left_s": round(elapsed / fresh * (total - done), 1) if fresh > 0 else None,
        }
        click.echo(json.dumps(line), err=True)

    def close(self) -> None:
        """Nothing stays open between lines."""


class _Bar:
    """click's progress bar behind a `progress(item, done, total)` callable; drawn once a second has passed."""

    def __init__(self, label: str, shown: bool) -> None:
        self._label, self._shown = label, shown
        self._bar: Any = None
        self._total, self._done = -1, 0
        self._item = ""
        self._begun = time.monotonic()

    def __call__(self, item: str, done: int, total: int) -> None:
        if not self._shown or total <= 0:
            return
        if (
            self._bar is None
            and done < total
            and time.monotonic() - self._begun < _SHOW_AFTER_SECONDS
            and done
        ):
            return
        if self._bar is None or total != self._total or done < self._done:
            self.close()
            self._bar = click.progressbar(
                length=total,
                label=self._label,
                file=sys.stderr,
                show_pos=True,
                item_show_func=lambda _: self._item,
            )
            self._bar.__enter__()
            self._total, self._done = total, 0
        self._item = item
        self._bar.update(done - self._done, current_item=item)
        self._bar.render_progress()
        self._done = done

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
