"""Test sets for the evidence studies: real thoraces with painted lesions, and the same without any.

    python -m benchmarks.evidence_data OUT --shared ../shared/data --grid 128 --seed 7 --patients 8 --scans 2

OUT/painted and OUT/untouched are cohorts as `lungcast embed` writes them; images and manifests lie in
OUT/painted_images and OUT/untouched_images. The lesions are the phantoms' random fields (`--lesions fields`),
which share no code with what augments training sets; truth lies on the images' own grids. The thoraces are
those of the development tree (../shared/data): none of its patients has COVID-19.

A cohort's patient is the thorax, and every painted lesion is a scan of it: what shares anatomy, noise and scanner
is no independent patient. There are as many independent ones as thoraces, four, and intervals over them are wide.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from simulator.phantom.draws import draw_days, stream  # noqa: E402
from simulator.phantom.lesion_fields import FieldLesionSource  # noqa: E402
from simulator.phantom.paint import Side, paint_lesion, real_chest, visible_share  # noqa: E402
from standard_space.embedding import embed  # noqa: E402
from standard_space.errors import DataError, ReadError  # noqa: E402
from standard_space.files import write_json, write_text  # noqa: E402
from standard_space.geometry import Geometry  # noqa: E402
from standard_space.grid import StandardGrid  # noqa: E402
from standard_space.image import CTImage, read_image, read_labels, read_mask, write_volume  # noqa: E402
from standard_space.ingest import EmbedSettings, embed_cohort, prepare_cohort  # noqa: E402
from standard_space.restore import restore_mask  # noqa: E402

COLUMNS = ("patient", "scan", "day", "image", "infection", "lungs", "stage", "scanner")
FINDING_GRID = StandardGrid(256)
"""Where lungs are found that come without a mask."""
DAYS_PER_LESION = 1000.0
"""A manifest's days are distinct and ascend within a patient, but every lesion of a thorax has a day 0 of its own.
The manifest therefore counts each lesion from its own thousand, far beyond any course; truth.json has the true
days."""
LEAST_VISIBLE = 0.9
"""Of a lesion's truth. What finds all that can be seen and nothing else still has a Dice of 0.947 then, well above
what any method reaches: invisible truth cannot decide between methods."""


@dataclass(frozen=True)
class Thorax:
    """A real chest: its images in order of time, and where its lungs are said.

    Parameters
    ----------
    name, scanner : str
        Of the cohort; the data set it comes from stands for the scanner.
    images, lungs : tuple of str
        Files under the shared folder; no lungs: they are found before anything is painted.
    labels : tuple of int
        Labels that are lung; none: a mask.
    side : "right", "left" or None
        The only lung in the picture.
    """

    name: str
    scanner: str
    images: tuple[str, ...]
    lungs: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    side: Side | None = None


THORACES = (
    Thorax("t1", "slicer-ctchest4", ("ctchest4/CTChest4.nrrd",), ("ctchest4/Segmentation.seg.nrrd",), (5, 6)),
    Thorax("t2", "lidc-0001", ("lidc_0001/cxr.nii.gz",), ("lidc_0001/mask.nii.gz",), (10, 11, 12, 13, 14)),
    Thorax("t3", "lung-pet-ct-dx-a0002", ("dicom_lung_pet_ct_dx_a0002",)),
    Thorax(
        "t4",
        "elastix-low-dose",
        ("elastix_lung_pair/3DCT_lung_baseline.mha", "elastix_lung_pair/3DCT_lung_followup.mha"),
        ("elastix_lung_pair/3DCT_lung_baseline_mask.mha", "elastix_lung_pair/3DCT_lung_followup_mask.mha"),
        side="right",
    ),
)


@dataclass(frozen=True)
class View:
    """An image of a thorax with its lungs, bool array (z, y, x) on the image's grid."""

    image: CTImage
    lungs: NDArray[np.bool_]


def read_views(thorax: Thorax, shared: Path) -> list[View]:
    """The images of a thorax and their lungs.

    Raises
    ------
    ReadError
        When one is missing.
    """
    views = []
    for number, name in enumerate(thorax.images):
        if not (shared / name).exists():
            raise ReadError("no such real chest", where=shared / name, remedy="name the folder with --shared")
        image = read_image(shared / name)
        if not thorax.lungs:
            scan = embed(image, FINDING_GRID)
            lungs = restore_mask(scan.lungs, scan.placement)
        elif thorax.labels:
            lungs = np.isin(read_labels(shared / thorax.lungs[number], image.geometry), thorax.labels)
        else:
            lungs = read_mask(shared / thorax.lungs[number], image.geometry)
        views.append(View(image, lungs))
    return views


def painted_thoraces(
    folder: Path,
    shared: Path,
    grid: StandardGrid,
    seed: int,
    patients: int,
    scans: int,
    thoraces: Sequence[Thorax] = THORACES,
) -> Path:
    """A cohort of real thoraces with painted progressions.

    Virtual patient k lies in thorax k modulo their number, with a lesion of its own, scanned on days as phantoms
    are; a thorax with images of several times shows them in turn. The cohort's patients are the thoraces: scan
    l2d3 is a thorax with its second lesion on day 3. Stage is the lesion's, and so is the day but for
    `DAYS_PER_LESION`.

    Parameters
    ----------
    folder : Path
        The cohort; its images and masks lie beside it, in `folder` with "_images" added.
    shared : Path
        The real chests.
    grid : StandardGrid
    seed : int
    patients, scans : int
        Virtual patients (lesions), and scans of each.
    thoraces : sequence of Thorax

    Returns
    -------
    Path of the cohort.

    Raises
    ------
    ReadError
        When a chest is missing.
    DataError
        When less than `LEAST_VISIBLE` of a lesion can be seen.
    """
    out = _beside(folder)
    rows: list[dict[str, str]] = []
    truths: list[dict[str, Any]] = []
    for place, thorax in enumerate(thoraces):
        numbers = range(place, patients, len(thoraces))
        views = read_views(thorax, shared) if len(numbers) else []
        lesions: list[dict[str, Any]] = []
        for lesion, index in enumerate(numbers, start=1):
            first = views[0]
            chest = real_chest(first.lungs, first.image.geometry, seed=seed, index=index, side=thorax.side)
            source = FieldLesionSource(chest)
            days = draw_days(stream(seed, index, 0, "days"), scans)
            told: list[dict[str, Any]] = []
            for number, (day, moment) in enumerate(zip(days, source.over(days), strict=True)):
                view = views[number % len(views)]
                where = view.image.geometry
                name, listed = f"l{lesion}d{day:g}", DAYS_PER_LESION * lesion + day
                hu, infection = paint_lesion(view.image.array, view.lungs, where, moment.map, chest)
                shares = _visible(f"{thorax.name}/{name}", view, hu, infection)
                rows.append(_write(out, thorax, name, listed, moment.stage, hu, infection, view))
                ml = float(infection.sum()) * where.voxel_volume_ml
                told.append({"scan": name, "day": day, "infection_ml": ml, **shares, **moment.truth})
            lesions.append({"lesion": lesion, "index": index, "drawn": source.truth(), "scans": told})
        if lesions:
            truths.append({"patient": thorax.name, "lesions": lesions})
    write_json(out / "truth.json", {"seed": seed, "patients": truths})
    return _embed(folder, out, rows, grid)


def untouched_thoraces(
    folder: Path, shared: Path, grid: StandardGrid, thoraces: Sequence[Thorax] = THORACES
) -> Path:
    """A cohort of the same thoraces as they are, annotated as free of infection; see `painted_thoraces`.

    Days only number the images of a thorax: scans untouched1, untouched2, ... of the same patients.
    """
    out = _beside(folder)
    rows = []
    for thorax in thoraces:
        for number, view in enumerate(read_views(thorax, shared)):
            none = np.zeros_like(view.lungs)
            hu = view.image.array
            rows.append(_write(out, thorax, f"untouched{number + 1}", float(number), "", hu, none, view))
    return _embed(folder, out, rows, grid)


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}_images")


def _visible(
    name: str, view: View, hu: NDArray[np.float32], infection: NDArray[np.bool_]
) -> dict[str, float]:
    """Shares of the truth for truth.json: what can be seen, and the vessels in it."""
    visible, vessels = visible_share(view.image.array, hu, infection)
    if visible < LEAST_VISIBLE:
        raise DataError(
            "too much of a painted lesion cannot be seen",
            where=name,
            got=f"{visible:.3f} of its voxels",
            expected=f"at least {LEAST_VISIBLE:g}",
            remedy="take another seed, or another thorax",
        )
    return {"visible_share": visible, "vessel_share": vessels}


def _write(
    out: Path,
    thorax: Thorax,
    scan: str,
    day: float,
    stage: str,
    hu: NDArray[np.float32],
    infection: NDArray[np.bool_],
    view: View,
) -> dict[str, str]:
    where: Geometry = view.image.geometry
    stem = f"{thorax.name}_{scan}.nii.gz"
    files: dict[str, NDArray[Any]] = {
        "image": np.rint(np.clip(hu, -1024.0, 3071.0)).astype(np.int16),
        "infection": infection,
        "lungs": view.lungs,
    }
    for kind, array in files.items():
        write_volume(out / kind / stem, array, where)
    return {
        "patient": thorax.name,
        "scan": scan,
        "day": f"{day:g}",
        **{kind: f"{kind}/{stem}" for kind in files},
        "stage": stage,
        "scanner": thorax.scanner,
    }


def _embed(folder: Path, out: Path, rows: list[dict[str, str]], grid: StandardGrid) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "manifest.csv", text.getvalue())
    settings = EmbedSettings(grid)
    prepare_cohort(out / "manifest.csv", folder, settings)
    outcome = embed_cohort(out / "manifest.csv", folder, settings)
    if outcome.failures:
        raise SystemExit("\n".join(outcome.failures.values()))
    for name, notes in outcome.notes.items():
        click.echo(f"{name}: {'; '.join(notes)}")
    return folder


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--shared", type=click.Path(path_type=Path), default=ROOT.parent / "shared" / "data")
@click.option("--grid", default=128, show_default=True)
@click.option("--seed", default=7, show_default=True)
@click.option(
    "--patients", default=8, show_default=True, help="Virtual patients (lesions), in the thoraces in turn."
)
@click.option("--scans", default=2, show_default=True)
def main(out: Path, shared: Path, grid: int, seed: int, patients: int, scans: int) -> None:
    """Write OUT/painted and OUT/untouched."""
    standard = StandardGrid(grid)
    painted = painted_thoraces(out / "painted", shared, standard, seed, patients, scans)
    untouched = untouched_thoraces(out / "untouched", shared, standard)
    truth = json.loads((_beside(painted) / "truth.json").read_text())
    for patient in truth["patients"]:
        for scan in (scan for lesion in patient["lesions"] for scan in lesion["scans"]):
            seen = f"{scan['visible_share']:.3f} visible ({scan['vessel_share']:.3f} vessels)"
            click.echo(f"{patient['patient']}/{scan['scan']}: {scan['infection_ml']:.0f} ml, {seen}")
    click.echo(f"{painted}\n{untouched}")


if __name__ == "__main__":
    main()
