"""Rendering Healing MNIST: sequences of six 28x28 frames a second, beside other ways to do it; and an epoch's share.

    python benchmarks/rendering.py [--source mnist --root FOLDER] [--rounds 30] [--device cuda]

All take turns; the table shows each in the best of its rounds, which the rest of the machine slows least. Targets: any
angle 8.5 times a loop over SciPy and once kornia, a set of angles 24 and 2.4 times; where compiled 16, 1.7, 38 and 4
times; squares cost at most a fifth more; rendering 60,000 images takes at most a tenth of an epoch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import kornia
import torch
from scipy.ndimage import rotate as scipy_rotate
from torch import Tensor
from torch.nn import functional as F

from healing_mnist.build import build_task
from healing_mnist.config import compose
from healing_mnist.data import sources
from healing_mnist.data.frames import add_squares_, rotate
from healing_mnist.data.healing import HealingImages

clock = time.perf_counter
FRAMES, ANGLES, LARGEST = 6, (30, 45, 60, 75, 90), 8
IMAGES, BATCH, STEPS = 60_000, 256, 20


def with_scipy(images: Tensor, angles: Tensor) -> Tensor:
    scaled = images[:, 0].float().div(255).numpy()
    frames = [
        torch.from_numpy(scipy_rotate(image, angle, order=1, reshape=False))
        for image, row in zip(scaled, angles.tolist(), strict=True)
        for angle in row
    ]
    return torch.stack(frames).view(*angles.shape, *images.shape[1:])


def with_kornia(images: Tensor, angles: Tensor) -> Tensor:
    repeated = images.float().div(255).repeat_interleave(angles.shape[1], 0)
    return kornia.geometry.transform.rotate(repeated, angles.flatten()).view(*angles.shape, *images.shape[1:])


def with_affine_grid(images: Tensor, angles: Tensor) -> Tensor:
    cos, sin = torch.deg2rad(angles.flatten()).cos(), torch.deg2rad(angles.flatten()).sin()
    matrices = torch.stack((cos, -sin, torch.zeros_like(cos), sin, cos, torch.zeros_like(cos)), 1).view(-1, 2, 3)
    repeated = images.float().div(255).repeat_interleave(angles.shape[1], 0)
    grid = F.affine_grid(matrices, list(repeated.shape), align_corners=True)
    return F.grid_sample(repeated, grid, align_corners=True).view(*angles.shape, *images.shape[1:])


def seconds(work: Callable[[], object]) -> float:
    start = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each way in its best round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            work()  # once unmeasured, so that none pays for what the one before left in the caches
            taken[name].append(seconds(work))
    return {name: min(values) for name, values in taken.items()}


def sequences(images: Tensor, rounds: int, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = len(images)
    choices = torch.tensor(ANGLES)[:, None] * torch.arange(FRAMES).float()
    which = torch.randint(len(choices), (rows,), generator=generator)
    angles = choices[which].to(device)
    sides = torch.randint(0, LARGEST + 1, (rows, FRAMES), generator=generator).to(device)
    few = max(1, rows // 8)  # of the slow one
    here, few_angles = images[:few].cpu(), angles[:few].cpu()
    images, which = images.to(device), which.to(device)
    ways = {
        "SciPy, one image at a time": lambda: with_scipy(here, few_angles),
        "affine_grid + grid_sample": lambda: with_affine_grid(images, angles),
        "kornia": lambda: with_kornia(images, angles),
        "any angle": lambda: rotate(images, angles),
        "any angle, squares": lambda: add_squares_(rotate(images, angles), sides, LARGEST),
        "set of angles": lambda: rotate(images, choices, which),
        "set of angles, squares": lambda: add_squares_(rotate(images, choices, which), sides, LARGEST),
    }
    kinds = ["any angle", "set of angles"]
    if device == "cpu":
        ways |= {
            "any angle, compiled": lambda: rotate(images, angles, compile=True),
            "any angle, compiled, squares": lambda: add_squares_(
                rotate(images, angles, compile=True), sides, LARGEST, compile=True
            ),
            "set of angles, compiled": lambda: rotate(images, choices, which, compile=True),
            "set of angles, compiled, squares": lambda: add_squares_(
                rotate(images, choices, which, compile=True), sides, LARGEST, compile=True
            ),
        }
        kinds += [f"{kind}, compiled" for kind in kinds]
    taken = in_turns(ways, rounds)
    rate = {name: (few if "SciPy" in name else rows) / taken[name] for name in ways}
    print(f"sequences of {FRAMES} frames, {rows} at a time, {device}, {torch.get_num_threads()} threads")
    print(f"{'':34}{'a second':>12}{'x SciPy':>10}{'x kornia':>10}")
    for name, value in rate.items():
        print(
            f"{name:34}{value:12,.0f}{value / rate['SciPy, one image at a time']:10.1f}{value / rate['kornia']:10.2f}"
        )
    for name in kinds:
        print(f"squares on {name}: {rate[name] / rate[f'{name}, squares'] - 1:+.0%} time")


def share_of_an_epoch(data: HealingImages, rounds: int, device: str) -> None:
    task = build_task(compose(["experiment=joint_healing"])).to(device)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
    rows = torch.arange(BATCH, device=device) % len(data.tables["train"]["index"])
    batch = data.batch("train", rows)

    def render() -> None:
        for _ in range(STEPS):
            data.batch("train", rows)

    def train() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            task.losses(batch, task(batch))["loss"].backward()
            optimizer.step()

    taken = in_turns({"render": render, "train": train}, rounds)
    steps = IMAGES / BATCH / STEPS
    print(f"\n{IMAGES:,} Healing images (half rotated, half with squares), joint autoencoder, batch {BATCH}, {device}")
    print(f"rendering {taken['render'] * steps:.3f} s, training {taken['train'] * steps:.3f} s without it")
    print(f"share of the epoch: {taken['render'] / (taken['render'] + taken['train']):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="digits", choices=sources.names())
    parser.add_argument("--root", help="folder with the source's files")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--busy", action="store_true", help="count processor time of one thread; for a busy machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.busy else arguments.threads)
    if arguments.busy:
        global clock
        clock = time.process_time
    data = HealingImages(
        rotation_ratio=0.5,
        square_ratio=0.5,
        square_size=(3, LARGEST),
        source=arguments.source,
        root=arguments.root,
    )
    data.setup()
    with torch.no_grad():
        sequences(data.images[: arguments.batch], arguments.rounds, arguments.device)
    share_of_an_epoch(data, max(3, arguments.rounds // 6), arguments.device)


if __name__ == "__main__":
    main()
