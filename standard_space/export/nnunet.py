"""The files that make a folder a raw dataset of nnU-Net v2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from standard_space.export.cases import Row
from standard_space.export.folds import fold_count, training_rows, validation_rows
from standard_space.export.settings import SUFFIX, ExportSettings
from standard_space.files import write_json

DATASET, SPLITS = "dataset.json", "splits_final.json"
_DATASET_NAME = re.compile(r"Dataset\d{3}_.+")


def write_nnunet(folder: Path, rows: Sequence[Row], settings: ExportSettings) -> None:
    """Write `dataset.json` and, where there are folds, `splits_final.json`.

    A fold's `val` holds observed cases only; synthetic cases of its patients are in neither part of it.
    """
    content = {
        "channel_names": {"0": "CT"},
        "labels": settings.label_values,
        "numTraining": len(rows),
        "file_ending": SUFFIX,
    }
    write_json(folder / DATASET, content)
    splits = [
        {
            "train": sorted(row.case.name for row in training_rows(rows, fold)),
            "val": sorted(row.case.name for row in validation_rows(rows, fold)),
        }
        for fold in range(fold_count(rows))
    ]
    if splits:
        write_json(folder / SPLITS, splits)


def nnunet_remarks(folder: Path, rows: Sequence[Row]) -> list[str]:
    """What a user has to know to train on the folder."""
    folds = fold_count(rows)
    named = _DATASET_NAME.fullmatch(folder.resolve().name)
    place = f"nnUNet_preprocessed/{folder.resolve().name if named else 'DatasetNNN_Name'}/"
    lines = []
    if not named:
        lines.append(
            f"nnU-Net finds datasets by name: call the folder DatasetNNN_Name (it is {folder.resolve().name}) and "
            "put it into nnUNet_raw"
        )
    if folds:
        lines.append(
            f"nnU-Net wants {SPLITS} in {place} before it trains; current releases copy it there when they plan"
        )
        if folds < 5:
            lines.append(
                f"there are folds 0 to {folds - 1}: for a higher one nnU-Net would draw a split of its own that "
                "mixes patients"
            )
    else:
        lines.append(
            "train with fold `all`: for any other nnU-Net would draw a split of its own that mixes patients"
        )
    return lines
