"""What is in a data set: samples, class counts, pixel statistics, colour channels, principal components (R3, R4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from healing_mnist.callbacks.figures import (
    COLORS,
    Table,
    image_grid,
    publish,
    publish_table,
    scatter,
    styled,
    subplots,
)
from healing_mnist.checks import NonNegative, Positive

CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
INK = {"grey": "black", "red": COLORS[2], "green": "#4a8c3f", "blue": COLORS[0]}


class DataOverview(L.Callback):
    """Draw the images that training and validation give a network; `python -m healing_mnist.explore` needs no run.

    Args:
        samples: images shown of each class.
        points: images in the PCA scatter and pixels in the scatter of the channels.
        seed: chooses them.
    """

    needs = ("single images", "base images with classes")

    def __init__(self, samples: Positive = 8, points: Positive = 2000, seed: NonNegative = 0):
        self.samples, self.points, self.seed = samples, points, seed

    def on_test_epoch_end(self, trainer: L.Trainer, task: Any) -> None:
        if trainer.is_global_zero:
            self.publish(trainer, trainer.datamodule)

    def publish(self, trainer: L.Trainer, data: L.LightningDataModule) -> None:
        """Draw `data`, a `SourceData` that is set up, into the figures folder of `trainer`."""
        (images, labels), names = rendered(data), data.class_names
        generator = torch.Generator().manual_seed(self.seed)
        publish(trainer, "data_samples", *samples(images, labels, names, self.samples))
        publish(trainer, "data_classes", *class_counts(labels, names))
        counts = pixel_counts(images)
        publish_table(trainer, "data_statistics", statistics(counts))
        publish(trainer, "data_pixels", draw_histogram(counts), histogram(counts))
        if images.shape[1] > 1:
            publish(trainer, "data_channels", *channel_correlation(images))
            publish(trainer, "data_channel_scatter", *channel_scatter(images, self.points, generator))
        publish(trainer, "data_pca", *principal_components(images, labels, names, self.points, generator))


def rendered(data: L.LightningDataModule) -> tuple[Tensor, Tensor]:
    """All inputs of training and validation as a network sees them, uint8 (N, C, H, W), and their labels (N,)."""
    images, labels = [], []
    for split in ("train", "val"):
        for index in torch.arange(len(data.tables[split]["index"])).split(data.eval_batch_size):
            batch = data.batch(split, index)
            images.append(batch.input.mul(255).round().to(torch.uint8))
            labels.append(batch.label)
    return torch.cat(images), torch.cat(labels)


def samples(images: Tensor, labels: Tensor, names: Sequence[str], count: int) -> tuple[Figure, Table]:
    """The first images of each class, and which of `images` they are."""
    chosen = {name: torch.nonzero(labels == i).flatten()[:count] for i, name in enumerate(names)}
    chosen = {name: places for name, places in chosen.items() if len(places)}
    rows = [[*images[places].float().div(255)] for places in chosen.values()]
    figure = image_grid(rows, row_labels=list(chosen), title=f"The first {count} images of each class")
    return figure, [{"class": name, "image": place} for name, places in chosen.items() for place in places.tolist()]


@styled
def class_counts(labels: Tensor, names: Sequence[str]) -> tuple[Figure, Table]:
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    figure, axes = subplots(size=(0.5 * len(names) + 2, 3))
    axes.bar_label(axes.bar(names, counts, color=COLORS[0]), fontsize=7)
    axes.set(title=f"Images of each class, {len(labels)} in all", xlabel="class", ylabel="images")
    if max(map(len, names)) > 2:
        axes.tick_params(axis="x", rotation=45)
    return figure, [{"class": name, "images": count} for name, count in zip(names, counts, strict=True)]


def pixel_counts(images: Tensor) -> np.ndarray:
    """(channels, 256): how often each channel of uint8 images (N, C, H, W) has each value."""
    planes = images.transpose(0, 1).flatten(1)
    return np.stack([torch.bincount(plane, minlength=256).numpy() for plane in planes])


def statistics(counts: np.ndarray) -> list[dict[str, Any]]:
    """Mean, standard deviation and variance of all pixels and of each channel, on 0..255 and on [0, 1]; exact."""
    values = np.arange(256)
    rows = []
    for name, count in zip(("all", *CHANNELS[len(counts)]), (counts.sum(0), *counts), strict=True):
        mean = (count * values).sum() / count.sum()
        variance = (count * (values - mean) ** 2).sum() / count.sum()
        of_255 = {"mean": mean, "sd": variance**0.5, "variance": variance}
        of_1 = {"mean_01": mean / 255, "sd_01": variance**0.5 / 255, "variance_01": variance / 255**2}
        rows.append({"channel": name, **of_255, **of_1, "pixels": int(count.sum())})
    return rows


def density(count: np.ndarray) -> np.ndarray:
    """Gaussian kernel density (256,) of pixel values with Scott's bandwidth, sd * n^(-1/5), at least one value wide."""
    values, total = np.arange(256), count.sum()
    share = count / total
    mean = (share * values).sum()
    variance = (count * (values - mean) ** 2).sum() / (total - 1)
    width = max(1.0, variance**0.5 * total**-0.2)
    kernel = np.exp(-0.5 * ((values[:, None] - values) / width) ** 2)
    return kernel @ share / (width * (2 * np.pi) ** 0.5)


def histogram(counts: np.ndarray) -> Table:
    names = CHANNELS[len(counts)]
    columns = {name: count for name, count in zip(names, counts, strict=True)}
    curves = {f"{name}_density": density(count) for name, count in columns.items()}
    return [
        {"value": v, **{k: int(c[v]) for k, c in columns.items()}, **{k: float(c[v]) for k, c in curves.items()}}
        for v in range(256)
    ]


@styled
def draw_histogram(counts: np.ndarray) -> Figure:
    figure, axes = subplots(size=(5.5, 3.2))
    total = counts.sum(0)
    bars = total.reshape(64, 4).sum(1) / total.sum() / 4
    axes.bar(np.arange(64) * 4 + 1.5, bars, 4, color=COLORS[3], alpha=0.5, label="all pixels")
    for name, count in zip(CHANNELS[len(counts)], counts, strict=True):
        axes.plot(density(count), color=INK[name], linewidth=1.2, label=f"{name}, density")
    mean = statistics(counts)[0]
    axes.axvline(mean["mean"], color=COLORS[8], linestyle="--", linewidth=1)
    axes.set_title(f"Pixel values: mean {mean['mean']:.2f}, standard deviation {mean['sd']:.2f}")
    axes.set(xlabel="pixel value (0 to 255)", ylabel="share per value")
    if bars.max() > 10 * np.sort(bars)[-2]:
        axes.set_yscale("log")  # nearly all pixels are black
    axes.legend()
    return figure


@styled
def channel_correlation(images: Tensor) -> tuple[Figure, Table]:
    """Correlation of the colour channels over all pixels, in chunks: sums of products in float64."""
    names = CHANNELS[images.shape[1]]
    total, products, pixels = 0, 0, images.numel() // len(names)
    for chunk in images.split(2000):
        planes = chunk.transpose(0, 1).flatten(1).double()
        total, products = total + planes.sum(1), products + planes @ planes.t()
    mean = total / pixels
    covariance = products / pixels - mean[:, None] * mean
    deviation = covariance.diagonal().sqrt()
    correlation = (covariance / (deviation[:, None] * deviation)).numpy()
    figure, axes = subplots(size=(3.4, 2.8))
    drawn = axes.imshow(correlation, cmap="Blues", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(correlation):
        axes.text(j, i, f"{value:.3f}", ha="center", va="center", color="white" if value > 0.5 else "black")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Correlation of the colour channels")
    figure.colorbar(drawn, ax=axes)
    rows = [
        {"channel": a, **dict(zip(names, map(float, row), strict=True))}
        for a, row in zip(names, correlation, strict=True)
    ]
    return figure, rows


@styled
def channel_scatter(images: Tensor, points: int, generator: torch.Generator) -> tuple[Figure, Table]:
    """Scatter of each pair of channels over random pixels; each channel's histogram on the diagonal."""
    names = CHANNELS[images.shape[1]]
    count, _, height, width = images.shape
    image, y, x = (torch.randint(size, (points,), generator=generator) for size in (count, height, width))
    pixels = images[image, :, y, x].numpy()  # (points, channels)
    figure, axes = subplots(len(names), len(names), (1.9, 1.7), sharex="col")
    for i, across in enumerate(names):
        for j, down in enumerate(names):
            axis = axes[j, i]
            if i == j:
                axis.hist(pixels[:, i], bins=32, range=(0, 256), color=INK[across])
                axis.set_yticks([])
            else:
                axis.scatter(pixels[:, i], pixels[:, j], s=2, color=COLORS[8], alpha=0.4, linewidths=0)
                axis.set_yticks([0, 128, 255])
            axis.set_xticks([0, 128, 255])
            if j == len(names) - 1:
                axis.set_xlabel(across)
            if i == 0:
                axis.set_ylabel(down)
    figure.suptitle(f"Colour channels of {points} random pixels (0 to 255)", fontsize=10)
    return figure, [dict(zip(names, map(int, row), strict=True)) for row in pixels]


@styled
def principal_components(
    images: Tensor, labels: Tensor, names: Sequence[str], points: int, generator: torch.Generator
) -> tuple[Figure, Table]:
    """Random images on the two principal components of their pixels."""
    from sklearn.decomposition import PCA

    chosen = torch.randperm(len(images), generator=generator)[:points]
    pca = PCA(2, svd_solver="randomized", random_state=0)
    plane = pca.fit_transform(images[chosen].flatten(1).float().div(255).numpy())
    first, second = pca.explained_variance_ratio_
    figure, axes = subplots(size=(5.5, 4))
    scatter(axes, plane, labels[chosen].numpy(), "class", names, mark=False)
    axes.set(xlabel=f"component 1 ({first:.1%} of the variance)", ylabel=f"component 2 ({second:.1%})")
    axes.set_title(f"Principal components of {len(chosen)} images")
    points_of = zip(plane.tolist(), labels[chosen].tolist(), strict=True)
    return figure, [{"component_1": x, "component_2": y, "class": names[label]} for (x, y), label in points_of]
