"""Three-way segmentation: five-slice views, 2D U-Nets, training, prediction, metrics, quantification.

DOI 10.1109/TMI.2020.3001810, section III-D.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# PyTorch's OpenMP threads spin while they wait. Where the cores are shared (a virtual machine, a second job) that
# makes two threads 10 to 20 times slower than one: measured 85 ms against 9 ms a slice. OpenMP reads this once,
# when PyTorch is first imported; what the user set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from segmentation.evaluation.cohort_scores import evaluate
    from segmentation.methods import load_segmenter
    from segmentation.model import ThreeWaySegmenter
    from segmentation.results.segment_image import segment_image
    from segmentation.training import TrainingOptions, train

__all__ = ["ThreeWaySegmenter", "TrainingOptions", "evaluate", "load_segmenter", "segment_image", "train"]

_MODULES = {
    "ThreeWaySegmenter": "segmentation.model",
    "TrainingOptions": "segmentation.training",
    "evaluate": "segmentation.evaluation.cohort_scores",
    "load_segmenter": "segmentation.methods",
    "segment_image": "segmentation.results.segment_image",
    "train": "segmentation.training",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: `lungcast --help` must not wait for PyTorch and Numba.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
