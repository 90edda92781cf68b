"""An image in, its segmentation on its own grid out: masks, numbers, pictures; docs/segmentation.md."""
