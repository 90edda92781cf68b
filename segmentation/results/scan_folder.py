"""What a path holds: one scan, or a folder of scans.

A folder is one scan when DICOM files lie directly in it. Otherwise it is a folder of scans: each image file in it
is one, and each of its subfolders that holds DICOM files, at any depth. Hidden files and folders do not count.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from segmentation.results.segment_image import ScanInput, image_stem
from standard_space.dicom.files import DamagedError, find_files, quiet, read_header
from standard_space.errors import DataError, ReadError, UsageError
from standard_space.image_file import SUFFIXES


def scans_in(path: str | Path) -> list[Path] | None:
    """List the scans of a folder of scans, in the order of their names; None when the path is one scan itself.

    Raises
    ------
    UsageError
        There is no such path, the folder holds no scan, DICOM files and image files lie side by side, or two
        scans would have the same name.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError("no such image", where=path)
    if not path.is_dir():
        return None
    try:
        visible = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise ReadError(f"the folder cannot be listed ({error.strerror})", where=path) from None
    # A broken link with an image's name is a scan as well: it fails by name when it is read.
    images = [
        entry
        for entry in visible
        if (entry.is_file() or not entry.exists()) and entry.name.lower().endswith(SUFFIXES)
    ]
    with quiet():
        direct = any(_is_dicom(entry) for entry in visible if entry.is_file() and entry not in images)
        series = [] if direct else [entry for entry in visible if entry.is_dir() and _holds_dicom(entry)]
    if direct and images:
        raise UsageError(
            "the folder holds DICOM files and image files side by side",
            where=path,
            got=f"{len(images)} image files",
            remedy="put the DICOM series in a folder of its own, or name one image",
        )
    if direct:
        return None
    found = sorted(images + series)
    if not found:
        raise UsageError(
            "the folder holds no scan",
            where=path,
            expected=f"DICOM files, image files ({', '.join(SUFFIXES)}), or subfolders with a DICOM series",
        )
    twice = [name for name, count in Counter(image_stem(scan) for scan in found).items() if count > 1]
    if twice:
        raise UsageError(
            "several scans have the same name, by which their results are kept apart",
            where=path,
            got=", ".join(sorted(twice)[:3]),
            remedy="rename them",
        )
    return found


def check_masks(given: Path | None, option: str, *, folder: bool) -> None:
    """Refuse masks of another kind than the images: a file for one scan, a folder for a folder of scans.

    Raises
    ------
    UsageError
    """
    if given is None:
        return
    if not given.exists():
        raise UsageError(f"there is no such path for {option}", where=given)
    if given.is_dir() != folder:
        expected = "a folder of masks with the scans' names" if folder else "one file"
        raise UsageError(f"{option} does not fit the image", where=given, expected=expected)


def scan_input(image: Path, lungs: Path | None, lobes: Path | None) -> ScanInput:
    """One scan of a folder with its masks.

    Raises
    ------
    DataError
        A folder of masks holds none, or several, for this scan.
    """
    return ScanInput(image, _mask_of(lungs, image), _mask_of(lobes, image))


def _mask_of(folder: Path | None, image: Path) -> Path | None:
    if folder is None:
        return None
    stem = image_stem(image)
    found = [folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()]
    if len(found) != 1:
        what = "several masks" if found else "no mask"
        raise DataError(f"the folder holds {what} for this scan", where=folder, expected=f"one {stem}.nii.gz")
    return found[0]


def _is_dicom(path: Path) -> bool:
    try:
        return read_header(path, []) is not None
    except DamagedError:
        return True  # it is one, and its reader says what is wrong with it


def _holds_dicom(folder: Path) -> bool:
    return any(_is_dicom(path) for path in find_files(folder))
