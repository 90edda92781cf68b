"""Cross-validation by patient; docs/evaluation.md."""
