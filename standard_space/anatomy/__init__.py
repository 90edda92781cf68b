"""Lungs, their sides, airways and vessels by classical operations; no weights are downloaded."""

from standard_space.anatomy.find import WORKING_SPACING_MM, Anatomy, find_anatomy, refine_anatomy

__all__ = ["WORKING_SPACING_MM", "Anatomy", "find_anatomy", "refine_anatomy"]
