"""Progression on the fly in other libraries' pipelines; each module needs its own library (docs/on_the_fly.md)."""
