from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from segmentation.viewer import site
from segmentation.viewer.site import ASSETS, asset, write_site
from standard_space.errors import DataError
from tests.segmentation.viewer.test_server import a_case


def test_a_site_is_whole_and_asks_nothing_of_the_internet(tmp_path: Path) -> None:
    failures = write_site(tmp_path, [a_case([])], title="lungcast: </script>", most=64)
    assert list(failures) == ["P1 b"]
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for linked in re.findall(r'(?:src|href)="([^"]+)"', page):
        if linked != "data:,":
            assert (tmp_path / linked).is_file(), linked
    assert "http" not in page
    for name in ASSETS:
        assert (tmp_path / "assets" / name).read_bytes() == asset(name)
    index = (tmp_path / "data" / "index.js").read_text(encoding="utf-8")
    told = json.loads(index.removeprefix("lungcast.index(").rstrip(";\n)"))
    assert told["served"] is False
    assert told["title"] == "lungcast: </script>"
    assert "damaged" in (tmp_path / "data" / "case0-frame1.js").read_text(encoding="utf-8")


def test_the_same_cases_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_site(tmp_path / name, [a_case([])], title="t", most=64)
    files = sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()
    )
    assert len(files) == 9
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_another_niivue_than_the_vendored_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "NIIVUE_SHA256", "0" * 64)
    with pytest.raises(DataError, match="not the one that came with lungcast"):
        asset("niivue.umd.js")


def test_the_page_s_own_scripts_name_no_address() -> None:
    for name in ("index.html", "viewer.js", "curves.js", "viewer.css"):
        text = asset(name).decode()
        assert re.findall(r"https?://(?!www\.w3\.org/)", text) == [], name
