"""CNN-LSTM: an encoder on every frame, an LSTM over time, a decoder to the next image (R1 5.2)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from healing_mnist.batch import Output
from healing_mnist.checks import Fraction, Positive, UserError
from healing_mnist.networks.autoencoder import ConvEncoder
from healing_mnist.networks.encoded_frames import EncodedFrames
from healing_mnist.networks.layers import in_float32


class CNNLSTM(EncodedFrames):
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
        if dropout and num_layers == 1:
            raise UserError(f"model.dropout={dropout}: acts between LSTM layers, model.num_layers=1 has none")
        super().__init__(encoder, width, mask_input)
        self.embedding = embedding
        self.lstm = nn.LSTM(
            width, hidden_size, num_layers, batch_first=True, dropout=dropout, bidirectional=bidirectional
        )
        self.embedding_dim = hidden_size * (1 + bidirectional)
        self.unroll = (
            nn.LSTM(self.embedding_dim, self.embedding_dim, batch_first=True) if decode == "sequence" else None
        )
        self.decoder = encoder.mirrored(self.embedding_dim)

    def predict(
        self, features: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None, steps: int = 1
    ) -> Output:
        if self.unroll is None:
            return super().predict(features, lengths, observed, steps)
        embedding = self.embed(features, lengths, observed)
        states, _ = in_float32(self.unroll, embedding[:, None].expand(-1, steps, -1))
        return Output(self.decoder(states.flatten(0, 1)).unflatten(0, states.shape[:2]), embedding=embedding)

    def embed(self, features: Tensor, lengths: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        sequence = self.widened(features, observed)
        if lengths is not None:
            sequence = pack_padded_sequence(sequence, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, (hidden, _) = in_float32(self.lstm, sequence)
        if self.embedding != "mean":
            directions = 1 + self.lstm.bidirectional
            return hidden[-directions:].transpose(0, 1).flatten(1)
        if lengths is None:
            return outputs.mean(1)
        return pad_packed_sequence(outputs, batch_first=True)[0].sum(1) / lengths[:, None]
