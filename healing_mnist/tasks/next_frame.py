"""Predict the frames that follow a sequence, or reconstruct the sequence; scored beside what needs no learning."""

from __future__ import annotations

import logging

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanSquaredError, Metric, MetricCollection

from healing_mnist.batch import Batch, Output, valid_frames
from healing_mnist.checks import UserError
from healing_mnist.tasks.losses import flat_frames
from healing_mnist.tasks.reconstruction import Reconstruction
from healing_mnist.tasks.scores import image_scores
from healing_mnist.tasks.squares import SquareScores

log = logging.getLogger(__name__)


class NextFrame(Reconstruction):
    """Bring the network's images (B, K, C, H, W) close to the K frames that follow the input.

    Test scores are MSE, MAE, PSNR (dB), SSIM, ``mse_step_1`` .. ``mse_step_K`` where K > 1, and those of `SquareScores`
    where the data has squares. The same stand beside them as ``test/baseline_NAME/...`` for predictions that need no
    learning: `last`, the last frame there is; `mean`, the mean of the frames there are; and `oracle` where the data
    offers one.

    A frozen encoder gives the same for the same frames: where `Batch.index` means the same rows in every epoch, its
    output is computed once, before training, and kept in the device's memory; the input frames are then not even
    rendered.

    Args:
        network: called with (frames, lengths, observed, steps), returns `Output.image` in the layout of the target. To
            be kept, its features must come from ``network.encode(frames, lengths)`` and go to
            ``network.predict(features, lengths, observed, steps)``, and ``network.encoder.frozen`` be true.
        cache_embeddings: keep the output of a frozen encoder, 4 bytes for each of rows x frames x features; the log
            says how much that is.
        **reconstruction: the arguments of `Reconstruction`.
    """

    needs = ("image", "sequences")
    reconstructs_input = False

    def __init__(self, network: nn.Module, *, cache_embeddings: bool = True, **reconstruction):
        super().__init__(network, **reconstruction)
        self.cache_embeddings = cache_embeddings
        self._kept: dict[str, Tensor] = {}  # split -> features of all its rows (N, T, d)

    def forward(self, batch: Batch) -> Output:
        steps = batch.target.shape[1]
        if self._kept and (kept := self._kept.get("train" if self.trainer.training else "val")) is not None:
            return self.network.predict(kept.index_select(0, batch.index), batch.lengths, batch.observed, steps)
        return self.network(batch.input, batch.lengths, batch.observed, steps)

    def frames(self, batch: Batch, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, K, C, H, W) and the target's, as (N, C, H, W): all frames that count."""
        return flat_frames(image), flat_frames(batch.target)

    def losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        return {"loss": self.image_loss(*self.frames(batch, output.image))}

    def check_data(self, data: L.LightningDataModule) -> None:
        target = getattr(data, "target", None)
        if target is not None and (target == "input") != self.reconstructs_input:
            other = "next_frame" if self.reconstructs_input else "sequence_reconstruction"
            raise UserError(f"data.target={target}: not what {type(self).__name__} learns; use task={other}")

    # ------------------------------------------------------------------------------------------------------------ cache

    def on_fit_start(self) -> None:
        frozen = getattr(getattr(self.network, "encoder", None), "frozen", False)
        if self.cache_embeddings and frozen:
            splits = ["val"] if self.trainer.datamodule.resample else ["train", "val"]
            self._kept = {split: self._encode(split) for split in splits}
            log.info(
                "the frozen encoder's output is kept for %s: %.1f MB (task.cache_embeddings=false: computed each time)",
                " and ".join(splits),
                self.cache_bytes / 1e6,
            )

    def on_fit_end(self) -> None:
        self._kept = {}

    @property
    def cache_bytes(self) -> int:
        """Memory that the kept output of the encoder takes now."""
        return sum(kept.nbytes for kept in self._kept.values())

    @torch.no_grad()
    def _encode(self, split: str) -> Tensor:
        data = self.trainer.datamodule
        parts = []
        for index in torch.arange(len(data.tables[split]["index"]), device=self.device).split(data.eval_batch_size):
            batch = data.batch(split, index)
            with self.trainer.precision_plugin.forward_context():
                parts.append(self.network.encode(batch.input, batch.lengths))
        return torch.cat(parts)

    # ----------------------------------------------------------------------------------------------------------- scores

    def baseline_names(self) -> list[str]:
        return ["last", "mean"] + ["oracle"] * hasattr(self.trainer.datamodule, "oracle")

    def baseline(self, name: str, batch: Batch) -> Tensor:
        """A prediction that needs no learning, in the layout of the target."""
        if name == "oracle":
            return self.trainer.datamodule.oracle(batch)
        if name == "last":
            frame = batch.last
        else:
            seen = batch.seen
            weights = seen / seen.sum(1, keepdim=True)
            frame = (batch.input * weights[..., None, None, None]).sum(1)
        return frame.unsqueeze(1).expand_as(batch.target)

    def make_scores(self, final: bool) -> MetricCollection:
        if not final:
            return MetricCollection(image_scores(final), compute_groups=False)
        steps = 1 if self.reconstructs_input else getattr(self.trainer.datamodule, "horizon", 1)
        scores: dict[str, Metric] = {}
        for prefix in ("", *(f"baseline_{name}/" for name in self.baseline_names())):
            scores |= {prefix + name: metric for name, metric in image_scores(final).items()}
            if getattr(self.trainer.datamodule, "has_squares", False):
                scores[f"{prefix}square"] = SquareScores(prefix)
            if steps > 1:
                scores |= {f"{prefix}mse_step_{step}": MeanSquaredError() for step in range(1, steps + 1)}
        return MetricCollection(scores, compute_groups=False)

    def update_scores(self, scores: MetricCollection, batch: Batch, output: Output) -> None:
        images = {"": output.image.float()}
        if "baseline_last/mse" in scores:  # the final scores
            with torch.autocast(self.device.type, enabled=False):
                images |= {f"baseline_{name}/": self.baseline(name, batch) for name in self.baseline_names()}
        # Metrics take no channels_last layout.
        frames = {key: [part.contiguous() for part in self.frames(batch, image)] for key, image in images.items()}
        for key, metric in scores.items(keep_base=True, copy_state=False):
            parent, slash, name = key.rpartition("/")
            own = parent + slash
            if name.startswith("mse_step_"):
                step = int(name.removeprefix("mse_step_")) - 1
                metric.update(images[own][:, step].contiguous(), batch.target[:, step].contiguous())
            elif name == "square":
                metric.update(*frames[own], self._determined(batch))
            else:
                metric.update(*frames[own])

    def _determined(self, batch: Batch) -> Tensor | None:
        """(N,) for the frames that `frames` gives, where the data says so."""
        determined = batch.attributes.get("determined")
        return None if determined is None else determined.repeat_interleave(batch.target.shape[1])


class SequenceReconstruction(NextFrame):
    """Give the input sequence back, undamaged: the target has the frames of the input, padding does not count."""

    reconstructs_input = True

    def weight_of(self, batch: Batch) -> int | Tensor:
        """Its frames."""
        return len(batch) * batch.target.shape[1] if batch.lengths is None else batch.lengths.sum()

    def frames(self, batch: Batch, image: Tensor) -> tuple[Tensor, Tensor]:
        if batch.lengths is None:
            return super().frames(batch, image)
        valid = valid_frames(batch.lengths, image.shape[1])
        return image[valid], batch.target[valid]

    def baseline_names(self) -> list[str]:
        return ["last", "mean"]

    def _determined(self, batch: Batch) -> None:
        return None
