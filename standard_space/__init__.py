"""Any chest CT to the standard embedding space and back (DESIGN 2; paper III-B)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from standard_space.cohort import Cohort
    from standard_space.embedding import embed
    from standard_space.errors import LungcastError
    from standard_space.grid import StandardGrid
    from standard_space.image import CTImage, read_image, read_mask, write_volume
    from standard_space.ingest import EmbedSettings, embed_cohort
    from standard_space.restore import restore_mask, restore_volume
    from standard_space.scan import Scan
    from standard_space.window import Window

__all__ = [
    "CTImage",
    "Cohort",
    "EmbedSettings",
    "LungcastError",
    "Scan",
    "StandardGrid",
    "Window",
    "embed",
    "embed_cohort",
    "read_image",
    "read_mask",
    "restore_mask",
    "restore_volume",
    "write_volume",
]

_MODULES = {
    "CTImage": "standard_space.image",
    "Cohort": "standard_space.cohort",
    "EmbedSettings": "standard_space.ingest",
    "LungcastError": "standard_space.errors",
    "Scan": "standard_space.scan",
    "StandardGrid": "standard_space.grid",
    "Window": "standard_space.window",
    "embed": "standard_space.embedding",
    "embed_cohort": "standard_space.ingest",
    "read_image": "standard_space.image",
    "read_mask": "standard_space.image",
    "restore_mask": "standard_space.restore",
    "restore_volume": "standard_space.restore",
    "write_volume": "standard_space.image",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: `lungcast --help` must not wait for PyTorch and Numba.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
