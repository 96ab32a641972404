"""What networks share that encode every frame, embed the sequence of codes and decode images from the embedding."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from healing_mnist.batch import Output, valid_frames
from healing_mnist.checks import Positive
from healing_mnist.networks.autoencoder import ConvDecoder, ConvEncoder


class EncodedFrames(nn.Module):
    """Predict the images that follow a sequence; a subclass says how features of frames become an embedding.

    The encoder says itself whether it is frozen. A subclass makes `decoder`, the encoder's mirror image.

    Args:
        encoder: frames (C, H, W) to features (d,), as a rule trained before.
        width: of the linear layer between features and what reads them.
        mask_input: tell which frames are missing, by one more input of the linear layer.
    """

    decoder: ConvDecoder

    def __init__(self, encoder: ConvEncoder, width: Positive, mask_input: bool = False):
        super().__init__()
        self.encoder, self.mask_input = encoder, mask_input
        self.widen = nn.Sequential(nn.Linear(encoder.latent_dim + mask_input, width), nn.ReLU())

    @abstractmethod
    def embed(self, features: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """Features (B, T, d) -> embedding of the sequences (B, embedding_dim)."""

    def forward(
        self, frames: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None, steps: int = 1
    ) -> Output:
        """Predict `steps` images; from the second on, each prediction is read as if it had been seen.

        Args:
            frames: (B, T, C, H, W) in [0, 1].
            lengths: (B,) valid frames of each sequence; None when all are.
            observed: (B, T) bool, False where a frame is missing; None when none is.

        Returns:
            image (B, steps, C, H, W) in [0, 1], embedding (B, embedding_dim).
        """
        return self.predict(self.encode(frames, lengths), lengths, observed, steps)

    def encode(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T, C, H, W) -> features (B, T, d); padding frames are left out, their features are zero."""
        if lengths is None:
            return self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        valid = valid_frames(lengths, frames.shape[1])
        encoded = self.encoder(frames[valid])
        return encoded.new_zeros(*valid.shape, encoded.shape[-1]).masked_scatter(valid[..., None], encoded)

    def predict(
        self, features: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None, steps: int = 1
    ) -> Output:
        """As `forward`, from features (B, T, d) of the frames: what can be kept when the encoder is frozen."""
        embedding = self.embed(features, lengths, observed)
        images = [self.decoder(embedding)]
        while len(images) < steps:
            features, lengths, observed = _append(features, self.encoder(images[-1]), lengths, observed)
            images.append(self.decoder(self.embed(features, lengths, observed)))
        return Output(torch.stack(images, 1), embedding=embedding)

    def widened(self, features: Tensor, observed: Tensor | None = None) -> Tensor:
        """Features (B, T, d) -> (B, T, width); those of missing frames count as zero."""
        if observed is not None:
            features = features.masked_fill(~observed[..., None], 0)
        if self.mask_input:
            seen = features.new_ones(features.shape[:2]) if observed is None else observed.to(features.dtype)
            features = torch.cat((features, seen[..., None]), -1)
        return self.widen(features)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile encoder and decoder, which training calls one by one; what reads the features is not compiled."""
        self.encoder.compile(*args, **kwargs)
        self.decoder.compile(*args, **kwargs)


def _append(
    features: Tensor, new: Tensor, lengths: Tensor | None, observed: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Put `new` (B, d) behind the last valid frame of each sequence."""
    if observed is not None:
        observed = F.pad(observed, (0, 1), value=True)
    if lengths is None:
        return torch.cat((features, new[:, None]), 1), None, observed
    features = F.pad(features, (0, 0, 0, 1))
    here = torch.arange(features.shape[1], device=features.device) == lengths[:, None]
    if observed is not None:
        observed = observed | here
    return torch.where(here[..., None], new[:, None], features), lengths + 1, observed
