"""N6 and N3: drifting, turning digits seen through noise, cut into windows that predict the next frames.

N6 is a sequence for each of many handwritten sixes; N3 the same for threes, which are never trained on. Two frames of
every sequence are held out: the test windows predict them, no training or validation window contains them.
"""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor

from healing_mnist.batch import Batch
from healing_mnist.checks import Fraction, NonNegative, NonNegativeFloat, Positive, PositiveFloat, UserError
from healing_mnist.data import preprocessing, sources
from healing_mnist.data.base import RenderedData, Rows
from healing_mnist.data.chains import Chain, clipped_mean, draw_sequences, render_sequences
from healing_mnist.data.frames import take, to_float

log = logging.getLogger(__name__)

DIGITS = {"n6": 6, "n3": 3}
ROTATION, TRANSLATION, BRIGHTNESS = Chain(0.9, 4.0), Chain(0.9, 0.3), Chain(0.9, 0.02)
CHUNK = 25  # sequences rendered at once: the intermediate grids stay in the cache


class AutoregressiveDigits(RenderedData):
    """Windows of N6 for training and validation, of N6's held-out frames and of N3 for test.

    Each sequence is made from a base image of its own, out of the source's training and test images together. N6's
    sequences are dealt out to training, validation and test, N3 is test alone: no two of these share a base image. The
    test splits are scored apart: `n6_interpolation` (windows that predict `held_out_frame`), `n6_extrapolation` (those
    that predict the last frame), `n6` (both) and `n3` (all windows of N3). With a window too long to predict
    `held_out_frame` there is no `n6_interpolation`.

    The data set is small (10 MB), so its frames are rendered once and stay as uint8; a row of a table is a window.

    Args:
        source: base images, a module of `healing_mnist.data.sources`, grey.
        root: folder with the source's files; None fetches them to `cache` once.
        sequences: sequences of N6; fewer where the source has fewer sixes, with a message.
        novel_sequences: sequences of N3, likewise.
        frames: length of a sequence.
        size: side of the square canvas in pixels; the digit and its movement are scaled with it.
        rotation: change a step, in degrees.
        translation: change a step along each axis, in pixels of a 36-pixel canvas.
        brightness: change a step of the factor on the image, which stays in [0.5, 1].
        noise: standard deviation of the Gaussian noise on every pixel, before clipping to [0, 1].
        anomaly_rate: probability of a transition to be an anomalous jump.
        held_out_frame: counted from 1; the last frame is held out as well.
        window: consecutive frames of an example, inputs and targets together.
        horizon: how many of them, at the end, are targets.
        variant: training set. `base`: as it is; `denoised`: targets through non-local means; `cleaned`: without the
            sequences that have an outlying transition; `processed`: both. Validation and test are the same for all.
        components: dimensions of the PCA space of transitions.
        outlier_threshold: standard deviations, see `preprocessing.find_outliers`.
        denoising_strength: see `preprocessing.denoise`.
        val_fraction: share of N6's sequences that validate.
        test_fraction: share of N6's sequences whose held-out frames are the test. With 0 they are those of the training
            sequences themselves, which then share their base images with the test.
    """

    dealt_by = "seed", "test_fraction", "sequences"

    def __init__(
        self,
        source: str = "digits",
        root: str | None = None,
        cache: str = "~/.cache/healing_mnist",
        sequences: Positive = 400,
        novel_sequences: Positive = 100,
        frames: Positive = 16,
        size: Positive = 36,
        rotation: Chain = ROTATION,
        translation: Chain = TRANSLATION,
        brightness: Chain = BRIGHTNESS,
        noise: NonNegativeFloat = 0.08,
        anomaly_rate: Fraction = 0.01,
        held_out_frame: Positive = 4,
        window: Positive = 3,
        horizon: Positive = 1,
        variant: Literal["base", "denoised", "cleaned", "processed"] = "base",
        components: Positive = 50,
        outlier_threshold: PositiveFloat = 3.0,
        denoising_strength: PositiveFloat = 0.1,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        batch_size: Positive = 128,
        eval_batch_size: Positive = 500,
        seed: NonNegative = 0,
    ):
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed)
        self.source, self.root, self.cache = source, root, cache
        self.sequences, self.novel_sequences, self.frames, self.size = sequences, novel_sequences, frames, size
        self.rotation, self.translation, self.brightness = rotation, translation, brightness
        self.noise, self.anomaly_rate = noise, anomaly_rate
        self.window, self.horizon, self.variant = window, horizon, variant
        self.components, self.outlier_threshold = components, outlier_threshold
        self.denoising_strength = denoising_strength
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        if not test_fraction:  # which frames are held out is all that keeps training and test apart
            self.dealt_by += "held_out_frame", "frames"
        self.held_out = {"n6_interpolation": held_out_frame, "n6_extrapolation": frames}  # split -> frame, from 1
        self._check()
        sources.check_root(root)
        self.test_splits = (*(split for split in self.held_out if len(self._first_frames(split))), "n6", "n3")

    def _check(self) -> None:
        """Raise UserError, naming every setting that does not fit the others."""
        held_out, window, frames = self.held_out["n6_interpolation"], self.window, self.frames
        problems = []
        if sources.image_shape(self.source)[0] != 1:
            problems.append(f"data.source={self.source}: N6 and N3 are grey; use digits or mnist")
        elif any(self.class_names[digit : digit + 1] != [str(digit)] for digit in DIGITS.values()):
            problems.append(f"data.source={self.source}: N6 and N3 are digits; use digits or mnist")
        if self.horizon >= window:
            problems.append(f"data.horizon={self.horizon}: must be below data.window={window}, which holds inputs too")
        if window > frames:
            problems.append(f"data.window={window}: longer than a sequence, data.frames={frames}")
        if held_out >= frames:
            allowed = f"must be in 1..{frames - 1}, before the last of data.frames={frames}, which is held out as well"
            problems.append(f"data.held_out_frame={held_out}: {allowed}")
        if not problems and not len(self._first_frames("train")):
            longest = max(held_out - 1, frames - held_out - 1)
            problems.append(
                f"data.window={window}: no training windows; the held-out frames {held_out} and {frames} leave at most "
                f"{longest} frames in a row"
            )
        if self.val_fraction == 0 or self.val_fraction + self.test_fraction >= 1:
            problems.append(
                f"data.val_fraction={self.val_fraction:g}, data.test_fraction={self.test_fraction:g}: the first must "
                "be above 0 and their sum below 1, validation and training need sequences"
            )
        if problems:
            raise UserError("\n".join(problems))

    @property
    def whole_splits(self) -> tuple[str, ...]:
        return "n6", "n3"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, self.size, self.size

    @property
    def num_classes(self) -> int:
        return sources.num_classes(self.source)

    @property
    def class_names(self) -> list[str]:
        return sources.class_names(self.source)

    def load(self) -> Tensor:
        """Frames of all sequences one after another, then denoised ones; uint8 (N, C, size, size)."""
        for split in self.held_out.keys() - self.test_splits:
            log.warning("data.window=%d: no window predicts frame %d: no %s", self.window, self.held_out[split], split)
        base = sources.load(self.source, self.root, self.cache)
        base_images = torch.cat((base.train_images, base.test_images))
        labels = torch.cat((base.train_labels, base.test_labels))
        n6 = self._draw_sequences("n6", self.sequences, labels)
        n3 = self._draw_sequences("n3", self.novel_sequences, labels)
        self.sequence_table = {name: torch.cat((column, n3[name])) for name, column in n6.items()}  # a row a sequence
        self.sequences_of = self._deal(len(n6["image"]), len(n3["image"]))  # part -> rows of that table
        self._base_images = base_images[self.sequence_table["image"]]  # in the order of the sequences

        frames = self._render()
        if self.variant in ("cleaned", "processed"):
            self.sequences_of |= self._clean(frames)
        self._target_frame = torch.arange(len(frames))  # frame -> the frame that replaces it as a training target
        if self.variant in ("denoised", "processed"):
            targets = self._windows("train")[:, -self.horizon :].unique()
            self._target_frame[targets] = len(frames) + torch.arange(len(targets))
            frames = torch.cat((frames, preprocessing.denoise(frames[targets], self.denoising_strength)))
        return frames

    def _draw_sequences(self, name: str, wanted: int, labels: Tensor) -> Rows:
        """The table of N6 or N3, each sequence from another image."""
        generator = torch.Generator().manual_seed(self.seed * len(DIGITS) + list(DIGITS).index(name))
        supply = (labels == DIGITS[name]).nonzero()[:, 0]
        if len(supply) < wanted:
            log.warning(
                "%s has %d sequences instead of %d: data.source=%s has so many images of a %d",
                name.upper(),
                len(supply),
                wanted,
                self.source,
                DIGITS[name],
            )
        image = supply[torch.randperm(len(supply), generator=generator)[:wanted]]
        chains = self.rotation, self.translation, self.brightness
        rows = draw_sequences(image, self.frames, *chains, self.anomaly_rate, generator)
        return {**rows, "label": labels[image]}

    def _deal(self, n6: int, n3: int) -> dict[str, Tensor]:
        """Numbers of the sequences in each part; their base images are in random order already."""
        val, test = round(n6 * self.val_fraction), round(n6 * self.test_fraction)
        train = n6 - val - test
        if not val or not train or (self.test_fraction and not test):
            raise UserError(
                f"data.sequences={self.sequences}: {n6} give {train} for training, {val} for validation and {test} for "
                "test; each needs some"
            )
        sizes = {"train": train, "val": val, "n6": test, "n3": n3, "dropped": 0}
        parts = dict(zip(sizes, torch.arange(n6 + n3).split(list(sizes.values())), strict=True))
        return parts if test else {**parts, "n6": parts["train"]}

    def _render(self) -> Tensor:
        count = len(self.sequence_table["image"])
        frames = torch.empty(count, self.frames, *self.image_shape, dtype=torch.uint8)
        for chunk in torch.arange(count).split(CHUNK):
            rows = {name: column[chunk] for name, column in self.sequence_table.items()} | {"image": chunk}
            rendered = render_sequences(rows, self._base_images, self.size, self.noise)
            preprocessing.check_finite(rendered)
            frames[chunk] = rendered.mul_(255).round_().to(torch.uint8)
        return frames.flatten(0, 1)

    def _clean(self, frames: Tensor) -> dict[str, Tensor]:
        """Training sequences in two parts: `train`, and those `dropped` for an outlying transition."""
        sequences = self.sequences_of["train"]
        found, planted = self.transitions(frames).outlying, self.planted(sequences)
        precision, recall = preprocessing.precision_recall(found, planted)
        outlying = found.any(1)
        log.info(
            "%d of %d training sequences dropped: %d transitions outlying, %d planted (precision %.2f, recall %.2f)",
            outlying.sum(),
            len(sequences),
            found.sum(),
            planted.sum(),
            precision,
            recall,
        )
        if outlying.all():
            raise UserError(
                f"data.outlier_threshold={self.outlier_threshold:g}: no training windows left, each of "
                f"{len(sequences)} sequences has a transition beyond it; give a larger one"
            )
        return {"train": sequences[~outlying], "dropped": sequences[outlying]}

    def transitions(self, frames: Tensor | None = None) -> preprocessing.Transitions:
        """The transitions of all training sequences, dropped ones too, that a training window could contain."""
        frames = self.images if frames is None else frames
        sequences = self.training_sequences()
        frames = frames[: len(self.sequence_table["image"]) * self.frames].unflatten(0, (-1, self.frames))[sequences]
        before = self.judged()
        differences = (frames[:, before + 1].float() - frames[:, before].float()) / 255
        return preprocessing.find_outliers(differences, self.components, self.outlier_threshold, self.seed)

    def planted(self, sequences: Tensor) -> Tensor:
        """(sequences, transitions) bool: which of the transitions that `transitions` judges are anomalous jumps."""
        return self.sequence_table["anomalous"][sequences][:, self.judged()]

    def training_sequences(self) -> Tensor:
        """Numbers of N6's training sequences before cleaning."""
        return torch.cat((self.sequences_of["train"], self.sequences_of["dropped"])).sort().values

    def judged(self) -> Tensor:
        """First frames, from 0, of the transitions without a held-out frame."""
        usable = torch.ones(self.frames, dtype=torch.bool)
        usable[torch.tensor(list(self.held_out.values())) - 1] = False
        return (usable[:-1] & usable[1:]).nonzero()[:, 0]

    def _first_frames(self, split: str) -> Tensor:
        """First frames, from 0, of a split's windows in any of its sequences."""
        first = torch.arange(self.frames - self.window + 1)
        numbers = first[:, None] + torch.arange(1, self.window + 1)  # frames of each window, from 1
        if split == "n3":
            return first
        if split in ("train", "val"):
            return first[~torch.isin(numbers, torch.tensor(list(self.held_out.values()))).any(1)]
        predicted = [self.held_out[split]] if split in self.held_out else list(self.held_out.values())
        return first[torch.isin(numbers[:, -self.horizon :], torch.tensor(predicted)).any(1)]

    def _windows(self, split: str) -> Tensor:
        """Frames of a split's windows, (windows, window) int64 into the frames of all sequences."""
        sequences = self.sequences_of["n6" if split in self.held_out else split]
        first = sequences[:, None] * self.frames + self._first_frames(split)
        return first.view(-1, 1) + torch.arange(self.window)

    def draw(self, split: str, generator: torch.Generator) -> Rows:
        """Every window of a split, sequence by sequence; nothing is left to chance."""
        windows, inputs = self._windows(split), self.window - self.horizon
        targets = windows[:, inputs:]
        sequence, frame = windows[:, 0] // self.frames, windows[:, inputs] % self.frames
        table = {name: column[sequence] for name, column in self.sequence_table.items()}
        row = torch.arange(len(windows))
        step = {name: table[name][row, frame] - table[name][row, frame - 1] for name in ("rotation", "shift")}
        inside = torch.arange(self.frames - 1) - windows[:, :1] % self.frames  # transitions, from a window's first on
        return {
            "input": windows[:, :inputs],
            "target": self._target_frame[targets] if split == "train" else targets,
            "label": table["label"],
            "sequence": sequence,
            "frame": frame + 1,
            "anomalous": (table["anomalous"] & (inside >= 0) & (inside < self.window - 1)).any(1),
            "angle": step["rotation"],
            "shift": step["shift"].norm(dim=1),
            "brightness": table["brightness"][row, frame],
        }

    def render(self, rows: Rows, images: Tensor) -> Batch:
        """Look up the frames of windows.

        Attributes: `sequence` and `frame` (of the first target, from 1) say where the window is; `anomalous` whether
        any of its transitions is a planted jump; `angle` (degrees) and `shift` (pixels of a 36-pixel canvas) how far
        the digit goes from the last input to the first target, `brightness` how bright it is there.
        """
        names = "sequence", "frame", "anomalous", "angle", "shift", "brightness"
        return Batch(
            input=to_float(take(images, rows["input"])),
            target=to_float(take(images, rows["target"])),
            label=rows["label"],
            index=rows["index"],
            attributes={name: rows[name] for name in names},
        )

    def oracle(self, batch: Batch) -> Tensor:
        """The best anyone could predict, (B, K, C, size, size): what the targets are on average over their noise."""
        device = batch.target.device
        sequence, first = batch.attributes["sequence"].cpu(), batch.attributes["frame"].cpu() - 1
        frame = first[:, None] + torch.arange(self.horizon)
        rows = {
            name: self.sequence_table[name][sequence[:, None], frame] for name in ("rotation", "shift", "brightness")
        }
        rows = {name: column.to(device) for name, column in (rows | {"image": sequence}).items()}
        clean = render_sequences(rows, self._on(device, "base images", self._base_images), self.size, noise=0.0)
        return clipped_mean(clean, self.noise)

    def whole_sequence(self, sequence: int) -> Tensor:
        """All frames of one sequence, (T, C, size, size) float32 in [0, 1] on the CPU; see `Batch.attributes`."""
        return to_float(self.images[sequence * self.frames : (sequence + 1) * self.frames])
