"""Which slices of a folder make the CT volume: the largest axial CT group; and a note on what was left out."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from standard_space.dicom.files import DamagedError, find_files
from standard_space.dicom.headers import UNPLACED, Slice, is_orthonormal, slices_of
from standard_space.dicom.stack import distinct_places, places
from standard_space.errors import DataError, GeometryError, LungcastError, ReadError
from standard_space.window import Window, is_lung_window

_SAME_ORIENTATION, _SAME_SPACING = 1e-3, 1e-3
_KERNEL_WORDS = {"STANDARD", "SOFT", "LUNG", "BONE", "BONEPLUS", "CHEST", "DETAIL", "EDGE", "ULTRA", "ASIR"}
_PLANES = ("sagittal", "coronal", "axial")


@dataclass
class Group:
    """Slices of one series with one orientation, size and pixel spacing; at least one."""

    slices: list[Slice] = field(default_factory=list)

    @property
    def first(self) -> Slice:
        """The first slice found."""
        return self.slices[0]

    @property
    def plane(self) -> str:
        """Axial, coronal or sagittal, by the slice normal."""
        return _PLANES[int(np.argmax(np.abs(self.first.normal)))]

    def takes(self, other: Slice) -> bool:
        """Whether a usable slice is of this group."""
        first = self.first
        a, b = first.stored, other.stored
        return (
            (other.series, other.volume) == (first.series, first.volume)
            and (a.rows, a.columns) == (b.rows, b.columns)
            and _close(first.orientation, other.orientation, _SAME_ORIENTATION)
            and _close(first.spacing, other.spacing, _SAME_SPACING * max(first.spacing))
        )

    def misses(self, faulty: Slice) -> bool:
        """Whether a slice that cannot be used seems to be of this group: what is damaged tells little."""
        first = self.first
        if faulty.series != first.series:
            return False
        if faulty.fault == UNPLACED:
            # Screens and scouts without a place may share a series with slices, but hardly their size.
            a, b = first.storage, faulty.storage
            return a is None or b is None or (a.rows, a.columns) == (b.rows, b.columns)
        turned = is_orthonormal(faulty.orientation) and not _close(
            first.orientation, faulty.orientation, _SAME_ORIENTATION
        )
        return not turned


def _close(a: tuple[float, ...], b: tuple[float, ...], tolerance: float) -> bool:
    """Whether two lists of numbers agree."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= tolerance


def choose_series(folder: Path) -> tuple[list[Slice], list[str]]:
    """Find the slices of the largest axial CT group of a folder.

    Returns
    -------
    slices : list of Slice
        Not yet ordered.
    notes : list of str
        What was taken and what was left out, without any identifier.

    Raises
    ------
    ReadError
        When the folder holds no DICOM series, or files of the series are damaged.
    DataError
        When it holds no CT, or CT of several patients.
    GeometryError
        When slices of the series do not say where they lie.
    """
    found, broken = [], []
    reasons: Counter[str] = Counter()
    for path in find_files(folder):
        try:
            found += slices_of(path)
        except DamagedError as error:
            broken.append(path)
            reasons[str(error)] += 1
    if not found:
        raise ReadError(
            "the folder holds no DICOM series",
            where=folder,
            got=f"{len(broken)} damaged: {reasons.most_common(1)[0][0]}" if broken else None,
        )
    groups = _groups([s for s in found if not s.left_out and not s.fault])
    faulty = [s for s in found if s.fault]
    ranked = sorted(groups, key=_rank)
    _check_faults(ranked, faulty, folder)
    if not ranked:
        raise DataError(
            "what the folder holds is not a CT series",
            where=folder,
            got=", ".join(_others([], found)) or None,
        )
    patients = {s.patient for group in groups for s in group.slices if s.patient}
    if len(patients) > 1:
        raise DataError(
            f"the folder holds CT of {len(patients)} patients",
            where=folder,
            remedy="put each scan in a folder of its own",
        )
    taken = ranked[0]
    beside = {s.path.parent for s in taken.slices}
    near = [path for path in broken if path.parent in beside]
    if near:
        raise ReadError(
            f"{len(near)} of the files beside the series' slices are damaged",
            where=folder,
            got=reasons.most_common(1)[0][0],
            remedy="export the series again, or remove the files when they are no part of it",
        )
    _check_parts(taken, folder)
    return taken.slices, _notes(taken, ranked[1:], found, len(broken))


def _groups(slices: list[Slice]) -> list[Group]:
    groups: dict[tuple[str, str], list[Group]] = {}
    for one in slices:
        series = groups.setdefault((one.series, one.volume), [])
        for group in series:
            if group.takes(one):
                group.slices.append(one)
                break
        else:
            series.append(Group([one]))
    return [group for series in groups.values() for group in series]


def _rank(group: Group) -> tuple[object, ...]:
    """Axial first, then the most positions, a lung window, the thinnest; numbers and UIDs settle the rest."""
    count = distinct_places(group.slices)
    spacing_mm = float(np.ptp(places(group.slices))) / max(1, count - 1)
    window = next((s.window for s in group.slices if s.window), ())
    first = group.first
    lung = len(window) == 2 and is_lung_window(*window)
    # Numbers in their numeric order, whatever text they hold.
    last = (len(first.number), first.number, first.series, first.volume)
    return (group.plane != "axial", -count, not lung, round(spacing_mm, 3), *last)


def _check_faults(ranked: list[Group], faulty: list[Slice], folder: Path) -> None:
    """Refuse when damaged slices belong to the group to be taken, or were more than it."""
    if not faulty:
        return
    own = [s for s in faulty if ranked and ranked[0].misses(s)]
    good = len(ranked[0].slices) if ranked else 0
    if not own:
        # A series none of whose slices says where it lies is some other kind of image when a placed one exists.
        by_series = Counter(s.series for s in faulty if not ranked or s.fault != UNPLACED)
        name, count = by_series.most_common(1)[0] if by_series else ("", 0)
        if count <= good:
            return
        own = [s for s in faulty if s.series == name]
    files = {s.path for s in own}
    whole = files | {s.path for g in ranked for s in g.slices if g.first.series == own[0].series}
    reason = Counter(s.fault for s in own).most_common(1)[0][0]
    placing = any(word in reason for word in ("Position", "Orientation", "Spacing"))
    kind: type[LungcastError] = GeometryError if placing else ReadError
    raise kind(
        f"{len(files)} of {len(whole)} files of the series cannot be used",
        where=folder,
        got=reason,
        remedy="export the series again",
    )


def _check_parts(taken: Group, folder: Path) -> None:
    files = len({s.path for s in taken.slices})
    if taken.first.parts > 1 and files != taken.first.parts:
        raise DataError(
            "parts of a multi-frame concatenation are missing",
            where=folder,
            got=f"{files} files",
            expected=taken.first.parts,
            remedy="export the whole series again",
        )


def _notes(taken: Group, others: list[Group], found: list[Slice], broken: int) -> list[str]:
    notes = []
    left = _others(others, found, taken.first.series)
    if broken:
        left.append(f"{broken} damaged file{'s' * (broken > 1)} elsewhere")
    if left:
        series = len({s.series for s in found})
        count = distinct_places(taken.slices)
        spacing_mm = float(np.ptp(places(taken.slices))) / max(1, count - 1)
        what = ", ".join(
            part
            for part in (
                _series_number(taken.first.number),
                f"{count} slices of {spacing_mm:.3g} mm",
                f"kernel {taken.first.kernel}" if looks_like_kernel(taken.first.kernel) else "",
            )
            if part
        )
        notes.append(f"{series} series found; taken: {what}; left out: {', '.join(left)}")
    studies = {s.study for group in [taken, *others] for s in group.slices if s.study}
    if len(studies) > 1:
        notes.append(f"the folder holds {len(studies)} studies; only one volume was taken")
    if taken.plane != "axial":
        notes.append(f"no axial series found: the slices are {taken.plane}")
    if any(s.lossy for s in taken.slices):
        notes.append("the slices were compressed with loss")
    return notes


def _others(groups: list[Group], found: list[Slice], taken: str = "") -> list[str]:
    """What was left out, in words."""
    words: Counter[str] = Counter()
    for group in groups:
        size = f"{len(group.slices)} slice{'s' * (len(group.slices) > 1)}"
        if group.first.series == taken:
            words[f"{size} of another orientation or size in the same series"] += 1
        else:
            plane = "" if group.plane == "axial" else f"{group.plane} "
            words[f"{plane}series of {size}"] += 1
    images: Counter[tuple[str, str]] = Counter()
    for one in found:
        if one.left_out == "other modality":
            code = one.modality if re.fullmatch(r"[A-Z]{2,6}", one.modality) else "other"
            images[(f"{code} series", one.series)] += 1
        elif one.left_out:
            words[one.left_out] += 1
        elif one.fault:
            words["unusable slice"] += 1
    for (name, _), count in images.items():
        words[f"{name} of {count} images"] += 1
    return [f"{count} {_plural(word, count)}" for word, count in words.items()]


def _plural(word: str, count: int) -> str:
    if count == 1 or " of " in word or "series" in word:
        return word
    return word.replace("map that is", "maps that are") if word.startswith("map") else f"{word}s"


def _series_number(number: str) -> str:
    return f"series {int(number)}" if re.fullmatch(r"\d{1,5}", number) else ""


def looks_like_kernel(kernel: str) -> bool:
    """Whether a ConvolutionKernel is a code that may be shown; free text could name a patient."""
    if kernel.upper() in _KERNEL_WORDS:
        return True
    short = re.fullmatch(r"[A-Za-z]{1,3}[A-Za-z0-9._+-]{0,7}", kernel) is not None
    digits = sum(letter.isdigit() for letter in kernel)
    return short and (1 <= digits <= 3 or len(kernel) <= 2)


def tag_window(slices: tuple[Slice, ...]) -> tuple[Window | None, list[str]]:
    """Window of the first slice that carries one, kept when it shows lung; and a note when it does not."""
    window = next((s.window for s in slices if s.window), ())
    if not window:
        return None, []
    level, width = window
    if is_lung_window(level, width):
        return Window(level, width, "dicom"), []
    if not (math.isfinite(level) and math.isfinite(width) and width > 0):
        return None, ["the window in the DICOM tags cannot be used"]
    return None, [f"the DICOM tags hold {level:g}/{width:g} HU, not a lung window: not used"]
