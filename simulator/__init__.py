"""Lesion progression: series, augmentation, phantom cohort and forecast."""
