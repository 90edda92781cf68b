"""Compressed frames to stored values: GDCM in a child process, as it crashes on some damaged codestreams."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid

from standard_space.dicom.files import DamagedError
from standard_space.dicom.pixels import JPEG_2000, RLE, Storage

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_WORKER = Path(__file__).with_name("gdcm_worker.py")
_MAX_TILES = 4096
_MAX_CRASHES = 8
_SECONDS_A_RUN, _SECONDS_A_FRAME = 60.0, 2.0


def write_frame(folder: Path, number: int, data: bytes, storage: Storage) -> None:
    """Put a codestream into a file of our own making: no header of the input, and no identifier, reaches GDCM.

    Raises
    ------
    DamagedError
        When the codestream is not what the header says.
    """
    check_codestream(data, storage)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_CT_IMAGE)
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    meta.TransferSyntaxUID = UID(storage.syntax)
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = storage.rows, storage.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (
        storage.allocated,
        storage.stored,
        storage.high,
    )
    dataset.PixelRepresentation = int(storage.signed)
    dataset.PixelData = encapsulate([data])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def decode_frames(folder: Path) -> None:
    """Decode what `write_frame` put into a folder; a frame that crashes or hangs GDCM is passed over."""
    for _ in range(_MAX_CRASHES):
        waiting = len(list(folder.glob("*.dcm")))
        if not waiting:
            return
        seconds = _SECONDS_A_RUN + _SECONDS_A_FRAME * waiting
        # -P: the worker's folder holds modules of ours, whose names other packages must not find.
        command = [sys.executable, "-P", str(_WORKER), str(folder)]
        try:
            # Decoders print about damaged data; the caller says it in one sentence.
            subprocess.run(
                command,
                check=False,
                timeout=seconds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            continue


def decoded_frame(folder: Path, number: int, storage: Storage) -> NDArray[np.integer[Any]]:
    """Stored values of a frame that was decoded, integer array (rows, columns).

    Raises
    ------
    DamagedError
        When it could not be decoded.
    """
    path = folder / f"{number}.npy"
    if not path.exists():
        raise DamagedError(f"the {UID(storage.syntax).name} pixel data cannot be decoded")
    values: NDArray[np.integer[Any]] = np.load(path)
    path.unlink()
    if values.shape != (storage.rows, storage.columns) or not np.issubdtype(values.dtype, np.integer):
        raise DamagedError("the pixel data is not what the header says")
    return values


def check_codestream(data: bytes, storage: Storage) -> None:
    """Refuse a codestream whose own size differs from the header's: decoders allocate by it."""
    if storage.syntax == RLE:
        offsets = np.frombuffer(data[:64].ljust(64, b"\0"), "<u4")
        segments = int(offsets[0])
        used = offsets[1 : segments + 1].astype(np.int64)
        good = len(data) > 64 and segments == storage.allocated // 8 and used[0] == 64
        if not good or (np.diff(used) <= 0).any() or used[-1] >= len(data):
            raise DamagedError("the RLE pixel data is damaged")
        return
    # Decoders fill what is missing from a codestream with grey and say nothing.
    if data.rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise DamagedError("the compressed pixel data is cut short")
    found = _jpeg_2000_size(data) if storage.syntax in JPEG_2000 else _jpeg_size(data)
    if found != (storage.rows, storage.columns, 1):
        raise DamagedError("the compressed pixel data is damaged or of another size than its header")


def _jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of a JPEG or JPEG-LS codestream; None when it is damaged."""
    place = 2
    if data[:2] != b"\xff\xd8":
        return None
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        # Start of frame: C0..CF but for tables (C4), reserved (C8) and arithmetic conditioning (CC); JPEG-LS F7.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows = int.from_bytes(data[place + 5 : place + 7], "big")
            columns = int.from_bytes(data[place + 7 : place + 9], "big")
            if not 2 <= data[place + 4] <= 16:  # bits a value
                return None
            return rows, columns, data[place + 9]
        place += 2 + max(length, 2)
    return None


def _jpeg_2000_size(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of a JPEG 2000 codestream; None when it is damaged."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)  # some writers put the codestream in a JP2 file
    if start < 0 or len(data) < start + 42:
        return None
    width, height, left, top = np.frombuffer(data, ">u4", 4, start + 8).astype(np.int64).tolist()
    tile_width, tile_height = np.frombuffer(data, ">u4", 2, start + 24).tolist()
    bits = (data[start + 42] & 0x7F) + 1 if len(data) > start + 42 else 0
    if tile_width == 0 or tile_height == 0 or not 1 <= bits <= 16:
        return None
    # Decoders keep some kilobytes a tile, before they look whether the data is there.
    if -(-width // tile_width) * -(-height // tile_height) > _MAX_TILES:
        return None
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    return height - top, width - left, components
