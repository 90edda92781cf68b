"""Rival methods, each a `segmentation.training.recipe.Rival`; by name in `segmentation.methods`."""
