"""The site, built strictly, with the notebooks executed in it (marker `docs`), and what holds without building."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a broken link, a page that is in no menu or a failing cell ends the build.

    `make docs` keeps it: LUNGCAST_SITE names its folder.
    """
    kept = os.environ.get("LUNGCAST_SITE")
    out = tmp_path_factory.mktemp("site") if kept is None else ROOT / kept
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "default"}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, f"{built.stdout}\n{built.stderr}"
    return out


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text(encoding="utf-8")


@pytest.mark.docs
@pytest.mark.parametrize("notebook", [path.stem for path in NOTEBOOKS])
def test_a_notebook_is_there_with_its_figures(site: Path, notebook: str) -> None:
    html = page(site, f"notebooks/{notebook}")
    cells = json.loads((ROOT / f"docs/notebooks/{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    assert html.count("data:image/") >= 3
    assert ("data:image/gif" in html) == (notebook == "progression")
    assert "Traceback" not in html
    assert "&lt;Figure size" not in html.replace('alt="', "")  # a figure was drawn, not named
    assert "display.Image object" not in html  # and a film as well
    assert html.count("jp-CodeCell") >= sum(cell["cell_type"] == "code" for cell in cells)


@pytest.mark.docs
def test_the_site_asks_nobody_else_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|img|iframe|source|link|video)\b[^>]*>", html):
            if re.search(r'rel="?(?:canonical|next|prev|me)"?', tag):
                continue
            assert not re.search(r'(?:src|href)="?(?:https?:)?//', tag), f"{path}: {tag}"
            assert 'src=""' not in tag, path
        assert not re.search(r"""\bimport\(\s*["']https?:""", html), path
        assert not re.search(r"""url\(\s*["']?(?:https?:)?//""", html), path


@pytest.mark.docs
def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    names = {path: set(re.findall(r"""\s(?:id|name)="?([^"\s>]+)""", html)) for path, html in pages.items()}
    followed = 0
    for path, html in pages.items():
        if path.name == "404.html":  # its links are those of the site's own address
            continue
        for link in re.findall(r"""\s(?:href|src)="([^"]*)\"""", html):
            if re.match(r"(?:https?:|mailto:|data:|javascript:)", link) or not link:
                continue
            place, _, fragment = unescape(link).partition("#")
            there = (path.parent / unquote(place)).resolve() if place else path.resolve()
            there = there / "index.html" if there.is_dir() else there
            assert there.exists(), f"{path.relative_to(site)}: {link}"
            followed += 1
            if fragment and there.suffix == ".html" and fragment != "__skip":
                assert unquote(fragment) in names[there], f"{path.relative_to(site)}: {link}"
    assert followed > 500


@pytest.mark.docs
def test_markdown_comes_out_as_on_github(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.S)
        assert "<p>|" not in text, path
        assert not re.search(r"^- ", text, flags=re.M), path
    assert page(site, "").count("<table>") >= 2
    assert "ThreeWaySegmenter" in page(site, "reference")


def site_pages() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.docs
def test_blank_lines_are_put_where_mkdocs_needs_them() -> None:
    pages = site_pages()
    assert (
        pages.with_blank_lines("text\n- one\n- two\n  more\n- three")
        == "text\n\n- one\n- two\n  more\n- three"
    )
    assert (
        pages.with_blank_lines("<!-- made -->\n| a |\n|---|\n| b |") == "<!-- made -->\n\n| a |\n|---|\n| b |"
    )
    code = "```\ntext\n- one\n```"
    assert pages.with_blank_lines(code) == code
    indented = "text\n\n    run\n    - one\n    | a |"
    assert pages.with_blank_lines(indented) == indented


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_outputs_that_could_be_of_another_version(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "research, not for diagnosis" in "".join(content["cells"][0]["source"]).replace("\n", " ")


def test_there_are_three_notebooks_and_every_page_is_in_the_menu() -> None:
    assert len(NOTEBOOKS) == 3
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    for path in [*(ROOT / "docs").glob("*.md"), *NOTEBOOKS]:
        assert f": {path.relative_to(ROOT / 'docs')}" in menu, path.name
