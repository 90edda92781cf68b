"""Whether a run that is taken up is the one that was begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segmentation.training.options import NOT_OF_THE_RESULT, TrainingOptions
from standard_space.errors import UsageError

Data = dict[str, str]
"""Fingerprints of what is trained and validated on, by kind."""


def check_same(
    folder: Path,
    began: TrainingOptions,
    options: TrainingOptions,
    known: Data,
    data: Data,
) -> None:
    """Refuse to continue a run with other options or other data than it was begun with.

    Raises
    ------
    UsageError
        Names what differs.
    """
    free = {"steps", "epochs", *NOT_OF_THE_RESULT}
    differ = _differing(known, data)
    if differ:
        raise UsageError(
            "the run in this folder was begun with other scans",
            where=folder,
            got=f"other {', '.join(differ)}",
            remedy="name the same ones, or begin anew with --force",
        )
    before, now = began.without_paths(), options.without_paths()
    differ = [name for name in _differing(before, now) if name not in free]
    if differ:
        raise UsageError(
            "the run in this folder was begun with other options",
            where=folder,
            got=", ".join(f"{name} {now[name]}" for name in differ),
            expected=", ".join(str(before[name]) for name in differ),
            remedy="leave them out, or begin anew with --force",
        )


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
