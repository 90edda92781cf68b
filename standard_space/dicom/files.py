"""Files of a folder that may be DICOM, and their headers as raw values: nothing a damaged file holds gets out."""

from __future__ import annotations

import copy
import io
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import SimpleITK as sitk
from pydicom import Dataset
from pydicom.filereader import read_dataset, read_partial

from standard_space.errors import ReadError

DEFLATED = "1.2.840.10008.1.2.1.99"
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
UNDEFINED_LENGTH = 0xFFFFFFFF
MAX_INFLATED_BYTES = 1 << 29
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)


class DamagedError(Exception):
    """A file is DICOM, or claims to be, and cannot be used; the text says why and names nothing."""


@dataclass(frozen=True)
class RawHeader:
    """Header of one file.

    Parameters
    ----------
    dataset : pydicom.Dataset
        The wanted elements, not yet converted.
    syntax : str
        Transfer syntax UID.
    pixel_offset : int or None
        Where the pixel data's value starts, in the (inflated) file; None when the file holds no pixels.
    pixel_length : int
        Its length in bytes; `UNDEFINED_LENGTH` when encapsulated.
    float_pixels : bool
        Whether the pixels are floating point.
    size : int
        Bytes of the (inflated) file.
    """

    dataset: Dataset
    syntax: str
    pixel_offset: int | None
    pixel_length: int
    float_pixels: bool
    size: int


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings and log lines and ITK's warnings from the user: the reader says what matters."""
    logger, level = logging.getLogger("pydicom"), logging.getLogger("pydicom").level
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def find_files(folder: Path) -> list[Path]:
    """Visible files of a folder and its visible subfolders, in a fixed order.

    Raises
    ------
    ReadError
        When a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise ReadError(f"a folder cannot be listed ({error.strerror})", where=folder)

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root) / name for name in sorted(names) if not name.startswith(".")]
    return [path for path in found if path.is_file()]


@contextmanager
def opened(path: Path, *, deflated: bool = False) -> Iterator[BinaryIO]:
    """Open a file's bytes for reading, inflated when its data set is deflated.

    Raises
    ------
    DamagedError
        When the file cannot be opened, inflated, or read within the block.
    """
    try:
        with open(path, "rb") as handle:
            yield io.BytesIO(_inflated(handle)) if deflated else handle
    except OSError as error:
        raise DamagedError(f"the file cannot be read ({error.strerror})") from None


def _inflated(handle: BinaryIO) -> bytes:
    """The data set of a deflated file; bounded, as a few kilobytes may inflate to gigabytes."""
    handle.seek(132)
    head = handle.read(12)
    if head[:4] != b"\x02\x00\x00\x00":
        raise DamagedError("the deflated file has no length of its header")
    handle.seek(144 + int.from_bytes(head[8:], "little"))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(handle.read(), MAX_INFLATED_BYTES)
    except zlib.error:
        raise DamagedError("the deflated data is damaged") from None
    if not inflater.eof:
        raise DamagedError("the deflated data is cut short or far too large")
    return data


def read_header(path: Path, tags: list[int]) -> RawHeader | None:
    """Read the wanted elements of a file's header; None when the file is not DICOM or is a DICOMDIR.

    Raises
    ------
    DamagedError
        When it is DICOM but cannot be parsed, or its name says DICOM but its bytes do not.
    """
    with opened(path) as handle:
        head = handle.read(1024)
        # Old exports lack the preamble: such a file starts with an element of group 2 or 8.
        bare = len(head) > 132 and head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00"
        if head[128:132] != b"DICM" and not bare:
            if path.name.lower().endswith(DICOM_SUFFIXES):
                raise DamagedError("the file is named as DICOM but is not")
            return None
        size = os.fstat(handle.fileno()).st_size
        handle.seek(0)
        if DEFLATED.encode() not in head:
            return _parse(handle, size, tags)
    with opened(path, deflated=True) as handle:
        return _parse(handle, len(handle.read()), tags, deflated=True)


def _parse(handle: BinaryIO, size: int, tags: list[int], *, deflated: bool = False) -> RawHeader | None:
    pixels: list[tuple[int, int, bool]] = []

    def stop(tag: int, _: str | None, length: int) -> bool:
        if tag == _PIXEL_DATA or tag in _FLOAT_PIXELS:
            pixels.append((handle.tell(), length, tag in _FLOAT_PIXELS))
            return True
        # Checked before pydicom reads the value, so that a false length allocates nothing.
        if length != UNDEFINED_LENGTH and handle.tell() + length > size:
            raise DamagedError("the file is cut short")
        return False

    try:
        handle.seek(0)
        if deflated:
            dataset: Dataset = read_dataset(handle, False, True, stop_when=stop, specific_tags=list(tags))
            syntax, media = DEFLATED, ""
        else:
            whole = read_partial(handle, stop_when=stop, force=True, specific_tags=list(tags))
            dataset = whole
            syntax = str(whole.file_meta.get("TransferSyntaxUID", "") or "")
            media = str(whole.file_meta.get("MediaStorageSOPClassUID", "") or "")
            if not syntax:
                syntax = "1.2.840.10008.1.2" if whole.original_encoding[0] else "1.2.840.10008.1.2.1"
    except DamagedError:
        raise
    # pydicom keeps no list of what it raises on damaged bytes (struct, decoding, key, recursion errors ...).
    except Exception:
        raise DamagedError("the header is damaged") from None
    if media == _MEDIA_DIRECTORY:
        return None
    offset, length, floating = pixels[0] if pixels else (None, 0, False)
    return RawHeader(dataset, syntax, offset, length, floating, size)


class Fields:
    """Raw values of a data set by tag, read without pydicom's conversions (which raise and warn on bad values)."""

    def __init__(self, dataset: Dataset) -> None:
        self._elements: dict[int, Any] = _raw_elements(dataset)

    def over(self, datasets: list[Dataset]) -> Fields:
        """These values with those of other data sets on top, the last one winning."""
        other = copy.copy(self)
        other._elements = dict(self._elements)
        for dataset in datasets:
            other._elements.update(_raw_elements(dataset))
        return other

    def raw(self, tag: int) -> bytes:
        """Bytes of a value; empty when it is absent."""
        value = getattr(self._elements.get(tag), "value", None)
        return value if isinstance(value, bytes) else b""

    def text(self, tag: int) -> str:
        """A value as text without its padding."""
        return self.raw(tag).decode("latin-1").strip(" \0")

    def numbers(self, tag: int) -> list[float]:
        """Numbers of a multi-valued decimal string; NaN for what is no number, empty when absent."""
        text = self.text(tag)
        return [_number(part) for part in text.split("\\")] if text else []

    def whole(self, tag: int, *, signed: bool = False) -> int | None:
        """A binary integer of two or four bytes; None when absent or of another length."""
        value = self.raw(tag)
        if len(value) not in (2, 4):
            return None
        little = getattr(self._elements[tag], "is_little_endian", True)
        return int.from_bytes(value, "little" if little else "big", signed=signed)


def _raw_elements(dataset: Dataset) -> dict[int, Any]:
    return {int(tag): dataset.get_item(tag) for tag in dataset.keys()}  # noqa: SIM118


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
