"""The document of a study: a section for each part, made from the run folders alone."""

from __future__ import annotations

import csv
import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from healing_mnist.files import atomic_write, read_json
from healing_mnist.sweeps.results import Results
from healing_mnist.sweeps.tables import Table, counted, markdown_lines, shown, table, with_spread

if TYPE_CHECKING:
    from healing_mnist.sweeps.study import Part, Setup

MARK = re.compile(r"^<!-- part (\S+) -->$", re.MULTILINE)
log = logging.getLogger(__name__)


def write(setup: Setup, parts: Sequence[Part]) -> None:
    """Write the sections of these parts again; one whose runs are not here keeps the numbers the document has."""
    path = setup.document
    kept = sections(path.read_text()) if path.exists() else {}
    for part in parts:
        results = setup.results(part)
        if results is not None and results.count("finished"):
            kept[part.name] = section(setup, part, results).strip()
        elif part.name in kept:
            kept[part.name] = _reworded(kept[part.name], part)
    texts = [f"<!-- part {part.name} -->\n{kept[part.name]}" for part in setup.study.parts if part.name in kept]
    missing = [part.title for part in setup.study.parts if part.name not in kept]
    head = [f"# {setup.study.title}", setup.study.intro.strip()]
    if missing:
        head.append("Not run yet: " + "; ".join(missing) + ".")
    atomic_write(path, "\n\n".join([*head, *texts]) + "\n")


def sections(text: str) -> dict[str, str]:
    """Name of each part -> its text in a document that `write` wrote."""
    pieces = MARK.split(text)[1:]
    return {name: text.strip() for name, text in zip(pieces[::2], pieces[1::2], strict=True)}


def section(setup: Setup, part: Part, results: Results) -> str:
    """Title, command, table, what the report says, where and why it differs, figures."""
    lines = [f"## {part.title}", "", " ".join(filter(None, [_command(setup, part, results), *_how(results)])), ""]
    made = from_csv(results, **part.table) if part.table else table(results, part.metrics)
    lines += markdown_lines(made if part.ranked else made._replace(best=None))
    lines += _words(part)
    taken: set[str] = set()
    for title, pattern in part.figures.items():
        if picture := _copied(setup, part, results, pattern, taken):
            lines += ["", f"![{title}]({picture})"]
        elif not setup.small:  # which draws little
            log.warning("%s: no figure is %s", part.name, results.folder / pattern)
    return "\n".join(lines) + "\n"


def from_csv(
    results: Results,
    file: str,
    row: str,
    values: Sequence[str],
    report: Mapping[Any, float] | None = None,
    where: Mapping[str, Any] | None = None,
    rows: Sequence[Any] | None = None,
    by: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """A table of what lies in the same CSV file of every run: mean and spread over the seeds of each setting.

    Args:
        file: below each run's folder.
        row: column of the file; each of its values is a row of the table.
        values: columns of the file with numbers; each is a column of the table for each setting.
        report: a figure for each row, put beside.
        where: only the lines of the file with these values.
        rows: only these values of `row`.
        by: a further column of the file and the values of it that get a column of the table each.
    """
    split, parts = next(iter((by or {}).items()), ("", [""]))
    only = rows and [_number(wanted) for wanted in rows]
    told = {_number(key): figure for key, figure in (report or {}).items()}
    table: dict[str, dict[str, list[float]]] = {}
    settings = results.settings()
    several = len(settings) > 1
    for setting in settings:
        name = ", ".join(shown(value) for value in setting.point.values()) if several else ""
        for run in setting.runs:
            path = results.folder / run.name / results.evaluation / file
            if run.state != "finished" or not path.exists():
                continue
            for line in csv.DictReader(path.read_text().splitlines()):
                key, part = _number(line[row]), line.get(split, "")
                wanted = (not only or key in only) and part in parts
                if wanted and all(line[k] == str(v) for k, v in (where or {}).items()):
                    for value in filter(line.get, values):
                        names = [name, part, value if len(values) > 1 else ""]
                        column = ": ".join(filter(None, names)) or value
                        table.setdefault(key, {}).setdefault(column, []).append(float(line[value]))
    head = list(dict.fromkeys(column for cells in table.values() for column in cells))
    lines = [
        {row: key}
        | {column: with_spread(cells.get(column, [])) for column in head}
        | ({"the report": shown(told.get(key))} if told else {})
        for key, cells in table.items()
    ]
    return Table([row, *head, *(["the report"] if told else [])], lines, None)


def _words(part: Part) -> list[str]:
    said = {"The report": part.says, "Difference": part.remark}
    return [line for head, text in said.items() if text for line in ("", f"**{head}.** {text.strip()}")]


def _reworded(text: str, part: Part) -> str:
    """A section with the words that the study has for it now."""
    _, *lines = text.splitlines()
    end = max(i for i, line in enumerate(lines) if line.startswith("|")) + 1
    pictures = [line for line in lines[end:] if line.startswith("![")]
    return "\n".join([f"## {part.title}", *lines[:end], *_words(part), *(x for p in pictures for x in ("", p))])


def _number(text: Any) -> str:
    """Numbers in one way of writing, so that 0.30 is 0.3."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return str(text)


def _command(setup: Setup, part: Part, results: Results) -> str:
    owner = setup.owner(part)
    folder = f"`{setup.output_dir}/{owner.runs}`" if owner.runs else f"`{setup.folder(part)}`"
    again = f"`python evaluate.py run=RUN {shlex.join(setup.evaluation(part))}` of the runs in {folder}."
    if part.of:
        return again if part.evaluate else f"The runs in {folder} again."
    if part.runs:
        command = f"The runs in {folder}, which others above needed and made."
    else:
        said = results.definition.command or setup.arguments(part)
        planned = {*setup.planned(part), "trainer=cpu"}
        command = f"`python sweep.py {shlex.join(said)} hydra.sweep.dir={setup.folder(part)}`."
        if other := [f"`{word}`" for word in said if word not in planned]:
            command += f" **Not as the study says, but with {', '.join(other)}.**"
    return f"{command} {again}" if part.evaluate else command


def _how(results: Results) -> list[str]:
    """Runs, seeds, choice of the epoch; machine and time."""
    runs = [run for run in results.runs.values() if run.state == "finished"]
    environments = [_json(results.folder / run.name / "environment.json") for run in runs]
    return [*counted(results), _machine([e for e in environments if e], trained=bool(results.evaluation))]


def _machine(environments: Sequence[Mapping[str, Any]], trained: bool = False) -> str:
    """Time and machine of the trainings; `trained` before something else was done with them."""
    if not environments:
        return ""
    minutes = [e["seconds"] / 60 for e in environments]
    machines = sorted({_where(environment["machine"]) for environment in environments})
    torches = ", ".join(sorted({e["packages"]["torch"] for e in environments}))
    took = f"{'Trained in ' * trained}{median(minutes):.1f} minutes a run (median)"
    return f"{took} on {' and '.join(machines)}, PyTorch {torches}; {sum(minutes):.0f} in all."


def _where(machine: Mapping[str, Any]) -> str:
    if machine.get("gpu"):
        return machine["gpu"]
    threads = machine["threads"]
    return f"{threads} thread{'s' * (threads > 1)} ({machine.get('cpu', machine['system'])})"


def _copied(setup: Setup, part: Part, results: Results, pattern: str, taken: set[str]) -> str | None:
    """Copy the first figure that matches beside the document; its path as the document names it.

    `taken` are names that the part's figures have already, and this one's is put to them.
    """
    found = sorted(results.folder.glob(pattern))
    if not found:
        return None
    name = f"{part.name}_{found[0].stem}"
    name += f"_{len(taken) + 1}" if name in taken else ""
    taken.add(name)
    place = setup.document.parent / "figures" / "results" / f"{name}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(place, found[0].read_bytes())
    return place.relative_to(setup.document.parent).as_posix()


def _json(path: Path) -> Any:
    return read_json(path) if path.exists() else None
