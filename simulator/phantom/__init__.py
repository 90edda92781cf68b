"""A phantom thoracic CT cohort with lesions over time and known truth."""

from simulator.phantom.cohort import CohortSummary, make_cohort

__all__ = ["CohortSummary", "make_cohort"]
