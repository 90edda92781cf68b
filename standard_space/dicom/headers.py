"""What a DICOM file says about its slices: place, values, storage, and why it is no slice of a CT volume."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import Dataset

from standard_space.dicom.files import DamagedError, Fields, RawHeader, read_header
from standard_space.dicom.pixels import Storage, storage_fault
from standard_space.window import is_lung_window

_SOP_CLASS, _IMAGE_TYPE, _MODALITY, _PATIENT = 0x00080016, 0x00080008, 0x00080060, 0x00100020
_STUDY, _SERIES, _NUMBER, _KERNEL = 0x0020000D, 0x0020000E, 0x00200011, 0x00181210
_POSITION, _ORIENTATION, _SPACING = 0x00200032, 0x00200037, 0x00280030
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH, _SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_PADDING, _PADDING_LIMIT, _LEVEL, _WIDTH = 0x00280120, 0x00280121, 0x00281050, 0x00281051
_INTERCEPT, _SLOPE, _RESCALE_TYPE, _FRAME_TYPE = 0x00281052, 0x00281053, 0x00281054, 0x00089007
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_CONCATENATION, _CONCATENATION_PARTS = 0x00209161, 0x00209163
_LOSSY = 0x00282110

SPLIT_TAGS = (
    0x00200012,  # AcquisitionNumber
    0x00209156,  # FrameAcquisitionNumber
    0x00200100,  # TemporalPositionIdentifier
    0x00209128,  # TemporalPositionIndex
    0x00209241,  # NominalPercentageOfCardiacPhase
    0x00209056,  # StackID
    _KERNEL,
    0x00180060,  # KVP
    _IMAGE_TYPE,
    _FRAME_TYPE,
    0x00180050,  # SliceThickness
    0x00080032,  # AcquisitionTime
)
"""What tells acquisitions at the same positions apart; the first that does is used. Values are never shown."""

_FUNCTIONAL_GROUPS = (
    0x00209113,  # PlanePositionSequence
    0x00209116,  # PlaneOrientationSequence
    0x00289110,  # PixelMeasuresSequence
    0x00289145,  # PixelValueTransformationSequence
    0x00289132,  # FrameVOILUTSequence
    0x00189329,  # CTImageFrameTypeSequence
    0x00209111,  # FrameContentSequence
    0x00189314,  # CTReconstructionSequence
    0x00189118,  # CardiacSynchronizationSequence
)
TAGS = [
    *(
        _SOP_CLASS,
        _IMAGE_TYPE,
        _MODALITY,
        _PATIENT,
        _STUDY,
        _SERIES,
        _NUMBER,
        _POSITION,
        _ORIENTATION,
        _SPACING,
    ),
    *(_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH, _SIGNED, _PADDING),
    *(_PADDING_LIMIT, _LEVEL, _WIDTH, _INTERCEPT, _SLOPE, _RESCALE_TYPE, _SHARED, _PER_FRAME, _LOSSY),
    *(_CONCATENATION, _CONCATENATION_PARTS, *SPLIT_TAGS),
]

_CT_CLASSES = {f"1.2.840.10008.5.1.4.1.1.2{part}" for part in ("", ".1", ".2")}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LOCALISER_WORDS = {"LOCALIZER", "LOCALISER", "SCOUT", "TOPOGRAM"}
_RENDERED_WORDS = {"MIP", "MINIP", "MAXIP", "VRT", "SSD", "PROT", "SCREENSAVE", "PROJECTIONIMAGE"} | {
    "VOLUMERENDER",
    "SURFACERENDER",
    "PROJECTION",
}
_HU_TYPES = {"", "HU", "HU_MOD", "US"}
UNPLACED = "no ImagePositionPatient or ImageOrientationPatient"


@dataclass(frozen=True)
class Slice:
    """One slice: a single-frame file, or one frame of a multi-frame file.

    Parameters
    ----------
    path : Path
        Its file.
    storage : Storage or None
        Where and how its pixels are stored; None when the header does not say.
    frame : int
        Frame number in the file, from 0.
    patient, study, series, number, kernel, modality : str
        As in the header; only the number, kernel and modality may be shown, and only when they are codes.
    volume : str
        What a multi-frame file's frames share; empty for single-frame files.
    parts : int
        Files that make up a concatenation; 0 when it is none or the header does not say.
    left_out : str
        Why it is no slice of a CT volume (a noun), or empty.
    fault : str
        Why it cannot be used though it should be one, or empty.
    position, orientation, spacing : tuple of float
        ImagePositionPatient (3), ImageOrientationPatient (6), PixelSpacing (between rows, between columns), mm.
        Empty when absent.
    slope, intercept : float
        HU = stored * slope + intercept.
    padding : (int, int) or None
        First and last stored value that stand for "no data".
    window : tuple of float
        The first level and width of the tags that show lung, else the first, HU; NaN for what is no number; empty
        when absent.
    lossy : bool
        Whether the pixels were compressed with loss.
    splits : tuple of bytes
        Values of `SPLIT_TAGS`.
    """

    path: Path
    storage: Storage | None
    frame: int
    patient: str
    study: str
    series: str
    number: str
    kernel: str
    modality: str
    volume: str
    parts: int
    left_out: str
    fault: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    window: tuple[float, ...]
    lossy: bool
    splits: tuple[bytes, ...]

    @property
    def stored(self) -> Storage:
        """Where its pixels are; a slice without has a fault and never gets this far.

        Raises
        ------
        DamagedError
            When the header does not say.
        """
        if self.storage is None:
            raise DamagedError("no pixels")
        return self.storage

    @property
    def normal(self) -> np.ndarray:
        """Unit normal of the slice, float64 (3,)."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def slices_of(path: Path) -> list[Slice]:
    """Slices of one file; empty when the file is not DICOM.

    Raises
    ------
    DamagedError
        When the file cannot be read at all, not even to tell its series.
    """
    header = read_header(path, TAGS)
    if header is None:
        return []
    fields = Fields(header.dataset)
    if not fields.text(_SERIES) and not fields.text(_MODALITY) and not fields.text(_SOP_CLASS):
        raise DamagedError("the header ends before it says what the file is")
    whole = _slice(path, header, fields, 0)
    if whole.left_out or (whole.fault and whole.storage is None):
        return [whole]
    frames = whole.storage.frames if whole.storage else 1
    if frames == 1 and _PER_FRAME not in header.dataset and _SHARED not in header.dataset:
        return [whole]
    if whole.fault and whole.fault != UNPLACED:
        return [whole]
    try:
        groups = _frame_groups(header.dataset)
    # As for the header itself: pydicom parses the sequences here, and damaged bytes raise anything.
    except Exception:
        return [replace(whole, fault="the functional groups of a multi-frame file are damaged")]
    if len(groups) != frames:
        return [replace(whole, fault="a multi-frame file does not say where its frames lie")]
    volume = (fields.text(_CONCATENATION) or str(path)) if frames > 1 else ""
    parts = fields.whole(_CONCATENATION_PARTS) or 0
    return [
        replace(_slice(path, header, fields.over(items), number), volume=volume, parts=parts)
        for number, items in enumerate(groups)
    ]


def _frame_groups(dataset: Dataset) -> list[list[Dataset]]:
    """Functional group items of every frame, shared ones first, so that a frame's own win."""
    shared = (
        [item for entry in dataset[_SHARED].value for item in _items(entry)] if _SHARED in dataset else []
    )
    own = dataset[_PER_FRAME].value if _PER_FRAME in dataset else []
    return [shared + _items(entry) for entry in own]


def _items(entry: Dataset) -> list[Dataset]:
    return [entry[tag].value[0] for tag in _FUNCTIONAL_GROUPS if tag in entry and len(entry[tag].value)]


def _slice(path: Path, header: RawHeader, fields: Fields, frame: int) -> Slice:
    storage = _storage(path, header, fields)
    signed = storage is not None and storage.signed
    padding = fields.whole(_PADDING, signed=signed)
    limit = fields.whole(_PADDING_LIMIT, signed=signed)
    slope, intercept = fields.numbers(_SLOPE) or [1.0], fields.numbers(_INTERCEPT) or [0.0]
    level, width = fields.numbers(_LEVEL), fields.numbers(_WIDTH)
    found = Slice(
        path=path,
        storage=storage,
        frame=frame,
        patient=fields.text(_PATIENT),
        study=fields.text(_STUDY),
        series=fields.text(_SERIES),
        number=fields.text(_NUMBER),
        kernel=fields.text(_KERNEL).split("\\")[0],
        modality=fields.text(_MODALITY),
        volume="",
        parts=0,
        left_out=_left_out(fields, header),
        fault="",
        position=tuple(fields.numbers(_POSITION)),
        orientation=tuple(fields.numbers(_ORIENTATION)),
        spacing=tuple(fields.numbers(_SPACING)),
        slope=slope[0],
        intercept=intercept[0],
        padding=None if padding is None else _range(padding, padding if limit is None else limit),
        window=_window(level, width),
        lossy=fields.text(_LOSSY) == "01",
        splits=tuple(fields.raw(tag) for tag in SPLIT_TAGS),
    )
    return found if found.left_out else replace(found, fault=_fault(found, header, fields))


def _range(a: int, b: int) -> tuple[int, int]:
    return min(a, b), max(a, b)


def _storage(path: Path, header: RawHeader, fields: Fields) -> Storage | None:
    rows, columns, allocated = fields.whole(_ROWS), fields.whole(_COLUMNS), fields.whole(_ALLOCATED)
    if header.pixel_offset is None or header.float_pixels or rows is None or columns is None or not allocated:
        return None
    stored = fields.whole(_STORED) or allocated
    high = fields.whole(_HIGH)
    frames = fields.text(_FRAMES)
    return Storage(
        path=path,
        syntax=header.syntax,
        offset=header.pixel_offset,
        length=header.pixel_length,
        size=header.size,
        frames=int(frames) if re.fullmatch(r"\d{1,9}", frames) else 1,
        rows=rows,
        columns=columns,
        allocated=allocated,
        stored=stored,
        high=stored - 1 if high is None else high,
        signed=fields.whole(_SIGNED) == 1,
    )


def _window(levels: list[float], widths: list[float]) -> tuple[float, ...]:
    pairs = list(zip(levels, widths, strict=False))
    return next((pair for pair in pairs if is_lung_window(*pair)), pairs[0] if pairs else ())


def _left_out(fields: Fields, header: RawHeader) -> str:
    """Why a file is no slice of a CT volume, as a noun; empty when it is one."""
    modality, sop = fields.text(_MODALITY), fields.text(_SOP_CLASS)
    if modality == "SR":
        return "structured report"
    if modality and modality != "CT":
        has_image = header.pixel_offset is not None
        return "other modality" if has_image else "object without pixels"
    if sop == _SECONDARY_CAPTURE or sop.startswith(_SECONDARY_CAPTURE + "."):
        return "secondary capture"
    if sop and sop not in _CT_CLASSES and header.pixel_offset is None:
        return "object without pixels"
    values = f"{fields.text(_IMAGE_TYPE)}\\{fields.text(_FRAME_TYPE)}".upper().split("\\")
    words = {word for value in values for word in re.split(r"[ _]+", value)}
    words |= {re.sub(r"[ _]+", "", value) for value in values}
    if words & _LOCALISER_WORDS:
        return "localiser"
    if words & _RENDERED_WORDS:
        return "projection or screen image"
    if (fields.whole(_SAMPLES) or 1) != 1 or fields.text(_PHOTOMETRIC)[:3] in ("RGB", "YBR", "PAL"):
        return "colour image"
    if fields.text(_RESCALE_TYPE).upper() not in _HU_TYPES:
        return "map that is not in HU"
    return ""


def _fault(found: Slice, header: RawHeader, fields: Fields) -> str:
    """Why a CT slice cannot be used; empty when it can."""
    if header.float_pixels:
        return "the pixels are floating point"
    if found.storage is None:
        return "no pixels" if header.pixel_offset is None else "no rows, columns or bits"
    if fields.text(_PHOTOMETRIC) == "MONOCHROME1":
        return "the values are inverted (MONOCHROME1)"
    fault = storage_fault(found.storage)
    if fault:
        return fault
    if not (math.isfinite(found.slope) and math.isfinite(found.intercept) and found.slope != 0):
        return "the rescale slope or intercept is no number or zero"
    if not found.position or not found.orientation:
        return UNPLACED
    if len(found.position) != 3 or not np.isfinite(found.position).all():
        return "ImagePositionPatient is not three numbers"
    if not is_orthonormal(found.orientation):
        return "ImageOrientationPatient is not two perpendicular unit vectors"
    if not found.spacing:
        return "no PixelSpacing"
    if len(found.spacing) != 2 or not all(1e-3 < mm < 1e2 for mm in found.spacing):
        return "PixelSpacing is not two usable numbers"
    if max(abs(mm) for mm in found.position) > 1e5:
        return "ImagePositionPatient is far outside any scanner"
    return ""


def is_orthonormal(orientation: tuple[float, ...]) -> bool:
    """Whether six numbers are two perpendicular unit vectors, as far as headers round."""
    if len(orientation) != 6:
        return False
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    if not np.isfinite(orientation).all() or max(abs(v) for v in orientation) > 2:
        return False
    tolerance = 5e-3
    lengths = abs(np.linalg.norm(row) - 1) < tolerance and abs(np.linalg.norm(column) - 1) < tolerance
    return bool(lengths and abs(row @ column) < tolerance)
