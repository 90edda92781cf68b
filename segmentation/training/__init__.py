"""Training of a method's networks, one after the other [paper III-D]; docs/training.md."""

from segmentation.training.items import TrainingItem, items_of
from segmentation.training.options import TrainingOptions
from segmentation.training.run import train

__all__ = ["TrainingItem", "TrainingOptions", "items_of", "train"]
