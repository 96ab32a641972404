"""CNN-Transformer: an encoder on every frame, a Transformer over time, a decoder to the next image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from healing_mnist.batch import valid_frames
from healing_mnist.checks import Fraction, Positive, UserError
from healing_mnist.networks.autoencoder import ConvEncoder
from healing_mnist.networks.encoded_frames import EncodedFrames


class CNNTransformer(EncodedFrames):
    """Predict the images that follow a sequence, as `CNNLSTM` does, with attention (Vaswani et al. 2017) for the LSTM.

    A learned token stands for the frame asked for: it has the position after the last frame, and what the Transformer
    makes of it is the embedding. Padding and missing frames are masked: nothing attends to them. As every frame brings
    its position, those that are left say which are missing.

    Args:
        encoder: frames (C, H, W) to features (d,), as a rule trained before; whether it is frozen it says itself. The
            decoder is its mirror image and always trained here.
        width: of the linear layer after the features and of the Transformer.
        heads: of attention in each layer; they share `width`.
        num_layers: stacked Transformer layers, normalised before attention and before the linear layers: learning
            needs no slow start then (Xiong et al. 2020).
        feedforward: width between the two linear layers at the end of each Transformer layer.
        dropout: probability, in each Transformer layer.
        embedding_dim: length of the embedding, a linear function of the token.

    Raises:
        UserError: the heads cannot share the width equally.
    """

    def __init__(
        self,
        encoder: ConvEncoder,
        width: Positive = 128,
        heads: Positive = 4,
        num_layers: Positive = 2,
        feedforward: Positive = 256,
        dropout: Fraction = 0.0,
        embedding_dim: Positive = 50,
    ):
        if width % heads:
            raise UserError(f"model.heads={heads}: must divide model.width={width}, which they share")
        super().__init__(encoder, width)
        self.token = nn.Parameter(torch.zeros(width))  # by its position it differs from all frames from the start
        layers = [
            nn.TransformerEncoderLayer(width, heads, feedforward, dropout, batch_first=True, norm_first=True)
            for _ in range(num_layers)
        ]
        # Nested tensors, which leave padding out, are for norms that come last; to ask for them here is to be warned.
        self.transformer = nn.TransformerEncoder(layers[0], num_layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.transformer.layers = nn.ModuleList(layers)  # its own are copies of one, with the same first weights
        self.embedding_dim = embedding_dim
        self.summarise = nn.Linear(width, embedding_dim)
        self.decoder = encoder.mirrored(embedding_dim)

    def embed(self, features: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        count, frames = features.shape[:2]
        width, time = len(self.token), torch.arange(frames, device=features.device)
        following = time.new_full((count,), frames) if lengths is None else lengths
        token = self.token + sinusoids(following, width)
        sequence = torch.cat((token[:, None], self.widened(features, observed) + sinusoids(time, width)), 1)
        hidden = None
        if lengths is not None or observed is not None:
            hidden = torch.zeros(sequence.shape[:2], dtype=torch.bool, device=features.device)  # never the token
            if lengths is not None:
                hidden[:, 1:] |= ~valid_frames(lengths, frames)
            if observed is not None:
                hidden[:, 1:] |= ~observed
        return self.summarise(self.transformer(sequence, src_key_padding_mask=hidden)[:, 0]).float()


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Positions (N,) from 0 -> (N, width): sines, then cosines, with wavelengths from 2 pi to 20,000 pi.

    The angles are position / 10,000^(2k / width) (Vaswani et al. 2017, 3.5, there with sines and cosines in turn).
    """
    pairs = torch.arange((width + 1) // 2, device=positions.device)
    angles = positions[:, None] * torch.exp(pairs * (-2 * math.log(10_000) / width))
    return torch.cat((angles.sin(), angles.cos()), 1)[:, :width]
