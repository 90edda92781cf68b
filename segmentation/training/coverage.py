"""How many of the scans that are offered a run draws from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from segmentation.training.mixture import Mixture
from segmentation.training.pool import Note

LEFT_OUT = ": left out"
"""In a note, after the name of a scan that cannot be used."""

SAID = {"originals": "scans", "synthetic": "synthetic ones"}


def note_what_is_not_drawn(mixture: Mixture, view: str, steps: int, note: Note) -> None:
    """Say so when a run is too short to draw from all scans of a kind, and how many steps would do."""
    for kind, items in mixture.drawn(view, steps).items():
        enough, count = mixture.steps_for_all(kind), mixture.count(kind)
        if len(items) < count and steps < enough:
            note(
                f"{steps} steps do not draw from all {count} {kind} scans; "
                f"a run begun with {enough} steps would"
            )


def drawn_from(mixture: Mixture, steps: Mapping[str, int], notes: Iterable[str]) -> dict[str, dict[str, int]]:
    """Count the scans that each view's network has learned from.

    Parameters
    ----------
    steps : dict of str to int
        Done, by view.
    notes : iterable of str
        Of the run: they name the scans that could not be used.

    Returns
    -------
    dict
        "originals" and "synthetic" to view to number; a kind of which nothing is drawn is absent.
    """
    unusable = {text.partition(LEFT_OUT)[0] for text in notes if LEFT_OUT in text}
    counts: dict[str, dict[str, int]] = {}
    for view, done in steps.items():
        for kind, items in mixture.drawn(view, done).items():
            used = sum(item.name not in unusable for item in items)
            counts.setdefault("originals" if kind == "original" else kind, {})[view] = used
    return counts


def drawn_said(training: Mapping[str, Any]) -> str:
    """Say what a model was trained on: "201 scans and 640 of 2010 synthetic ones (each view at least)"."""
    parts, partly = [], False
    for key, name in SAID.items():
        offered = training[key]
        drawn = min(training["drawn"].get(key, {"": 0}).values())
        partly |= drawn < offered
        parts.append(f"{offered} {name}" if drawn == offered else f"{drawn} of {offered} {name}")
    return " and ".join(parts) + (" (each view at least)" if partly else "")
