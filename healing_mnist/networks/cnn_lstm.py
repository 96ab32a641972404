"""CNN-LSTM: an encoder on every frame, an LSTM over time, a decoder to the next image (R1 5.2)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from healing_mnist.batch import Output
from healing_mnist.checks import Fraction, Positive, UserError
from healing_mnist.networks.autoencoder import ConvEncoder
from healing_mnist.networks.layers import in_float32


class CNNLSTM(nn.Module):
    """Predict the images that follow a sequence, or give the sequence back.

    The encoder says itself whether it is frozen; the decoder is its mirror image and always trained here.

    Args:
        encoder: frames (C, H, W) to features (d,), as a rule trained before.
        width: of the linear layer between features and LSTM.
        hidden_size: of each LSTM layer and direction.
        num_layers: stacked LSTM layers.
        bidirectional: read each sequence from both ends.
        embedding: what stands for the sequence. `last`: the top layer's last hidden state, of both directions where
            there are two; `mean`: the top layer's outputs averaged over the frames.
        dropout: probability between LSTM layers.
        mask_input: tell the LSTM which frames are missing, by one more input of the linear layer. The features of a
            missing frame are zero either way.
        decode: `next` makes one image from the embedding, and further ones by reading its own predictions; `sequence`
            unrolls a second LSTM from the embedding, an image each step.

    Raises:
        UserError: dropout with a single LSTM layer, which has no place for it.
    """

    def __init__(
        self,
        encoder: ConvEncoder,
        width: Positive = 128,
        hidden_size: Positive = 25,
        num_layers: Positive = 3,
        bidirectional: bool = False,
        embedding: Literal["last", "mean"] = "last",
        dropout: Fraction = 0.0,
        mask_input: bool = False,
        decode: Literal["next", "sequence"] = "next",
    ):
        super().__init__()
        if dropout and num_layers == 1:
            raise UserError(f"model.dropout={dropout}: acts between LSTM layers, model.num_layers=1 has none")
        self.encoder = encoder
        self.mask_input, self.embedding = mask_input, embedding
        self.widen = nn.Sequential(nn.Linear(encoder.latent_dim + mask_input, width), nn.ReLU())
        self.lstm = nn.LSTM(
            width, hidden_size, num_layers, batch_first=True, dropout=dropout, bidirectional=bidirectional
        )
        self.embedding_dim = hidden_size * (1 + bidirectional)
        self.unroll = (
            nn.LSTM(self.embedding_dim, self.embedding_dim, batch_first=True) if decode == "sequence" else None
        )
        self.decoder = encoder.mirrored(self.embedding_dim)

    def forward(
        self, frames: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None, steps: int = 1
    ) -> Output:
        """Predict `steps` images.

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
        valid = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
        encoded = self.encoder(frames[valid])
        return encoded.new_zeros(*valid.shape, encoded.shape[-1]).masked_scatter(valid[..., None], encoded)

    def predict(
        self, features: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None, steps: int = 1
    ) -> Output:
        """As `forward`, from features (B, T, d) of the frames: what can be kept when the encoder is frozen."""
        embedding = self.embed(features, lengths, observed)
        if self.unroll is not None:
            states, _ = in_float32(self.unroll, embedding[:, None].expand(-1, steps, -1))
            return Output(self.decoder(states.flatten(0, 1)).unflatten(0, states.shape[:2]), embedding=embedding)
        images = [self.decoder(embedding)]
        while len(images) < steps:
            features, lengths, observed = _append(features, self.encoder(images[-1]), lengths, observed)
            images.append(self.decoder(self.embed(features, lengths, observed)))
        return Output(torch.stack(images, 1), embedding=embedding)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile encoder and decoder, which training calls one by one; an LSTM is not compiled."""
        self.encoder.compile(*args, **kwargs)
        self.decoder.compile(*args, **kwargs)

    def embed(self, features: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """Features (B, T, d) -> embedding of the sequences (B, embedding_dim)."""
        if observed is not None:
            features = features.masked_fill(~observed[..., None], 0)
        if self.mask_input:
            seen = features.new_ones(features.shape[:2]) if observed is None else observed.to(features.dtype)
            features = torch.cat((features, seen[..., None]), -1)
        sequence = self.widen(features)
        if lengths is not None:
            sequence = pack_padded_sequence(sequence, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, (hidden, _) = in_float32(self.lstm, sequence)
        if self.embedding != "mean":
            directions = 1 + self.lstm.bidirectional
            return hidden[-directions:].transpose(0, 1).flatten(1)
        if lengths is None:
            return outputs.mean(1)
        return pad_packed_sequence(outputs, batch_first=True)[0].sum(1) / lengths[:, None]


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
