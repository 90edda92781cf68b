"""What MkDocs must know of this repository: pages that lie outside docs/, and Markdown as GitHub reads it."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = ("standard_space", "simulator", "segmentation")
_OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
_AS_THEY_ARE = ("LICENSE", "CITATION.cff")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository's root, and the page of all public names."""
    for name, page in _OUTSIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    for name in _AS_THEY_ARE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference.md", content=names_page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to the root's pages as the site has them; blank lines that GitHub does not need and MkDocs does."""
    for name, page in _OUTSIDE.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    return with_blank_lines(markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Of notebooks: links to pages as the site has them; no scripts that would fetch Mermaid and RequireJS, which
    nothing here uses."""
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    output = re.sub(r'href="\.\./(\w+)\.md(#[^"]*)?"', r'href="../../\1/\2"', output)
    output = re.sub(r'<script[^>]*src=""[^>]*>\s*</script>', "", output)
    inside = r"(?:(?!</script>).)*?"
    return re.sub(rf"<script\b[^>]*>{inside}https://cdnjs\.{inside}</script>", "", output, flags=re.S)


def with_blank_lines(markdown: str) -> str:
    """Blank lines before lists and tables that follow a line of text, and after comments; not inside code."""
    lines: list[str] = []
    fenced = False
    for line in markdown.split("\n"):
        fence = line.startswith("```")
        before = lines[-1] if lines else ""
        if not fenced and before.strip() and not before.startswith("    "):
            begins_list = bool(re.match(r"([-*]|\d+\.) ", line)) and not re.match(r"([-*]|\d+\.) |  ", before)
            begins_table = line.startswith("|") and not before.startswith("|")
            if begins_list or begins_table or before.rstrip().endswith("-->"):
                lines.append("")
        lines.append(line)
        fenced ^= fence
    return "\n".join(lines)


def names_page() -> str:
    """Every public name of the packages with its docstring, for mkdocstrings."""
    parts = ["# Names", "What `from PACKAGE import NAME` offers; [examples](api.md).", ""]
    for package in PACKAGES:
        parts += [f"## {package}", ""]
        for name, module in import_module(package)._MODULES.items():
            parts += [f"::: {module}.{name}", ""]
    return "\n".join(parts)
