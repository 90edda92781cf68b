"""How library functions tell what they are doing: a callable, never a print."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as `progress(item, done, total)`: what is at work, items finished so far, items in all."""

    def __call__(self, item: str, done: int, total: int) -> None: ...


def silent(item: str, done: int, total: int) -> None:
    """A progress that says nothing."""
