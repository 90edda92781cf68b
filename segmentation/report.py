"""A report as one folder that opens offline: index.html and its figures, nothing from outside."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path

from standard_space.files import write_text
from standard_space.version import lungcast_version

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption, footer { color: #666; font-size: 0.9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.9rem; text-align: right; border-bottom: 1px solid #9994; }
th:first-child, td:first-child { text-align: left; }
@media (prefers-color-scheme: dark) { figcaption, footer { color: #aaa; } }
"""


@dataclass
class Section:
    """One part of a report: a heading, a sentence or two, figures with captions, an optional table.

    `figures` are (file name beside index.html, caption); `table` is a header row and its rows.
    """

    heading: str
    text: str
    figures: list[tuple[str, str]] = field(default_factory=list)
    table: list[list[str]] | None = None


def write_report(folder: str | Path, title: str, lead: str, sections: list[Section]) -> Path:
    """Write `index.html` atomically into a folder that already holds the figures; returns its path."""
    body = [f"<h1>{_e(title)}</h1>", f"<p>{_e(lead)}</p>"]
    for section in sections:
        body += [f"<h2>{_e(section.heading)}</h2>", f"<p>{_e(section.text)}</p>"]
        for name, caption in section.figures:
            body.append(
                f'<figure><img src="{_e(name)}" alt="{_e(caption)}" loading="lazy">'
                f"<figcaption>{_e(caption)}</figcaption></figure>"
            )
        if section.table:
            body.append(_table(section.table))
    footer = (
        f"lungcast {lungcast_version()}. For research, not for diagnosis. Method: Zhou et al., IEEE TMI 2020, "
        "doi:10.1109/TMI.2020.3001810."
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_e(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + f"\n<footer><p>{_e(footer)}</p></footer>\n</body></html>\n"
    )
    path = Path(folder) / "index.html"
    write_text(path, page)
    return path


def _table(rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{_e(cell)}</th>' for cell in rows[0])
    lines = ["<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _e(text: str) -> str:
    return html.escape(text, quote=True)
