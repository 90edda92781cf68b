"""Scores of a model on a cohort, and comparisons of models; docs/evaluation.md."""
