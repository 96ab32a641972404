"""How figures look and where they go: PNG and CSV in the run folder, and TensorBoard.

A drawing function is decorated with `styled`, makes its axes with `subplots` and returns the Figure; `publish` saves it
beside the numbers it shows. Figures are plain objects drawn with Agg, nothing is kept by pyplot.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib
import numpy as np
import torch
from cycler import cycler
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from healing_mnist.files import as_csv, atomic_write

# Ten colours that stay apart for readers with any colour vision (Petroff 2021, arXiv:2107.02270).
COLORS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
UNITS = {  # of attributes of rows and of metrics
    "angle": "degrees",
    "square": "pixels",
    "square_size": "pixels",
    "shift": "pixels",
    "length": "frames",
    "squares": "frames",
    "start": "frame",
    "mse": "per pixel",
    "mae": "per pixel",
    "psnr": "dB",
    "accuracy": "share",
    "square_accuracy": "share",
    "square_accuracy_determined": "share",
    "square_size_accuracy": "share",
}
DPI = 150
EDGE = 0.6  # grey of the frame around an image
ORANGE = 1.0, 0.66, 0.04  # of the frame around one that is marked
styled = matplotlib.rc_context(
    {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=COLORS),
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "image.cmap": "gray",
    }
)

Table = Sequence[Mapping[str, Any]]  # rows of a CSV: column name -> number or text


def publish(trainer: L.Trainer, name: str, figure: Figure, table: Table | None = None, step: int | None = None) -> None:
    """Save `figure` as ``figures/<name>.png`` of the run, its numbers as ``<name>.csv``, and add it to TensorBoard.

    Only the first process of a run writes. The figure is cleared afterwards.

    Args:
        name: file name without ending, also the tag in TensorBoard.
        table: rows of what the figure shows; the columns are the keys, in the order they first appear.
        step: place on TensorBoard's slider; the number of training steps done unless given.
    """
    if trainer.is_global_zero:
        _show(trainer, name, save(folder(trainer), name, figure, table), step)
    figure.clear()


def publish_table(trainer: L.Trainer, name: str, table: Table) -> None:
    """Save rows as ``figures/<name>.csv`` of the run."""
    if trainer.is_global_zero:
        atomic_write(folder(trainer) / f"{name}.csv", as_csv(table))


def save(place: Path, name: str, figure: Figure, table: Table | None = None) -> np.ndarray:
    """Save a figure and its numbers as ``<name>.png`` and ``<name>.csv`` in `place`; returns the pixels."""
    picture, buffer = rasterize(figure), io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    atomic_write(place / f"{name}.png", buffer.getvalue())
    if table is not None:
        atomic_write(place / f"{name}.csv", as_csv(table))
    return picture


def publish_gif(trainer: L.Trainer, name: str, figures: Iterable[Figure], seconds: float = 0.5) -> None:
    """Save an animation as ``figures/<name>.gif`` of the run, see `save_gif`, and add it to TensorBoard."""
    if trainer.is_global_zero:
        content, (width, height) = save_gif(folder(trainer), name, figures, seconds)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        for board in boards(trainer):
            summary = Summary(value=[Summary.Value(tag=name, image=image)])  # TensorBoard plays a GIF that is an image
            board.file_writer.add_summary(summary, trainer.global_step)


def save_gif(place: Path, name: str, figures: Iterable[Figure], seconds: float = 0.5) -> tuple[bytes, tuple[int, int]]:
    """Save figures of one size, each shown for so long, as an endless animation ``<name>.gif`` in `place`.

    Returns:
        The file's content, and (width, height) in pixels.
    """
    first, *rest = [Image.fromarray(rasterize(figure)) for figure in figures]
    buffer = io.BytesIO()
    timing = {"duration": round(1000 * seconds), "loop": 0, "disposal": 2}
    first.save(buffer, format="gif", save_all=True, append_images=rest, **timing)
    atomic_write(place / f"{name}.gif", buffer.getvalue())
    return buffer.getvalue(), first.size


def show(trainer: L.Trainer, name: str, figure: Figure, step: int | None = None) -> None:
    """Add `figure` to TensorBoard only: for figures drawn again and again while training."""
    if trainer.is_global_zero and any(boards(trainer)):
        _show(trainer, name, rasterize(figure), step)
    figure.clear()


def folder(trainer: L.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "figures"


def split_prefix(trainer: L.Trainer, dataloader_idx: int) -> str:
    """What a figure's name starts with: the test split, where there are several, else nothing."""
    splits = trainer.datamodule.test_splits
    return f"{splits[dataloader_idx]}_" if len(splits) > 1 else ""


def some_rows(trainer: L.Trainer, split: str, limit: int, device: torch.device) -> Tensor:
    """Row numbers (N,) of a split, all of them or `limit` evenly spread ones: tables may be sorted."""
    count = len(trainer.datamodule.tables[split]["index"])
    return torch.linspace(0, count - 1, min(limit, count), dtype=torch.float64).round().long().to(device)


def class_names(trainer: L.Trainer) -> list[str]:
    """Names of the classes where the data has them, else their numbers."""
    names = getattr(trainer.datamodule, "class_names", None)
    return list(names) if names else [str(i) for i in range(trainer.datamodule.num_classes)]


def boards(trainer: L.Trainer) -> Iterable[Any]:
    """The TensorBoard writers of a run."""
    return (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))


def _show(trainer: L.Trainer, name: str, picture: np.ndarray, step: int | None) -> None:
    for board in boards(trainer):
        board.add_image(name, picture, trainer.global_step if step is None else step, dataformats="HWC")


def rasterize(figure: Figure) -> np.ndarray:
    """(height, width, 3) uint8 pixels of a figure; titles wider than it are wrapped."""
    for title in (*figure.texts, *(axes.title for axes in figure.axes)):
        title.set_wrap(True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@styled
def subplots(rows: int = 1, columns: int = 1, size: tuple[float, float] = (4.0, 3.0), **options: Any) -> Any:
    """A figure whose axes are `size` inches each: (figure, axes) as pyplot.subplots returns them."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


@styled
def image_grid(
    images: Tensor | Sequence[Sequence[Tensor | None]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str | None]] | None = None,
    title: str | None = None,
    cell: float = 0.9,
    marked: Sequence[Sequence[bool]] = (),
) -> Figure:
    """Rows and columns of small images, grey or RGB, each in a grey frame: what is white in it ends before the page.

    Args:
        images: (rows, columns, C, H, W) in [0, 1], or nested lists of (C, H, W) where None leaves a place empty. Values
            outside [0, 1] are clipped.
        captions: a short text under each image, in the layout of `images`; an empty row or None takes no room.
        cell: width of an image in inches.
        marked: which images have an orange frame, in the layout of `images`.
    """
    rows, columns = len(images), max(len(row) for row in images)
    _, height, width = next(image for row in images for image in row if image is not None).shape
    height, width, gap = height + 2, width + 2, max(1, round(width * 0.06))
    captions, marked = captions or [[]] * rows, marked or [[False] * columns] * rows
    room = math.ceil(height * 0.2)
    tops = np.cumsum([0] + [height + gap + (room if any(texts) else 0) for texts in captions])
    pitch = width + gap
    # One picture in one axes: a hundred small axes would take seconds to lay out.
    sheet = np.ones((tops[-1] - gap, columns * pitch - gap, 3), dtype=np.float32)
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            if image is not None:
                place = sheet[tops[i] : tops[i] + height, j * pitch : j * pitch + width]
                place[:] = ORANGE if marked[i][j] else EDGE
                place[1:-1, 1:-1] = _channels_last(image)

    row_labels = [_in_lines(label) for label in row_labels or ()]
    margin_x = 0.35 + max((_width_of(line) for label in row_labels for line in label.splitlines()), default=0)
    margin_y = 0.2 + (0.25 if title else 0) + (0.2 if column_labels else 0)
    scale = cell / width
    figure = Figure((sheet.shape[1] * scale + margin_x, sheet.shape[0] * scale + margin_y), DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_anchor("NW")  # the layout leaves room for labels where the axes are before they keep their aspect
    axes.imshow(sheet, extent=(0, sheet.shape[1], sheet.shape[0], 0))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks([j * pitch + width / 2 for j in range(columns)] if column_labels else [], column_labels or [])
    axes.set_yticks(tops[:-1] + height / 2 if row_labels else [], row_labels or [])
    for top, texts in zip(tops, captions, strict=False):
        for j, text in enumerate(texts):
            if text:
                axes.text(j * pitch + width / 2, top + height + room / 2, text, ha="center", va="center", fontsize=7)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def moving_grid(
    films: Sequence[Sequence[Tensor]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str = "frame {}",
    start: int = 0,
    made: Sequence[Sequence[float]] = (),
) -> Iterator[Figure]:
    """The figures of an animation: an `image_grid` for every moment.

    Args:
        films: rows and columns of (T, C, H, W) in [0, 1]; a shorter one rests on its last image until all have ended.
        title: of each moment, with its number in the place of ``{}``.
        start: number of the first moment.
        made: from which moment on the image of a film is marked, in the layout of `films`; infinity: never.
    """
    for t in range(max(len(film) for row in films for film in row)):
        images = [[film[min(t, len(film) - 1)] for film in row] for row in films]
        marked = [[t >= first for first in row] for row in made]
        yield image_grid(images, row_labels, column_labels, title=title.format(start + t), marked=marked)


def _in_lines(label: str, limit: int = 40) -> str:
    """A label of many settings in several lines."""
    return "\n".join(textwrap.wrap(label.replace(",", ", "), limit)) if len(label) > limit else label


def _width_of(text: str) -> float:
    """Inches of a line of text as axes are labelled."""
    font = FontProperties(size=matplotlib.rcParams["ytick.labelsize"])
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(text, font, ismath=False)[0] / DPI


def _channels_last(image: Tensor) -> np.ndarray:
    """(..., C, H, W) in any range to (..., H, W, 3) in [0, 1]: three channels as colours, else their mean as grey."""
    image = image.detach().float().cpu().clamp(0, 1)
    if image.shape[-3] != 3:
        image = image.mean(-3, keepdim=True).expand(*image.shape[:-3], 3, *image.shape[-2:])
    return torch.movedim(image, -3, -1).numpy()


def from_zero(axes: Iterable[Axes]) -> None:
    """Have y axes begin at 0 and end above all that is drawn in any of them, also where that is a flat line."""
    axes = list(axes)
    top = max(axis.dataLim.y1 for axis in axes)
    for axis in axes:
        axis.set_ylim(0, 1.08 * top if top > 0 else None)


def with_unit(name: str) -> str:
    """The name of an attribute, or of a metric as it is logged, for an axis, a legend or a title's side."""
    unit = UNITS.get(name.rpartition("/")[2])
    text, between = (name, "\n") if "/" in name else (name.replace("_", " "), " ")  # logged names are long
    return f"{text}{between}({unit})" if unit else text


@styled
def scatter(
    axes: Axes,
    points: np.ndarray,
    values: np.ndarray,
    name: str,
    labels: Sequence[str] | None = None,
    mark: bool = True,
) -> None:
    """Points (N, 2) coloured by `values` (N,): a legend for a few whole numbers, a colour bar for a quantity.

    `labels` names the values 0, 1, 2 ...; with `mark` the name stands on each group's median, too, where there is room.
    """
    groups = np.unique(values)
    if len(groups) > len(COLORS):
        drawn = axes.scatter(*points.T, c=values, s=6, cmap="viridis", linewidths=0)
        axes.figure.colorbar(drawn, ax=axes, label=with_unit(name))
    else:
        names = []
        for color, group in zip(COLORS, groups, strict=False):
            chosen = points[values == group]
            text = labels[int(group)] if labels else f"{group:g}"
            axes.scatter(*chosen.T, color=color, s=6, linewidths=0, label=text)
            if labels and mark:
                box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "edgecolor": "none"}
                spot = np.median(chosen, axis=0)
                names.append(axes.text(*spot, text, ha="center", va="center", fontsize=7, bbox=box))
        _drop_overlapping(axes, names)
        axes.legend(title=with_unit(name), loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    axes.set_title(f"by {name.replace('_', ' ')}")
    axes.set_xticks([])
    axes.set_yticks([])


def _drop_overlapping(axes: Axes, texts: Sequence[Text]) -> None:
    """Take away the texts that lie on each other, which nobody could read."""
    axes.autoscale_view()
    renderer = RendererAgg(1, 1, axes.figure.dpi)
    boxes = [text.get_window_extent(renderer) for text in texts]
    for i, text in enumerate(texts):
        if any(boxes[i].overlaps(other) for other in boxes[:i] + boxes[i + 1 :]):
            text.remove()
