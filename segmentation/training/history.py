"""How training went: rows of a table, `history.csv`, `curves.png`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segmentation.training.checkpoint import Row, ViewState
from standard_space.files import write_text

HISTORY = "history.csv"
CURVES = "curves.png"
COLUMNS = (
    "view",
    "step",
    "kind",
    "loss",
    "dice",
    "soft_dice",
    "learning_rate",
    "seconds",
    "slices_per_second",
)


def training_row(state: ViewState, learning_rate: float, batch_size: int) -> Row:
    """Means over the steps since the last row; seconds are those of the whole view, resumed or not."""
    loss, dice, steps, seconds = state.sums
    return {
        "step": state.step,
        "kind": "training",
        "loss": loss / steps,
        "soft_dice": dice / steps,
        "learning_rate": learning_rate,
        "seconds": state.seconds,
        "slices_per_second": steps * batch_size / max(seconds, 1e-9),
    }


def validation_row(state: ViewState, dice: float, soft_dice: float) -> Row:
    """A validation's Dice, of the pixels found and of the probabilities."""
    return {
        "step": state.step,
        "kind": "validation",
        "dice": dice,
        "soft_dice": soft_dice,
        "seconds": state.seconds,
    }


def write_rows(path: str | Path, rows: Mapping[str, Iterable[Row]]) -> None:
    """Write the rows of views as CSV in their order, atomically; times to the millisecond, others in full."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for view, of_view in rows.items():
        for row in of_view:
            times: Row = {key: round(row[key], 3) for key in ("seconds", "slices_per_second") if key in row}
            writer.writerow({"view": view, **row, **times})
    write_text(path, text.getvalue())


def read_rows(path: str | Path) -> list[Row]:
    """Rows of one view from the file that `write_rows` has made; none without a file."""
    path = Path(path)
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as handle:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(handle)]
    words = ("view", "kind")
    numbers = [{key: value if key in words else float(value) for key, value in row.items()} for row in rows]
    return [{**{k: v for k, v in row.items() if k != "view"}, "step": int(row["step"])} for row in numbers]


def kept_history(states: Iterable[ViewState]) -> dict[str, list[dict[str, Any]]]:
    """The history as a model keeps it: without times, so that the same run gives the same model."""
    times = ("seconds", "slices_per_second")
    return {
        state.view: [{key: value for key, value in row.items() if key not in times} for row in state.rows]
        for state in states
    }


def rows_of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """The "training" or "validation" rows."""
    return [row for row in rows if row["kind"] == kind]
