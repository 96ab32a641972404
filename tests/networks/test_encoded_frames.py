"""What networks of encoded frames share, whatever reads the codes: a prediction is read as if it had been seen."""

from functools import partial

import pytest
import torch

from healing_mnist.networks.autoencoder import ConvEncoder
from healing_mnist.networks.cnn_lstm import CNNLSTM
from healing_mnist.networks.cnn_transformer import CNNTransformer

LENGTHS = torch.tensor([3, 6, 1, 4, 6])
OBSERVED = torch.tensor(
    [[1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1], [1, 1, 0, 1, 0, 1]]
).bool()
KINDS = {
    "LSTM": partial(CNNLSTM, width=8, hidden_size=6, num_layers=1, mask_input=True),
    "LSTM both ways": partial(CNNLSTM, width=8, hidden_size=6, bidirectional=True),
    "Transformer": partial(CNNTransformer, width=12, heads=3, feedforward=20),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("observed", [OBSERVED, torch.ones_like(OBSERVED)])
@torch.no_grad()
def test_later_steps_read_the_predictions_before_them(kind, observed):
    torch.manual_seed(0)
    network = KINDS[kind](ConvEncoder((1, 14, 14), 4, [3, 5], hidden=16)).eval()
    for parameter in network.parameters():  # weights as after training, so that it matters what is read
        parameter += 0.3 * torch.randn_like(parameter)
    network.widen[0].weight *= 20
    frames = torch.rand(5, 6, 1, 14, 14)
    rolled = network(frames, LENGTHS, observed, steps=3).image
    for i, length in enumerate(LENGTHS):
        sequence, there = frames[i : i + 1, :length], observed[i : i + 1, :length]
        for step in range(3):
            image = network(sequence, observed=there).image
            torch.testing.assert_close(rolled[i, step], image[0, 0], atol=1e-5, rtol=1e-5)
            sequence, there = torch.cat((sequence, image), 1), torch.cat((there, there.new_ones(1, 1)), 1)
