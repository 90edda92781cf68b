"""Stored pixels of DICOM slices to HU; nothing is allocated on trust."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.uid import UID
from scipy import ndimage

from standard_space.dicom.files import DEFLATED, UNDEFINED_LENGTH, DamagedError, opened
from standard_space.window import AIR_HU

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _BIG_ENDIAN, DEFLATED)
RLE = "1.2.840.10008.1.2.5"
JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81))
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91))
MAX_SIDE = 4096
"""Largest matrix a scanner makes is 2048; more is a damaged header, and must not be allocated."""
TISSUE_HU = (-900.0, 3000.0)
"""A padding value between these could be a patient's."""


@dataclass(frozen=True)
class Storage:
    """Where a file's pixels lie and how they are stored.

    Parameters
    ----------
    path : Path
        The file.
    syntax : str
        Transfer syntax UID.
    offset, length, size : int
        Start and length of the pixel data, and of the (inflated) file, bytes; the length is
        `UNDEFINED_LENGTH` when encapsulated.
    frames, rows, columns : int
        Shape.
    allocated, stored, high : int
        Bits allocated and stored, and the highest bit.
    signed : bool
        Two's complement.
    """

    path: Path
    syntax: str
    offset: int
    length: int
    size: int
    frames: int
    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def native(self) -> bool:
        """Whether the pixels are uncompressed."""
        return self.syntax in _NATIVE

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.allocated // 8


def storage_fault(storage: Storage) -> str:
    """Why the pixels cannot be decoded, as far as the header and the file's length tell; empty when they can."""
    if not (1 <= storage.rows <= MAX_SIDE and 1 <= storage.columns <= MAX_SIDE):
        return f"{storage.rows} rows and {storage.columns} columns cannot be a CT slice"
    if storage.allocated not in (8, 16, 32):
        return f"{storage.allocated} bits allocated cannot be read"
    if not (
        1 <= storage.stored <= storage.allocated and storage.stored - 1 <= storage.high < storage.allocated
    ):
        return "the bits stored do not fit the bits allocated"
    if storage.frames < 1:
        return "the file holds no frames"
    if storage.native:
        if storage.length == UNDEFINED_LENGTH:
            return "uncompressed pixel data has no length"
        if storage.length < storage.frames * storage.frame_bytes:
            return "there are fewer pixels than rows and columns say"
        return "the pixel data is cut short" if storage.offset + storage.length > storage.size else ""
    if storage.syntax not in (RLE, *JPEG, *JPEG_2000):
        name = UID(storage.syntax).name
        known = name != storage.syntax
        return f"the transfer syntax {name if known else 'is private and'} cannot be decoded"
    if storage.length != UNDEFINED_LENGTH:
        return "compressed pixel data is not encapsulated"
    try:
        with opened(storage.path) as handle:
            fragments = _count_fragments(handle, storage)
    except DamagedError as error:
        return str(error)
    # A frame may be spread over several fragments, never the other way round.
    return "there are fewer pixels than frames" if fragments < storage.frames else ""


def _count_fragments(handle: BinaryIO, storage: Storage) -> int:
    """Fragments of encapsulated pixel data, each within the file, without reading them."""
    place, items = storage.offset, 0
    while True:
        handle.seek(place)
        head = handle.read(8)
        if len(head) < 8:
            raise DamagedError("the pixel data is cut short")
        if head[:4] == b"\xfe\xff\xdd\xe0":
            return items - 1  # the first item is the offset table
        length = int.from_bytes(head[4:], "little")
        place += 8 + length
        if head[:4] != b"\xfe\xff\x00\xe0" or length == UNDEFINED_LENGTH:
            raise DamagedError("the pixel data is damaged")
        if place > storage.size:
            raise DamagedError("the pixel data is cut short")
        items += 1


def frame_bytes(handle: BinaryIO, storage: Storage, frame: int) -> bytes:
    """Stored bytes of a frame: pixels when uncompressed, its codestream when compressed.

    Raises
    ------
    DamagedError
        When the file holds less than its header says.
    """
    if storage.native:
        handle.seek(storage.offset + frame * storage.frame_bytes)
        data = handle.read(storage.frame_bytes)
        if len(data) < storage.frame_bytes:
            raise DamagedError("the pixel data is cut short")
        return data
    handle.seek(storage.offset)
    try:
        return bytes(get_frame(handle, frame, number_of_frames=storage.frames))
    # pydicom keeps no list of what it raises on a damaged table of offsets.
    except Exception:
        raise DamagedError("the frames of the compressed pixel data cannot be told apart") from None


def digest(storage: Storage, frame: int) -> bytes:
    """Hash of a frame's stored bytes, to tell whether two slices are one."""
    with opened(storage.path, deflated=storage.syntax == DEFLATED) as handle:
        return hashlib.blake2b(frame_bytes(handle, storage, frame)).digest()


def native_values(data: bytes, storage: Storage) -> NDArray[np.integer[Any]]:
    """Values of an uncompressed frame, integer array (rows, columns), unused bits removed."""
    order = ">" if storage.syntax == _BIG_ENDIAN else "<"
    kind = "i" if storage.signed and storage.stored == storage.allocated else "u"
    values = np.frombuffer(data, f"{order}{kind}{storage.allocated // 8}")
    values = values.reshape(storage.rows, storage.columns)
    if storage.stored == storage.allocated:
        return values
    # Old exports keep overlays in the bits that are not stored.
    kept = (values.astype(np.int64) >> (storage.high - storage.stored + 1)) & ((1 << storage.stored) - 1)
    if storage.signed:
        sign = 1 << (storage.stored - 1)
        kept = (kept ^ sign) - sign
    return kept


def to_hu(
    values: NDArray[np.integer[Any]], slope: float, intercept: float, padding: tuple[int, int] | None
) -> NDArray[np.float32]:
    """HU of stored values; padding becomes air.

    A padding value among tissue values counts only where it reaches the border of the slice: some writers
    name a value that the patient's voxels hold as well.

    Returns
    -------
    float32 array of the values' shape, HU.
    """
    hu = np.multiply(values, slope, dtype=np.float64)
    hu += intercept
    result = hu.astype(np.float32)
    if padding is None:
        return result
    empty = (values >= padding[0]) & (values <= padding[1])
    if not empty.any():
        return result
    low, high = sorted(value * slope + intercept for value in padding)
    if high > TISSUE_HU[0] and low < TISSUE_HU[1]:
        labels, _ = ndimage.label(empty)
        border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        empty = np.isin(labels, border[border > 0])
    result[empty] = AIR_HU
    return result
