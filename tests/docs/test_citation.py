from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_citation_names_this_version_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.M).group(1) == project["version"]  # type: ignore[union-attr]
    assert re.search(r"^license: (.+)$", text, re.M).group(1) == project["license"]  # type: ignore[union-attr]
    assert "10.1109/TMI.2020.3001810" in text
