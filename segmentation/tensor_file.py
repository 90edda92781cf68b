"""Files of tensors and plain values: written whole or not at all, read without running anything in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from standard_space.errors import DataError
from standard_space.files import write_bytes


def write_tensors(path: str | Path, content: Any) -> None:
    """Write atomically; the same content gives the same bytes.

    Raises
    ------
    OSError, OutOfSpaceError
        The file cannot be written.
    """
    # Saved to a path, the file would hold its temporary name.
    written = io.BytesIO()
    torch.save(content, written)
    write_bytes(path, written.getbuffer())


def read_tensors(path: str | Path, what: str, *, remedy: str | None = None) -> Any:
    """Read to the CPU, with ``weights_only=True``.

    Parameters
    ----------
    path : str or Path
    what : str
        For the message: "the checkpoint is damaged".
    remedy : str, optional
        For the message.

    Raises
    ------
    DataError
        The file is damaged, or holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # an unpickler raises whatever the damage leads it to
        raise DataError(what, where=path, remedy=remedy) from error
