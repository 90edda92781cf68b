"""The files that docs/formats.md describes, each with an example among what the README's commands leave."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is described.

    Parameters
    ----------
    name : str
        Short, for meanings that hold in it alone.
    title, text : str
        Heading, and what it is.
    example : str
        A file that the README's commands leave.
    column : str
        What its names are called.
    closed : tuple of str
        Names, or dotted paths, whose insides are not described: maps by patient or scan, and what another part
        describes.
    """

    name: str
    title: str
    text: str
    example: str
    column: str = "name"
    closed: tuple[str, ...] = ()


OUTPUTS = (
    (
        "data (`phantom`)",
        "`images/`, `infections/`, `lungs/` (NIfTI), `manifest.csv`, `truth.json` (what was drawn)",
    ),
    ("cohort (`embed`)", "one scan file `PATIENT_SCAN.h5` per scan, `manifest.csv`, `lungcast.json`"),
    (
        "augmented (`augment`)",
        "one synthetic scan file per synthetic scan, `manifest.csv`, `fits.json`, `lungcast.json`",
    ),
    (
        "simulation (`simulate`)",
        "`dayDDD.DD_image.nii.gz` and `dayDDD.DD_infection.nii.gz` (days since the scan) and `lungs.nii.gz`, "
        "on the scan's own grid; `volumes.csv`, `volumes.png`, `observed.csv`, `progression.gif` and `.mp4`",
    ),
    (
        "model (`train`)",
        "`model.json`, one weights file per network (`weights_only` PyTorch), `history.csv`, `curves.png`; "
        "`training/` holds checkpoints for `--resume` and can be deleted",
    ),
    (
        "result (`segment`)",
        "`NAME_infection`, `NAME_lungs`, `NAME_ggo_consolidation` (1 GGO, 2 consolidation), "
        "`NAME_probability` (0 to 1), NIfTI on the image's own grid; "
        "`NAME_overlay.png`; `quantification.json`; with `--dicom-seg` a DICOM-SEG",
    ),
    ("cross-validation", "`scores.json`, `scores.csv`, `figures/`, one folder per fold with its model"),
    ("study", "`results.csv`, `costs.csv`, `report.md`, `tables/`, `figures/`, one folder per run"),
    ("export", "nnU-Net v2's or MONAI's own formats and `cases.csv`; see [export](export.md)"),
    ("report (`report --html`)", "`index.html` and what it needs; see [viewer](viewer.md)"),
)

_MAPS = ("sources", "days", "planned", "stage_ratios", "patient_ratios", "failures", "skipped", "scans")
_MARK_TEXT = (
    "Every output folder holds a `lungcast.json`: what the folder is, and how it was made. `complete` is false "
    "while a run goes on or after it was interrupted. This one is of an augmented folder; others say "
    "what they were made of and with which options in the same way."
)

FILES = (
    FileKind(
        "cohort",
        "manifest.csv of a cohort",
        "Written by `embed` and `augment`: one row per scan.",
        "cohort/manifest.csv",
        "column",
    ),
    FileKind(
        "scan",
        "Scan file",
        "HDF5, schema 2, datasets compressed by Zstandard (filter 32015: in Python `import hdf5plugin` first). n "
        "is `meta.grid`. `standard_space.scanreader.open_scan` reads parts of it.",
        "cohort/phantom3-01_s1.h5",
    ),
    FileKind(
        "synthetic",
        "Synthetic scan file",
        "HDF5, schema 3: what differs from the source scan, which must be at hand to read it. `lungcast export` "
        "writes whole scans.",
        "augmented/phantom3-01_s1-sim1.h5",
    ),
    FileKind(
        "fits", "fits.json", "Written by `fit`; read by `simulate` and `augment`.", "fits.json", closed=_MAPS
    ),
    FileKind(
        "population",
        "population.json",
        "Written by `fit --population`: the dynamics of the cohort's patients as a normal distribution in the "
        "coordinates of the fit.",
        "population.json",
    ),
    FileKind(
        "volumes",
        "volumes.csv",
        "Written by `simulate`: one row per written day.",
        "simulation/volumes.csv",
        "column",
    ),
    FileKind(
        "observed",
        "observed.csv",
        "Written by `simulate`: the patient's observed scans, to be laid over the simulation; not with `--seeds`.",
        "simulation/observed.csv",
        "column",
    ),
    FileKind(
        "forecast",
        "forecast.json",
        "Written by `forecast`.",
        "forecast.json",
        closed=(*_MAPS, "summary", "fit"),
    ),
    FileKind(
        "audit",
        "audit.json",
        "Written by `audit`.",
        "audit.json",
        closed=(*_MAPS, "flagged_by_reason", "per_patient", "notes", "ranges"),
    ),
    FileKind(
        "model",
        "model.json",
        "Written by `train`, beside one file of weights per network.",
        "model/model.json",
        closed=("options", "history", "drawn", "views", "offsets_mm", "steps_per_view"),
    ),
    FileKind(
        "history",
        "history.csv",
        "Written by `train`: at most about 50 rows per network, and one per validation.",
        "model/history.csv",
        "column",
    ),
    FileKind(
        "quantification",
        "quantification.json",
        "Written by `segment` and `threshold`; `summary.csv` of a folder of scans has the same numbers, a "
        "row per scan.",
        "result/quantification.json",
        closed=("versions", "lobes", "severity"),
    ),
    FileKind(
        "scores",
        "scores.json",
        "Written by `evaluate` and `crossvalidate`; every formula is in [evaluation](evaluation.md).",
        "scores.json",
        closed=("per_stage", "groups.validation", "groups.training", "metrics"),
    ),
    FileKind(
        "table",
        "scores.csv",
        "Written by `evaluate --csv` and `crossvalidate`: one row per scan.",
        "cv/scores.csv",
        "column",
    ),
    FileKind(
        "cases",
        "cases.csv",
        "Written by `export`: one row per case.",
        "Dataset101_Phantom/cases.csv",
        "column",
    ),
    FileKind("mark", "lungcast.json", _MARK_TEXT, "augmented/lungcast.json", closed=_MAPS),
)
