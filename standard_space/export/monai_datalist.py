"""The datalists that MONAI's `load_decathlon_datalist` and Auto3DSeg read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from standard_space.export.cases import Row
from standard_space.export.folds import fold_count, training_rows, validation_rows
from standard_space.export.settings import ExportSettings
from standard_space.files import write_json

DATALIST = "datalist.json"


def fold_datalist(fold: int) -> str:
    """Name of the datalist of one fold."""
    return f"datalist_fold{fold}.json"


def write_monai(folder: Path, rows: Sequence[Row], settings: ExportSettings) -> None:
    """Write `datalist.json` and, for every fold, `datalist_foldK.json`.

    `datalist.json` lists all cases under "training", each with the fold of its patient. Auto3DSeg validates on all
    cases of a fold, synthetic ones too; `datalist_foldK.json` has observed cases only under "validation".
    """
    head = {
        "name": "lungcast",
        "modality": {"0": "CT"},
        "labels": {str(value): name for name, value in settings.label_values.items()},
    }
    write_json(
        folder / DATALIST, {**head, "numTraining": len(rows), "training": [_item(row) for row in rows]}
    )
    for fold in range(fold_count(rows)):
        training, validation = training_rows(rows, fold), validation_rows(rows, fold)
        content = {
            **head,
            "numTraining": len(training),
            "training": [_item(row) for row in training],
            "validation": [_item(row) for row in validation],
        }
        write_json(folder / fold_datalist(fold), content)


def _item(row: Row) -> dict[str, Any]:
    entry = row.case.entry
    item: dict[str, Any] = {"image": row.image, "label": row.label}
    if row.fold is not None:
        item["fold"] = row.fold
    return {**item, "patient": entry.patient, "scan": entry.scan, "kind": entry.kind, "day": entry.day}
