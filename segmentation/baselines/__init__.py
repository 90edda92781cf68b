"""Rival methods, each a `segmentation.training.recipe.Recipe`; by name in `segmentation.methods`."""
