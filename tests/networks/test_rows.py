import numpy as np
import pytest
import torch
from torch import nn

from healing_mnist.networks.row_autoencoder import RowAutoencoder
from healing_mnist.networks.row_classifier import RowClassifier
from healing_mnist.networks.rows import SigmoidLSTM, from_rows, recurrent_layer, to_rows

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_rows_run_from_left_to_right_with_channels_together():
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    rows = to_rows(images)
    for b, h, w, c in np.ndindex(2, 4, 5, 3):
        assert rows[b, h, w * 3 + c] == images[b, c, h, w]
    assert torch.equal(from_rows(rows, 3), images)


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("rnn", 1)])
def test_layer_equals_torchs_with_its_second_bias_zero(cell, gates):
    torch.manual_seed(0)
    layer, plain = recurrent_layer(cell, 6, 5), {"lstm": nn.LSTM, "rnn": nn.RNN}[cell](6, 5, batch_first=True)
    assert count(layer) == gates * (5 * (6 + 5) + 5)
    with torch.no_grad():
        layer.bias_ih_l0.normal_()
        plain.load_state_dict({**layer.state_dict(), "bias_hh_l0": torch.zeros(gates * 5)})
    x = torch.randn(3, 7, 6)
    torch.testing.assert_close(layer(x)[0], plain(x)[0])
    moved = layer.double()  # the zero bias moves with the layer
    torch.testing.assert_close(moved(x.double())[0], plain.double()(x.double())[0])


def test_sigmoid_lstm_equals_the_formula():
    torch.manual_seed(0)
    layer, x = SigmoidLSTM(4, 3), torch.randn(2, 5, 4)
    w, u, b = (p.detach().double().numpy() for p in (layer.weight_ih, layer.weight_hh, layer.bias))

    def s(z):
        return 1 / (1 + np.exp(-z))

    for row, found in zip(x.double().numpy(), layer(x).detach().numpy(), strict=True):
        h = c = np.zeros(3)
        for t, step in enumerate(row):
            i, f, g, o = np.split(w @ step + u @ h + b, 4)
            c = s(f) * c + s(i) * s(g)
            h = s(o) * s(c)
            np.testing.assert_allclose(found[t], h, atol=1e-6)


@pytest.mark.parametrize(("cell", "parameters"), [("rnn", 74_080), ("lstm", 259_168)])
def test_parameter_counts_of_the_report(cell, parameters):
    assert count(RowAutoencoder(CIFAR, cell)) == parameters


def lstm_count(inputs, hidden):
    return 4 * (hidden * (inputs + hidden) + hidden)


def test_row_lstm_of_r3():
    network = RowAutoencoder(CIFAR, encoder=[512, 256], decoder=[256], output="sigmoid_lstm")
    expected = lstm_count(96, 512) + lstm_count(512, 256) + lstm_count(256, 256) + lstm_count(256, 96)
    assert count(network) == expected
    output = network(torch.rand(2, *CIFAR))
    assert output.embedding.shape == (2, 256)
    assert 0 < output.image.min() < output.image.max() < 1


NETWORKS = [
    RowAutoencoder(CIFAR, "rnn"),
    RowAutoencoder(MNIST, "lstm"),
    RowAutoencoder(CIFAR, encoder=[24, 16], decoder=[16], output="sigmoid_lstm"),
    RowClassifier(CIFAR, 10, "lstm"),
    RowClassifier(MNIST, 10, "rnn", [32]),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_gets_a_gradient(network):
    shape = MNIST if network.encoder.layers[0].input_size == 28 else CIFAR
    output = network(torch.rand(4, *shape))
    if output.image is not None:
        assert output.image.shape == (4, *shape)
        output.image.square().mean().backward()
    else:
        assert output.logits.shape == (4, 10)
        output.logits.logsumexp(1).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_later_rows_do_not_reach_earlier_states():
    layer, rows = recurrent_layer("lstm", 6, 5), torch.rand(2, 7, 6)
    changed = rows.clone()
    changed[:, 4:] += 1
    before, after = layer(rows)[0], layer(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_a_few_steps_lower_the_error():
    torch.manual_seed(0)
    network, images = (
        RowAutoencoder((1, 8, 8), encoder=[32], decoder=[32], output="sigmoid_lstm"),
        torch.rand(8, 1, 8, 8),
    )
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    errors = []
    for _ in range(20):
        error = (network(images).image - images).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.8 * errors[0]


def test_recurrent_weights_begin_as_in_keras():
    torch.manual_seed(0)
    for layer in (SigmoidLSTM(9, 6), recurrent_layer("lstm", 9, 6)):
        named = dict(layer.named_parameters())
        hidden = next(value for name, value in named.items() if "hh" in name and "weight" in name)
        torch.testing.assert_close(hidden.T @ hidden, torch.eye(6), rtol=0, atol=1e-5)
        bias = sum(value for name, value in named.items() if "bias" in name)
        assert bias.tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 12  # input, forget, cell, output
