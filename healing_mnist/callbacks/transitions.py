"""What N6 and N3 look like: whole sequences, transitions in their PCA space, the corruptions of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import lightning as L
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from healing_mnist.callbacks.figures import COLORS, Table, image_grid, publish, publish_table, styled, subplots
from healing_mnist.checks import Fraction, NonNegative, NotEmpty, Positive, UserError
from healing_mnist.data.autoregressive import DIGITS
from healing_mnist.data.corruptions import gaussian, missing_region, poisson, salt_and_pepper
from healing_mnist.data.preprocessing import precision_recall

NOISES = {"Gaussian": gaussian, "Poisson": poisson, "salt-and-pepper": salt_and_pepper}


class SequenceOverview(L.Callback):
    """Draw the sequences, the search for outliers among training transitions, and noisy inputs.

    Args:
        sequences: whole sequences shown of each, N6 and N3; those with a planted jump come last.
        intensities: of the noise samples, in [0, 1].
        sides: of the missing regions, in pixels. None: seven from 0 to the smaller side of the image.
    """

    needs = ("N6 and N3",)

    def __init__(
        self,
        sequences: Positive = 5,
        intensities: Annotated[list[Fraction], NotEmpty()] = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
        sides: Annotated[list[NonNegative], NotEmpty()] | None = None,
    ):
        self.sequences, self.intensities, self.sides = sequences, intensities, sides

    def check_data(self, data: L.LightningDataModule) -> None:
        """Raise UserError for regions larger than the images."""
        side = min(data.image_shape[1:])
        for given in self.sides or ():
            if given > side:
                raise UserError(f"analysis.sequence_overview.sides: {given} is more than {side}, the side of the image")

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        if trainer.is_global_zero:
            self.publish(trainer, trainer.datamodule)

    def publish(self, trainer: L.Trainer, data: Any) -> None:
        """Draw `data`, an `AutoregressiveDigits` that is set up, into the figures folder of `trainer`."""
        for name in ("n6", "n3"):
            numbers = pick(data, name, self.sequences)
            publish(trainer, f"{name}_sequences", draw_sequences(data, name, numbers), parameters(data, numbers))
        found, planted = data.transitions(), data.planted(data.training_sequences())
        points = transition_table(data, found, planted)
        publish(trainer, "transitions", draw_transitions(points, found.explained), points)
        publish_table(trainer, "outliers", scores(found.outlying, planted))
        frame = data.whole_sequence(int(data.sequences_of["n6"][0]))[:1]
        publish(trainer, "noise_samples", *noise_samples(frame, self.intensities))
        sides = some_sides(min(frame.shape[-2:])) if self.sides is None else self.sides
        publish(trainer, "missing_regions", *missing_regions(frame, sides))


def pick(data: Any, name: str, count: int) -> Tensor:
    """Numbers of `count` sequences of N6 or N3: the first without a planted jump, then up to two with one."""
    numbers = torch.arange(len(data.sequence_table["label"]))
    numbers = numbers[data.sequence_table["label"] == DIGITS[name]]
    jumps = data.sequence_table["anomalous"][numbers].any(1)
    jumping = numbers[jumps][: min(2, count // 2)]
    return torch.cat((numbers[~jumps][: count - len(jumping)], jumping))


def draw_sequences(data: Any, name: str, numbers: Tensor) -> Figure:
    held_out = data.held_out.values() if name == "n6" else ()
    columns = [f"{t} held out" if t in held_out else str(t) for t in range(1, data.frames + 1)]
    jumps = data.sequence_table["anomalous"][numbers].tolist()
    captions = [[None, *("jump" if jump else None for jump in row)] for row in jumps]
    return image_grid(
        [list(data.whole_sequence(int(number))) for number in numbers],
        row_labels=[f"#{number}" for number in numbers],
        column_labels=columns,
        captions=captions,
        title=f"{name.upper()}: sequences, frames from left to right",
    )


def parameters(data: Any, numbers: Tensor) -> Table:
    """How every frame of the sequences `numbers` is made; `jump` marks the frame after an anomalous transition."""
    table, rows = data.sequence_table, []
    for number in numbers.tolist():
        jumps = [False, *table["anomalous"][number].tolist()]
        for t in range(data.frames):
            right, down = table["shift"][number, t].tolist()
            place = {"base_image": int(table["image"][number]), "rotation_degrees": table["rotation"][number, t].item()}
            place |= {"right_pixels": right, "down_pixels": down, "brightness": table["brightness"][number, t].item()}
            rows.append({"sequence": number, "frame": t + 1, **place, "jump": int(jumps[t])})
    return rows


def transition_table(data: Any, found: Any, planted: Tensor) -> list[dict[str, Any]]:
    """One row a judged transition: where it is, its place on the first two components, how far out, found, planted."""
    plane = F.pad(found.projection, (0, 1))  # of a single component, too
    return [
        {
            "sequence": number,
            "from_frame": int(before) + 1,
            "component_1": plane[s, j, 0].item(),
            "component_2": plane[s, j, 1].item(),
            "distance": found.distance[s, j].item(),
            "outlier": int(found.outlying[s, j]),
            "planted": int(planted[s, j]),
        }
        for s, number in enumerate(data.training_sequences().tolist())
        for j, before in enumerate(data.judged())
    ]


@styled
def draw_transitions(points: list[dict[str, Any]], explained: Tensor) -> Figure:
    """The transitions on their two principal components, and the distribution of their distances."""
    kinds = {  # (outlier, planted) -> how it is drawn
        (0, 0): ("kept", COLORS[3], "o", 6),
        (1, 0): ("outlier", COLORS[1], "s", 22),
        (1, 1): ("outlier, planted jump", COLORS[2], "s", 22),
        (0, 1): ("missed jump", COLORS[4], "X", 32),
    }
    figure, (plane, line) = subplots(1, 2, (4.4, 3.6))
    bins = torch.linspace(min(p["distance"] for p in points), max(p["distance"] for p in points), 50).tolist()
    distances = []
    for key, (name, color, marker, area) in kinds.items():
        chosen = [p for p in points if (p["outlier"], p["planted"]) == key]
        across, up = ([p[f"component_{i}"] for p in chosen] for i in (1, 2))
        plane.scatter(across, up, s=area, color=color, marker=marker, linewidths=0, label=f"{name} ({len(chosen)})")
        distances.append([p["distance"] for p in chosen])
    # Not on each other: on a logarithmic axis what stands on something has no height of its own.
    line.hist(distances, bins=bins, histtype="step", color=[color for _, color, _, _ in kinds.values()], linewidth=1.2)
    line.set_yscale("log")
    line.set_ylim(bottom=0.5)  # a bin of one can be seen
    first, second = F.pad(explained, (0, 1))[:2].tolist()
    plane.set(
        title=f"{len(points)} transitions of N6's training sequences",
        xlabel=f"component 1 (standard deviations; {first:.1%} of the variance)",
        ylabel=f"component 2 ({second:.1%})",
    )
    line.set(
        title=f"Mahalanobis distance in {len(explained)} components",
        xlabel="standard deviations above the mean distance",
        ylabel="transitions",
    )
    figure.legend(*plane.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def scores(outlying: Tensor, planted: Tensor) -> Table:
    """Outliers found against jumps planted, counted by transition and by sequence (S, J)."""
    rows = []
    for of, found, true in (("transitions", outlying, planted), ("sequences", outlying.any(1), planted.any(1))):
        precision, recall = precision_recall(found, true)
        counts = {"all": found.numel(), "outliers": int(found.sum()), "planted": int(true.sum())}
        rows.append({"of": of, **counts, "precision": precision, "recall": recall})
    return rows


def noise_samples(frame: Tensor, intensities: Sequence[float]) -> tuple[Figure, Table]:
    """One frame (1, C, H, W) under each kind of noise, with the error each makes."""
    seed = torch.zeros(1, dtype=torch.int64)
    images = [[noise(frame, intensity, seed)[0] for intensity in intensities] for noise in NOISES.values()]
    labels = [f"{intensity:g}" for intensity in intensities]
    return _samples(
        frame[0],
        images,
        list(NOISES),
        "intensity",
        labels,
        "Noise by kind and intensity; MSE against the frame without it",
    )


def some_sides(most: int) -> list[int]:
    """Seven whole numbers from 0 to `most`, evenly; all where there are fewer."""
    return sorted({round(most * k / 6) for k in range(7)})


def missing_regions(frame: Tensor, sides: Sequence[int]) -> tuple[Figure, Table]:
    """One frame (1, C, H, W) with a missing square of each size at three random places, with the error each makes.

    The square, which is black in the input, is drawn in blue: a digit's ground is black as well.
    """
    blue = torch.tensor(to_rgb(COLORS[0])).view(3, 1, 1)
    images, drawn = [], []
    for seed in map(torch.tensor, ([0], [1], [2])):
        images.append([missing_region(frame, side, seed)[0] for side in sides])
        left = [missing_region(torch.ones_like(frame), side, seed)[0] > 0 for side in sides]
        drawn.append(
            [image.expand(3, -1, -1).where(there, blue) for image, there in zip(images[-1], left, strict=True)]
        )
    places, labels = [f"place {i}" for i in range(1, 4)], [str(side) for side in sides]
    title = "Missing region (blue), by side in pixels; MSE against the whole frame"
    return _samples(frame[0], images, places, "side", labels, title, drawn)


def _samples(
    frame: Tensor,
    images: list[list[Tensor]],
    rows: list[str],
    of: str,
    columns: list[str],
    title: str,
    drawn: list[list[Tensor]] | None = None,
) -> tuple[Figure, Table]:
    errors = [[(image - frame).square().mean().item() for image in row] for row in images]
    captions = [[f"MSE {error:.4f}" for error in row] for row in errors]
    figure = image_grid(drawn or images, row_labels=rows, column_labels=columns, captions=captions, title=title)
    table = [
        {"kind": name, of: column, "mse": error}
        for name, row in zip(rows, errors, strict=True)
        for column, error in zip(columns, row, strict=True)
    ]
    return figure, table
