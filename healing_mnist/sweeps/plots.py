"""Plots of a sweep, drawn from its runs. Only finished runs count.

Every number is in runs.csv or table.csv, those of the learning curves in a CSV beside their picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import mean
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from healing_mnist.callbacks.curves import read as read_curves
from healing_mnist.callbacks.figures import COLORS, Table, save, styled, subplots, with_unit
from healing_mnist.sweeps.points import REPEATS
from healing_mnist.sweeps.results import Results, Run, Setting, spread
from healing_mnist.sweeps.tables import report_of, shown

MAX_METRICS = 3  # rows of a figure
STYLES = ("-", "--", ":", "-.")
WIDE = 50  # times the smallest value the largest is, where an axis is logarithmic
BARS = "bars: standard deviation over repeated runs"
Line = dict[str, dict[float, list[float]]]  # metric -> epoch -> its values in the finished runs of a setting
Epochs = tuple[list[Setting], list[Line]]  # the settings with finished runs, and a line of each


def write(results: Results) -> dict[str, Path]:
    """Draw what these results have something to show for; title -> PNG below ``figures/``."""
    if len([run for run in results.runs.values() if run.state == "finished"]) < 2:
        return {}
    epochs = over_epochs(results)
    drawn = {
        "Metrics over each setting": curves(results),
        "Learning curves": learning_curves(results, epochs),
        "Trade-off": trade_off(results),
        "Parallel coordinates": parallel_coordinates(results),
        "By category": boxes(results),
        "History of the search": history(results),
    }
    tables = {"Learning curves": epochs_table(*epochs)}
    paths = {}
    for title, figure in drawn.items():
        path = results.folder / "figures" / f"{title.lower().replace(' ', '_').replace('-', '_')}.png"
        if figure is None:
            path.unlink(missing_ok=True)
            path.with_suffix(".csv").unlink(missing_ok=True)
        else:
            save(path.parent, path.stem, figure, tables.get(title))
            paths[title] = path
    return paths


@styled
def curves(results: Results) -> Figure | None:
    """Metrics over each setting that varies: a line where the settings are listed, a cloud where they were searched."""
    keys, metrics = _keys(results), _metrics(results)
    if not keys or not metrics:
        return None
    figure, grid = subplots(len(metrics), len(keys), size=(4.0, 2.6), squeeze=False)
    listed = results.definition.method == "grid"
    for i, metric in enumerate(metrics):
        for j, key in enumerate(keys):
            axes = grid[i, j]
            if listed:
                _lines(axes, results, key, metric, legend=i == 0)
            else:
                runs = _runs(results, metric)
                places = _places(axes, [run.point[key] for run in runs], _log_drawn(results, key))
                heights = [run.metrics[metric] for run in runs]
                axes.scatter(places, heights, s=10)
                _log_if_wide(axes, "y", heights, factor=10)  # one bad trial would press all others flat
            axes.set(xlabel=key, ylabel=with_unit(metric))
            axes.grid(True)
    bars = f"\n{BARS}" if listed and _repeated(results) else ""
    figure.suptitle("\n".join(wrap(results.definition.name, 40)) + bars, fontsize=10)
    return figure


def _lines(axes: Axes, results: Results, key: str, metric: str, legend: bool) -> None:
    """One line for each combination of the other settings, with the spread over seeds, and the report's points."""
    settings = [s for s in results.settings() if s.mean(metric) is not None]
    places = dict(zip(map(id, settings), _places(axes, [s.point[key] for s in settings]), strict=True))
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        others = _named({k: v for k, v in setting.point.items() if k != key}) or "measured"
        groups.setdefault(others, []).append(setting)
    crowded = len(groups) > len(COLORS)
    words = {places[id(s)] for s in settings if not _number(s.point[key])}
    for others, members in groups.items():
        members.sort(key=lambda s: places[id(s)])
        points = [(places[id(s)], s.mean(metric), s.spread(metric) or 0.0) for s in members]
        color = COLORS[0] if crowded else None
        repeated = any(spread for _, _, spread in points)
        x, y, error = zip(*_apart(points, words), strict=True)
        axes.errorbar(
            x, y, error if repeated else None, marker="o", markersize=3.5, capsize=2, label=others, color=color
        )
    told = [(places[id(s)], report_of(s, results.definition.report).get(metric)) for s in settings]
    told = sorted({(x, y) for x, y in told if y is not None})
    if told:
        axes.plot(*zip(*_apart(told, words), strict=True), "--", marker="x", color="#717581", label="report")
    if legend and ((len(groups) > 1 and not crowded) or told):
        axes.legend(**{"loc": "upper left", "bbox_to_anchor": (1, 1)} if 4 < len(groups) <= len(COLORS) else {})


def _apart(points: Sequence[tuple[float, ...]], words: Collection[float]) -> list[tuple[float, ...]]:
    """Points of a line, with a gap before the first word behind numbers: no line leads from the one to the other."""
    first = next((i for i, point in enumerate(points) if point[0] in words), 0)
    gap = [(math.nan,) * len(points[0])] if first else []
    return [*points[:first], *gap, *points[first:]]


@styled
def learning_curves(results: Results, epochs: Epochs | None = None) -> Figure | None:
    """Losses and the objective over the epochs: a line a setting, the mean over its seeds in a band of their spread.

    `epochs` are those of `over_epochs`, where they are read already.
    """
    settings, lines = epochs or over_epochs(results)
    # A metric can stand under two names, but for sums in another order; a single epoch is no curve.
    distinct = {
        str([[f"{value:.4g}" for values in found.get(name, {}).values() for value in values] for found in lines]): name
        for name in dict.fromkeys(name for found in lines for name in found)
        if any(len(found.get(name, ())) > 1 for found in lines)
    }
    names = list(distinct.values())
    if not names:
        return None
    looks, told = _looks(results, settings)
    labels = [] if told or len(settings) < 2 else [_named(setting.point) for setting in settings]
    if spare := len(names) == 3:
        figure, panels = subplots(2, 2, size=(4.0, 2.7))
    else:
        wide = 0.065 * max(map(len, labels), default=0) / len(names)  # room for the legend
        figure, panels = subplots(1, len(names), size=(4.0 + wide, 2.9), squeeze=False)
    for axes, name in zip(panels.flat, names, strict=not spare):
        drawn = [found.get(name, {}) for found in lines]
        for epochs, look in zip(drawn, looks, strict=True):
            means = [mean(values) for values in epochs.values()]
            spreads = [spread(values) or 0.0 for values in epochs.values()]
            axes.plot(list(epochs), means, linewidth=1.2, **look)
            if any(spreads):
                band = np.subtract(means, spreads), np.add(means, spreads)
                axes.fill_between(list(epochs), *band, color=look["color"], alpha=0.15, linewidth=0)
        _log_if_wide(axes, "y", [v for epochs in drawn for values in epochs.values() for v in values], factor=5)
        axes.set(xlabel="epoch", ylabel=with_unit(name))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True)
    last = panels.flat[len(names) - 1]
    if spare:
        panels[1, 1].axis("off")
    if labels:
        panels[-1, -1].legend(last.lines, labels, loc="center left", bbox_to_anchor=(0 if spare else 1, 0.5))
    title = f"{results.definition.name}: learning curves"
    bands = "band: standard deviation over repeated runs" if _repeated(results) else ""
    figure.suptitle("\n".join(filter(None, [title, "; ".join(filter(None, [told, bands]))])), fontsize=10)
    return figure


def epochs_table(settings: list[Setting], lines: list[Line]) -> Table:
    """The numbers of `learning_curves`: of each setting, metric and epoch the mean and the spread over its runs."""
    return [
        {**setting.point, "metric": name, "epoch": epoch, "runs": len(values), "mean": mean(values)}
        | {"standard_deviation": "" if (found := spread(values)) is None else found}
        for setting, line in zip(settings, lines, strict=True)
        for name, epochs in line.items()
        for epoch, values in epochs.items()
    ]


def over_epochs(results: Results) -> Epochs:
    """What the runs have logged, read from the metrics.csv of each."""
    settings = [setting for setting in results.settings() if setting.count("finished")]
    lines: list[Line] = []
    for setting in settings:
        found: Line = {}
        for run in setting.runs:
            path = results.folder / run.name / "metrics.csv"
            if run.state == "finished" and path.is_file():
                panels = read_curves(path)
                for name in dict.fromkeys(("train/loss", "val/loss", results.definition.objective)):
                    split, _, metric = name.partition("/")
                    for epoch, value in panels.get(metric, {}).get(split, []):
                        found.setdefault(name, {}).setdefault(epoch, []).append(value)
        lines.append({name: dict(sorted(epochs.items())) for name, epochs in found.items()})
    return settings, lines


def _looks(results: Results, settings: Sequence[Setting]) -> tuple[list[dict[str, Any]], str]:
    """Colour and style of each setting's line, and what colours mean where there are too many for a legend."""
    if len(settings) <= len(COLORS):
        return [{"color": color} for color in COLORS[: len(settings)]], ""
    values = [list(dict.fromkeys(str(s.point[key]) for s in settings)) for key in _keys(results)]
    if len(values) == 2 and len(values[0]) <= len(COLORS) and len(values[1]) <= len(STYLES):
        first, second = _keys(results)
        return [
            {
                "color": COLORS[values[0].index(str(s.point[first]))],
                "linestyle": STYLES[values[1].index(str(s.point[second]))],
            }
            for s in settings
        ], ""
    objective = results.definition.objective
    shade = _ranks(np.array([setting.mean(objective) for setting in settings]))
    return [{"color": _map()(rank)} for rank in shade], f"coloured by the rank of {objective}"


@styled
def trade_off(results: Results) -> Figure | None:
    """Two test metrics against each other, a point a setting: of images and of classes where there are both.

    Of an accuracy its complement is drawn, the share of wrong answers, which can be spread over decades.
    """
    metrics = [name for name in _metrics(results) if name.startswith("test/")]
    if len(metrics) < 2:
        return None
    across, up = metrics[0], next((name for name in metrics[1:] if name.endswith("accuracy")), metrics[1])
    settings = [s for s in results.settings() if s.mean(across) is not None and s.mean(up) is not None]
    wrong = up.endswith("accuracy")
    heights = [1 - setting.mean(up) if wrong else setting.mean(up) for setting in settings]
    few = len(settings) <= len(COLORS)
    widest = max((len(_named(setting.point)) for setting in settings), default=0) if few else 0
    figure, axes = subplots(size=(5.0 + 0.065 * widest, 3.8))
    for i, (setting, height) in enumerate(zip(settings, heights, strict=True)):
        axes.errorbar(
            setting.mean(across),
            height,
            setting.spread(up),
            setting.spread(across),
            marker="o",
            linestyle="",
            capsize=2,
            color=COLORS[i if few else 0],
            label=_named(setting.point),
        )
    axes.set(xlabel=with_unit(across), ylabel="1 - " * wrong + with_unit(up))
    _log_if_wide(axes, "x", [setting.mean(across) for setting in settings], factor=5)
    _log_if_wide(axes, "y", heights, factor=5)
    bars = f"\n{BARS}" if _repeated(results) else ""
    axes.set_title(f"{results.definition.name}: a point a setting{bars}", fontsize=10)
    axes.grid(True, which="both")
    if few:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@styled
def parallel_coordinates(results: Results) -> Figure | None:
    """A line a run through its settings to its objective, coloured by the objective."""
    keys, objective = _keys(results), results.definition.objective
    runs = _runs(results, objective)
    if len(keys) < 2 or len(runs) < 3:
        return None
    figure, axes = subplots(size=(1.3 * (len(keys) + 1) + 1.5, 3.6))
    columns = [[run.point[key] for run in runs] for key in keys] + [[run.metrics[objective] for run in runs]]
    logs = [*(_log_drawn(results, key) for key in keys), False]
    logs = [_wide(column, log) for column, log in zip(columns, logs, strict=True)]
    heights = np.stack([_unit(axes, i, *column) for i, column in enumerate(zip(columns, logs, strict=True))], axis=1)
    shade = _ranks(heights[:, -1])
    for i in np.argsort(shade if results.definition.direction == "maximize" else -shade):  # the best on top
        axes.plot(heights[i], color=_map()(shade[i]), alpha=0.7, linewidth=1)
    names = [*(key.rsplit(".", 1)[-1] for key in keys), objective]
    axes.set_xticks(range(len(columns)), [name + "\n(log)" * log for name, log in zip(names, logs, strict=True)])
    axes.set_xlim(-0.2, len(columns) - 0.4)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(f"{results.definition.name}: {len(runs)} runs, coloured by the rank of {objective}")
    return figure


@styled
def boxes(results: Results) -> Figure | None:
    """Metrics by the values of each setting that is no number, over all runs."""
    metrics = _metrics(results)[:2]
    words = {
        key: {str(r.point[key]) for r in results.runs.values() if not _number(r.point[key])} for key in _keys(results)
    }
    keys = [key for key, values in words.items() if len(values) > 1 and results.count("finished") >= 3 * len(values)]
    if not keys or not metrics:
        return None
    figure, grid = subplots(len(metrics), len(keys), size=(4.0, 2.8), squeeze=False)
    for row, metric in zip(grid, metrics, strict=True):
        for axes, key in zip(row, keys, strict=True):
            groups: dict[str, list[float]] = {}
            for run in _runs(results, metric):
                groups.setdefault(str(run.point[key]), []).append(run.metrics[metric])
            axes.boxplot(list(groups.values()), medianprops={"color": COLORS[2]}, flierprops={"markersize": 3})
            labels = [f"{name}\n({len(values)} runs)" for name, values in groups.items()]
            axes.set_xticks(range(1, len(groups) + 1), labels, rotation=30 * (len(groups) > 4))
            axes.set(xlabel=key, ylabel=with_unit(metric))
            _log_if_wide(axes, "y", [value for values in groups.values() for value in values], factor=10)
    figure.suptitle(f"{results.definition.name}: by category, a box over the runs of each value", fontsize=10)
    return figure


@styled
def history(results: Results) -> Figure | None:
    """The objective of every trial in turn, the mean over its seeds, and the best up to then."""
    objective = results.definition.objective
    settings, names = results.settings(), list(results.runs)
    # By trial each point is a job, and some are drawn again; at random each is one of the settings.
    trials = [names.index(s.runs[0].name) if results.definition.method == "tpe" else i for i, s in enumerate(settings)]
    means = {number: setting.mean(objective) for number, setting in zip(trials, settings, strict=True)}
    found = {number: mean for number, mean in sorted(means.items()) if mean is not None}
    if results.definition.method == "grid" or len(found) < 2:
        return None
    numbers, values = list(found), list(found.values())
    better = max if results.definition.direction == "maximize" else min
    figure, axes = subplots(size=(5.0, 3.2))
    axes.scatter(numbers, values, s=12, label="trial")
    axes.step(numbers, list(accumulate(values, better)), where="post", color=COLORS[2], label="best so far")
    axes.set(xlabel="trial", ylabel=with_unit(objective))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{results.definition.name}: history of the search")
    _log_if_wide(axes, "y", values)
    axes.grid(True)
    axes.legend()
    return figure


def _keys(results: Results) -> list[str]:
    """Settings with more than one value; a seed or a fold is no setting."""
    points = [run.point for run in results.runs.values()]
    return [
        k for k in results.definition.varied if k not in REPEATS and len({str(point.get(k)) for point in points}) > 1
    ]


def _metrics(results: Results) -> list[str]:
    """What is worth a plot: what the report gives, the objective, columns asked for and the usual test metrics."""
    objective = results.definition.objective
    reported = [name for row in results.definition.report for name in row if name not in results.definition.varied]
    usual = [f"test/{name}" for name in ("mse", "accuracy", "loss")]
    names = results.distinct_metrics([*reported, objective, *results.definition.metrics, *usual])
    asked = {objective, *reported}
    plain = [name for name in names if name in asked or not (name.startswith("val/") or "/baseline_" in name)]
    return plain[:MAX_METRICS]


def _named(point: dict[str, Any]) -> str:
    return ", ".join(f"{re.split('[./]', key)[-1]}={shown(value)}" for key, value in point.items())


def _runs(results: Results, metric: str) -> list[Run]:
    return [run for run in results.distinct() if run.state == "finished" and metric in run.metrics]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _repeated(results: Results) -> bool:
    return any(len(setting.runs) > 1 for setting in results.settings())


def _log_drawn(results: Results, key: str) -> bool:
    """Whether a search draws the logarithm of a setting evenly."""
    return results.definition.varied[key].startswith("log-uniform")


def _places(axes: Axes, values: Sequence[Any], log: bool = False) -> list[float]:
    """Where values stand on the x axis: numbers where they are, words one after another behind the largest number."""
    numbers = [value for value in values if _number(value)]
    words = list(dict.fromkeys(str(value) for value in values if not _number(value)))
    if not words:
        if all(isinstance(number, int) for number in numbers):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _log_if_wide(axes, "x", numbers, factor=1 if log else WIDE)
        return [float(value) for value in values]
    ticks = sorted(set(numbers))
    if len(numbers) and len(ticks) <= 12:  # a few numbers and words: all in a row, evenly
        labels = [*map(shown, ticks), *words]
        names = [shown(value) if _number(value) else str(value) for value in values]
    else:
        labels, names = [*map(str, ticks), *words], [str(value) for value in values]
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(labels) > 5 else {}
    axes.set_xticks(range(len(labels)), labels, **slanted)
    return [float(labels.index(name)) for name in names]


def _log_if_wide(axes: Axes, which: str, values: Sequence[float], factor: float = WIDE) -> None:
    """A logarithmic x or y axis with plain numbers, where the values span more than `factor`."""
    if values and min(values) > 0 and max(values) / min(values) > factor:
        axes.set(**{f"{which}scale": "log"})
        axis = axes.xaxis if which == "x" else axes.yaxis
        decades = math.log10(max(values) / min(values))
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.6 else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _wide(values: Sequence[Any], log: bool) -> bool:
    """Whether a column of parallel coordinates is logarithmic: of numbers that span much, or are to be with `log`."""
    return all(map(_number, values)) and min(values) > 0 and max(values) / min(values) > (1 if log else WIDE)


def _unit(axes: Axes, place: int, values: Sequence[Any], log: bool) -> np.ndarray:
    """Values of one column of parallel coordinates scaled to [0, 1], its axis and labels drawn."""
    if all(map(_number, values)):
        numbers = np.log10(values) if log else np.asarray(values, dtype=float)
        low, high = numbers.min(), numbers.max()
        heights = (numbers - low) / (high - low) if high > low else np.full(len(values), 0.5)
        marks = {0.0: shown(float(min(values))), 1.0: shown(float(max(values)))}
    else:
        names = list(dict.fromkeys(map(str, values)))
        step = 1 / max(1, len(names) - 1)
        heights = np.array([names.index(str(value)) * step for value in values])
        marks = {i * step: name for i, name in enumerate(names)}
    axes.axvline(place, color="black", linewidth=0.8)
    for height, text in marks.items():
        box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.8, "edgecolor": "none"}
        spot = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (place, height), fontsize=7, bbox=box, zorder=3, **spot)
    return heights


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)) / max(1, len(values) - 1)


def _map() -> Any:
    import matplotlib

    return matplotlib.colormaps["viridis"]
