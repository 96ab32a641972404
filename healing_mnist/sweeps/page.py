"""One HTML page of a sweep that needs nothing beside itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path

from healing_mnist.files import atomic_write
from healing_mnist.sweeps.results import Results
from healing_mnist.sweeps.tables import best_yaml, caption, table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
.wide { overflow-x: auto }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
tr.best { font-weight: 600; background: #eef6ff }
img { max-width: 100%; height: auto }
pre { background: #f6f6f6; padding: .7rem; overflow-x: auto }
.failed { color: #bd1f01 }
"""


def write(results: Results, figures: Mapping[str, Path]) -> Path:
    """Write ``index.html`` with table, plots (title -> PNG), best settings and what became of each run."""
    definition = results.definition
    parts = [f"<h1>{_text(definition.name)}</h1>"]
    parts += [f"<p>{_text(note)}</p>" for note in (definition.note, caption(results).replace("`", "")) if note]
    parts += [f"<div class=wide>{_table(results)}</div>"]
    for title, path in figures.items():
        picture = base64.b64encode(path.read_bytes()).decode()
        parts += [f"<h2>{_text(title)}</h2>", f'<img alt="{_text(title)}" src="data:image/png;base64,{picture}">']
    if results.best():
        parts += ["<h2>Best settings</h2>", f"<pre>{_text(best_yaml(results))}</pre>"]
    parts += ["<h2>What varied</h2><ul>"]
    parts += [f"<li><code>{_text(key)}</code>: {_text(space)}</li>" for key, space in definition.varied.items()]
    parts += ["</ul>", *_troubles(results)]
    head = f'<meta charset="utf-8"><title>{_text(definition.name)}</title><style>{STYLE}</style>'
    path = results.folder / "index.html"
    atomic_write(path, f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n")
    return path


def _table(results: Results) -> str:
    head, rows, best = table(results)
    lines = ["<tr>" + "".join(f"<th>{_text(column)}</th>" for column in head) + "</tr>"]
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{_text(row[column])}</td>" for column in head)
        lines.append(f"<tr{' class=best' * (i == best)}>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _troubles(results: Results) -> list[str]:
    """A list of the runs that the table leaves out."""
    out = [run for run in results.runs.values() if run.state != "finished"]
    if not out:
        return []
    lines = [f"<li><code>{_text(run.name)}</code>: {run.state} {_text(run.message)}</li>" for run in out]
    return ["<h2>Runs left out</h2><ul>", *lines, "</ul>"]


def _text(value: object) -> str:
    return html.escape(str(value))
