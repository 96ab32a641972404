"""The tables of a sweep: one row per setting in CSV, Markdown and LaTeX, one row per run in CSV."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import yaml

from healing_mnist.config import CONF, incidental, key_of
from healing_mnist.files import as_csv, atomic_write
from healing_mnist.sweeps.points import REPEATS, SEED, value_of
from healing_mnist.sweeps.results import Results, Setting, spread


class Table(NamedTuple):
    """A table for people: columns, rows, and the number of the best row."""

    head: list[str]
    rows: list[dict[str, str]]
    best: int | None


def write(results: Results) -> None:
    """Write table.csv, table.md, table.tex and runs.csv into the sweep's folder, and best.yaml once there is a best."""
    folder = results.folder
    atomic_write(folder / "table.md", markdown(results))
    atomic_write(folder / "table.tex", latex(table(results)))
    atomic_write(folder / "table.csv", as_csv(setting_rows(results)))
    atomic_write(folder / "runs.csv", as_csv(run_rows(results)))
    if results.best():
        atomic_write(folder / "best.yaml", best_yaml(results))


def table(results: Results, metrics: Sequence[str] = ()) -> Table:
    """One row per setting: ``mean ± spread``, columns that say nothing left out.

    Its columns are `metrics`, else those the sweep names, else the objective and all of the test set's.

    The report's figure stands beside each metric it gives; listed sweeps keep their order, searches go by objective.
    """
    definition = results.definition
    settings = results.settings()
    if definition.method != "grid":
        worst = float("inf") if definition.direction == "minimize" else float("-inf")
        settings.sort(
            key=lambda s: worst if (v := s.mean(definition.objective)) is None else v,
            reverse=definition.direction == "maximize",
        )
    reported = {name: True for row in definition.report for name in row if name not in definition.varied}
    wanted = [name for name in results.distinct_metrics(reported) if name in reported or not name.startswith("val/")]
    asked = list(metrics or definition.metrics)
    wanted = list(dict.fromkeys([definition.objective, *(asked or wanted)]))
    rows = []
    for setting in settings:
        row = {key: "null" if value is None else shown(value) for key, value in setting.point.items()}
        row |= {"runs": str(setting.count("finished"))}
        row |= {state: str(setting.count(state)) for state in ("collapsed", "pruned", "failed", "unfinished")}
        epochs = [run.epoch for run in setting.runs if run.state == "finished" and run.epoch is not None]
        row["best epoch"] = " to ".join(dict.fromkeys(shown(e) for e in (min(epochs), max(epochs)))) if epochs else ""
        for name in wanted:
            row[name] = with_spread(setting.values(name))
            if name in reported:
                row[f"{name} (report)"] = shown(report_of(setting, definition.report).get(name))
        rows.append(row)
    cells = {column: [row[column] for row in rows if row[column]] for column in (rows[0] if rows else [])}
    judged = {definition.objective, definition.objective.replace("val/", "test/", 1)}  # also where all are equal
    head = [
        column
        for column, texts in cells.items()
        if len(set(texts)) > 1 or (len(texts) == 1 and texts != ["0"]) or (texts and column in judged.union(asked))
    ]
    best = results.best()
    chosen = next((i for i, setting in enumerate(settings) if best and setting.point == best.point), None)
    return Table(head, rows, chosen if len(rows) > 1 else None)


def report_of(setting: Setting, report: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The report's figures for a setting: those of the row that agrees with it in every setting it names."""
    for row in report:
        named = {key: value for key, value in row.items() if key in setting.point}
        if named and all(_same(setting.point[key], value) for key, value in named.items()):
            return {key: value for key, value in row.items() if key not in named}
    return {}


def _same(a: Any, b: Any) -> bool:
    return a == b or str(a) == str(b)


def setting_rows(results: Results) -> list[dict[str, Any]]:
    """Numbers of every setting: mean, spread and count of every metric, and the report's."""
    rows = []
    for setting in results.settings():
        row: dict[str, Any] = {**setting.point}
        row |= {state: setting.count(state) for state in ("finished", "collapsed", "pruned", "failed", "unfinished")}
        for name in results.metric_names():
            row |= {name: setting.mean(name), f"{name} sd": setting.spread(name)}
        row |= {f"{name} (report)": value for name, value in report_of(setting, results.definition.report).items()}
        rows.append(row)
    return rows


def run_rows(results: Results) -> list[dict[str, Any]]:
    """Numbers of every run, the failed and the collapsed ones too."""
    return [
        {"job": run.name, "state": run.state, **run.point, "best epoch": run.epoch, **run.metrics}
        for run in results.runs.values()
    ]


def markdown(results: Results) -> str:
    """The table with its title, what it was made of, and how many runs were left out."""
    definition = results.definition
    lines = [f"# {definition.name}", "", *([definition.note, ""] if definition.note else []), caption(results), ""]
    return "\n".join([*lines, *markdown_lines(table(results))]) + "\n"


def markdown_lines(table: Table) -> list[str]:
    """The table alone, its best row in bold, but for the report's figures."""
    lines = ["| " + " | ".join(table.head) + " |", "|" + "---|" * len(table.head)]
    for i, row in enumerate(table.rows):
        bold = _bold(table, i)
        cells = [f"**{row[column]}**" if column in bold else row[column] for column in table.head]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _bold(table: Table, place: int) -> set[str]:
    """The columns of this row that stand in bold."""
    if place != table.best:
        return set()
    return {column for column in table.head if table.rows[place][column] and not column.endswith("(report)")}


def caption(results: Results) -> str:
    """One paragraph: what was run, what counts, what was left out."""
    definition = results.definition
    better = "lowest" if definition.direction == "minimize" else "highest"
    points = [run.point for run in results.runs.values()]
    first = points[0] if points else {}  # what is the same in all, by choice or by chance, has no column
    same = [f"{key}={shown(first[key])}" for key in first if all(point.get(key) == first[key] for point in points)]
    said = [override for override in definition.fixed if not incidental(override)]
    return " ".join(
        [
            f"`python train.py {shlex.join([*said, *same])}`.",
            *counted(results),
            "In each run the epoch best on validation was kept and tested once; settings are compared by "
            f"{definition.objective} (validation), the {better} in bold.",
        ]
    )


def counted(results: Results) -> list[str]:
    """Sentences: how many runs with which seeds and folds, and how many were left out."""
    runs = [run for run in results.runs.values() if run.state == "finished"]
    parts = [f"{len(runs)} finished run{'s' * (len(runs) != 1)}."]
    drawn = {plural: sorted({str(run.point.get(key)) for run in runs}) for key, plural in REPEATS.items()}
    over = [f"{plural} {', '.join(values)}" for plural, values in drawn.items() if len(values) > 1]
    if over:
        parts.append(f"Mean ± standard deviation over {' and '.join(over)}.")
    for state, why in (
        ("collapsed", "collapsed (predictions empty or the same for every input), set aside"),
        ("pruned", "stopped early by the search, set aside"),
        ("failed", "failed"),
        ("unfinished", "not finished yet"),
    ):
        if number := results.count(state):
            parts.append(f"{number} of {len(results.runs)} runs {why}.")
    if again := len(results.runs) - len(results.distinct()):
        parts.append(f"{again} drew a point again, which counts once.")
    return parts


def latex(table: Table) -> str:
    """A booktabs table, in bold as in Markdown."""
    lines = [rf"\begin{{tabular}}{{{'l' * len(table.head)}}}", r"\toprule"]
    lines += [" & ".join(map(_escaped, table.head)) + r" \\", r"\midrule"]
    for i, row in enumerate(table.rows):
        bold = _bold(table, i)
        cells = [rf"\textbf{{{_escaped(row[c])}}}" if c in bold else _escaped(row[c]) for c in table.head]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    # A bracket that begins a row would be taken for an argument of the row before.
    special = {
        "[": "{[}",
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    return "".join(special.get(c, f"\\{c}" if c in "_%&#${}" else c) for c in text)


def shown(value: Any) -> str:
    """Four digits of a number, all of a whole one below a million; nothing for None."""
    if isinstance(value, float):
        return f"{value:.{6 if value.is_integer() else 4}g}"
    return "" if value is None else str(value)


def with_spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation (with n - 1) as text; the mean alone of one value, nothing for none."""
    if not values:
        return ""
    return shown(mean(values)) + (f" ± {deviation:.2g}" if (deviation := spread(values)) is not None else "")


def best_yaml(results: Results) -> str:
    """The best setting as a file for conf/best: ``python train.py experiment=... best=<its name>``.

    What all runs of the sweep shared is part of it, but for experiment, data and seed, which its header says.
    """
    definition, best = results.definition, results.best()
    # All images train the best setting: of folds there are several only to find it.
    shared = [o for o in definition.fixed if not incidental(o) and key_of(o) != "data.folds"]
    settings = {
        key: value_of(value)
        for key, value in (override.split("=", 1) for override in shared if "=" in override)
        if key_of(key).split(".")[0].split("/")[0] not in ("experiment", "data", SEED) and key != "trainer"
    } | best.point
    groups = {key: value for key, value in settings.items() if "." not in key and (CONF / key).is_dir()}
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in groups:
            _put(nested, key.lstrip("+~").split("."), value)
    tried = sum(setting.count("finished") > 0 for setting in results.settings())
    repeats = f", the mean of {best.count('finished')} runs" if best.count("finished") > 1 else ""
    score = f"{definition.objective} {shown(best.mean(definition.objective))}"
    lines = [
        "# @package _global_",
        f"# Best of {tried} settings of the sweep '{definition.name}' by {score} on validation{repeats}.",
        f"#   python train.py {shlex.join(shared)}",
    ]
    earlier = groups.pop("best", None)
    chosen = [f"  - override /{key}: {value}" for key, value in groups.items()]
    if earlier or chosen:
        lines += ["defaults:", *([f"  - {earlier}"] if earlier else []), *chosen]
    return "\n".join(lines) + "\n" + (yaml.safe_dump(nested, sort_keys=False) if nested else "")


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value
