"""Cohorts as real files for other programs: NIfTI, nnU-Net v2 raw datasets, MONAI datalists (docs/export.md)."""
