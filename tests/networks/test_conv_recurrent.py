"""ConvLSTM, ConvGRU and ConvRNN against nn.LSTM, nn.GRU, nn.RNN and the equations written out in NumPy and loops."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn
from torch.nn import functional as F

from healing_mnist.checks import UserError, problems_of
from healing_mnist.config import compose, plain
from healing_mnist.networks import conv_cells
from healing_mnist.networks.conv_cells import (
    ConvGRUCell,
    ConvLSTMCell,
    ConvRNNCell,
    fast_tanh,
    lstm_update,
)
from healing_mnist.networks.conv_recurrent import ConvGRU, ConvLSTM, ConvRNN
from healing_mnist.networks.winograd import WinogradConvolution

KINDS = [ConvLSTM, ConvGRU, ConvRNN]
FRAMES = torch.rand(3, 4, 1, 6, 5, generator=torch.Generator().manual_seed(0))  # (B, T, C, H, W)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(kind, **settings):
    network = kind((1, 6, 5), **{"layers": 2, "hidden_channels": 3, **settings})
    for parameter in network.parameters():  # also peepholes and norms, which start as zeros and ones
        nn.init.normal_(parameter, std=0.4)
    return network


def as_matrix(conv):
    return conv.weight.detach()[..., 0, 0]


@pytest.mark.parametrize(("kind", "reference"), [(ConvLSTM, nn.LSTM), (ConvGRU, nn.GRU), (ConvRNN, nn.RNN)])
def test_one_by_one_maps_are_the_recurrent_networks_of_torch(kind, reference):
    network = kind((2, 1, 1), layers=2, hidden_channels=5, kernel_size=1, batch_norm=False, activation="none")
    if kind is ConvLSTM:
        for cell in network.cells:
            cell.peepholes = None
    theirs = reference(2, 5, num_layers=2, batch_first=True)
    with torch.no_grad():
        for layer, cell in enumerate(network.cells):
            of_input, of_hidden, bias, second_bias = (
                getattr(theirs, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            if kind is ConvGRU:
                convs = {of_input: (cell.input_conv, bias), of_hidden: (cell.hidden_conv, second_bias)}
                for matrix, (conv, vector) in convs.items():
                    conv.weight.copy_(matrix[..., None, None])
                    conv.bias.copy_(vector)
            else:
                cell.conv.weight.copy_(torch.cat((of_input, of_hidden), 1)[..., None, None])
                cell.conv.bias.copy_(bias + second_bias)
    frames = torch.randn(4, 7, 2)
    hidden = theirs(frames)[0][:, -1]
    output = network(frames[..., None, None])
    assert torch.allclose(output.embedding, hidden, atol=1e-6)
    last = network.to_image[0]
    assert torch.allclose(output.image[:, 0, :, 0, 0], hidden @ as_matrix(last).T + last.bias, atol=1e-6)


def test_conv_lstm_with_peepholes_follows_the_equations():
    """Every convolution, gate by gate and image by image, in float64."""
    cell = ConvLSTMCell(2, 3, 3)
    cell.add_peepholes(5, 4)
    nn.init.normal_(cell.peepholes)
    frames = torch.randn(2, 3, 2, 5, 4)
    state = None
    for t in range(3):
        state = cell(frames[:, t], state)

    weight, bias, (wci, wcf, wco) = (
        p.detach().double().numpy() for p in (cell.conv.weight, cell.conv.bias, cell.peepholes)
    )

    def convolved(gate, x, h):
        maps = np.concatenate((x, h))
        rows = range(3 * gate, 3 * gate + 3)
        return np.stack(
            [bias[k] + sum(correlate(m, w, mode="same") for m, w in zip(maps, weight[k], strict=True)) for k in rows]
        )

    def s(a):
        return 1 / (1 + np.exp(-a))

    for b in range(2):
        h, c = np.zeros((3, 5, 4)), np.zeros((3, 5, 4))
        for x in frames[b].double().numpy():
            i = s(convolved(0, x, h) + wci * c)
            f = s(convolved(1, x, h) + wcf * c)
            c = f * c + i * np.tanh(convolved(2, x, h))
            o = s(convolved(3, x, h) + wco * c)
            h = o * np.tanh(c)
        assert np.allclose(state[0][b].detach(), h, atol=1e-6)
        assert np.allclose(state[1][b].detach(), c, atol=1e-6)


def plain_update(gates, memory, peepholes):
    """The equations after the convolutions, left to autograd."""
    i, f, g, o = gates.chunk(4, 1)
    memory = torch.zeros_like(i) if memory is None else memory
    wci, wcf, wco = torch.zeros(3, *i.shape[1:]) if peepholes is None else peepholes
    new = torch.sigmoid(f + wcf * memory) * memory + torch.sigmoid(i + wci * memory) * torch.tanh(g)
    return torch.sigmoid(o + wco * new) * torch.tanh(new), new


@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_hand_written_derivative_is_that_of_the_plain_formula(peepholes, layout):
    """Images, state and all gradients of a whole network, in float32, where tanh is a formula of our own."""
    results = []
    for update in (lstm_update, plain_update):
        torch.manual_seed(1)
        network = small(ConvLSTM, peepholes=peepholes, hidden_channels=19).to(memory_format=layout)
        for cell in network.cells:
            cell.update = update
        frames = FRAMES.clone().requires_grad_()
        image = network(frames).image
        image.square().sum().backward()
        results.append([image, frames.grad, *(p.grad for p in network.parameters())])
    for fast, slow in zip(*results, strict=True):
        assert (fast - slow).abs().max() < 1e-5 * slow.abs().max()


@pytest.mark.parametrize("slow", [True, False])
def test_fast_tanh_is_tanh(monkeypatch, slow):
    monkeypatch.setattr(conv_cells, "SLOW_TANH", slow)
    x = torch.cat((torch.linspace(-20, 20, 100_001), torch.tensor([-1e30, 0.0, 1e-8, 1e30])))
    assert (fast_tanh(x) - x.double().tanh()).abs().max() < 3e-7
    rough = x.bfloat16()
    assert torch.allclose(fast_tanh(rough), rough.double().tanh().bfloat16(), rtol=2**-7, atol=3e-7)


@pytest.mark.parametrize("kind", [ConvLSTMCell, ConvGRUCell, ConvRNNCell])
@pytest.mark.parametrize("state_given", [True, False])
def test_gradients(kind, state_given):
    cell = kind(1, 2, 3).double()
    if kind is ConvLSTMCell:
        cell.add_peepholes(3, 3)
        cell.peepholes.data = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    frame = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    count = 2 if kind is ConvLSTMCell else 1
    states = [torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(count * state_given)]

    def step(frame, *tensors):
        return cell(frame, tensors[: len(states)] or None)

    assert torch.autograd.gradcheck(step, (frame, *states, *cell.parameters()))


WIDE = {ConvLSTMCell: (1, 32, 2), ConvGRUCell: (40, 40, 1), ConvRNNCell: (40, 120, 1)}  # in, hidden, maps of a state


@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("state_given", [True, False])
def test_wide_cells_convolve_by_winograds_method(kind, state_given, monkeypatch):
    """For all convolutions but of a single-channel frame; new state and gradients are those of torch's convolution."""
    channels, hidden, count = WIDE[kind]
    cell = kind(channels, hidden).to(memory_format=torch.channels_last)
    frame = torch.rand(2, 36, 36, channels).permute(0, 3, 1, 2)
    frame = torch.rand(2, 2, 1, 36, 36)[:, 1] if channels == 1 else frame  # as it is cut out of a sequence
    state = torch.rand(count, 2, 36, 36, hidden).permute(0, 1, 4, 2, 3).unbind() if state_given else None
    taken, found, fast = [], [], WinogradConvolution.apply
    for way in (lambda *of: taken.append(of) or fast(*of), lambda maps, *of: F.conv2d(maps, *of, padding=1)):
        monkeypatch.setattr(WinogradConvolution, "apply", way)
        cell.zero_grad()
        made = cell(frame, state)
        sum(part.square().sum() for part in made).backward()
        found.append([*made, *(parameter.grad for parameter in cell.parameters())])
    assert len(taken) == {ConvLSTMCell: state_given, ConvGRUCell: 1 + state_given, ConvRNNCell: 1}[kind]
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5 * torchs.abs().max().item())


def test_other_types_and_layouts_convolve_by_torchs(monkeypatch):
    monkeypatch.setattr(WinogradConvolution, "apply", lambda *of: pytest.fail("not for these"))
    maps, conv = torch.rand(2, 80, 36, 36), conv_cells.same_conv(80, 160, 3)
    for given in (maps, maps.to(memory_format=torch.channels_last).double()):
        conv_cells.fast_conv2d(given, conv.weight.to(given.dtype), conv.bias.to(given.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        conv_cells.fast_conv2d(maps.to(memory_format=torch.channels_last), conv.weight, conv.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_no_state_is_a_state_of_zeros(kind):
    network = small(kind)
    zeros = torch.zeros(3, 3, 6, 5)
    state = [(zeros, zeros) if kind is ConvLSTM else (zeros,)] * 2
    assert torch.allclose(network(FRAMES).image, network(FRAMES, state=state).image, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_carries_one_part_of_a_sequence_on_to_the_next(kind):
    network = small(kind).eval()
    state = network.unroll(FRAMES[:, :3])
    assert torch.allclose(network(FRAMES[:, 3:], state=state).image, network(FRAMES).image, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_sequences_one_by_one_each_with_its_length(kind):
    network = small(kind).eval()
    lengths = torch.tensor([1, 3, 4])
    together = network(FRAMES, lengths, steps=2)
    for b, length in enumerate(lengths):
        alone = network(FRAMES[b : b + 1, :length], steps=2)
        assert torch.allclose(together.image[b], alone.image[0], atol=1e-6)
        assert torch.allclose(together.embedding[b], alone.embedding[0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_learned_from(kind):
    lengths = torch.tensor([1, 3, 4])
    results = []
    for more in (0, 2):  # frames of padding beyond the longest sequence
        torch.manual_seed(1)
        network = small(kind)
        frames = nn.functional.pad(FRAMES, (0, 0) * 3 + (0, more))
        frames[torch.arange(4 + more) >= lengths[:, None]] = 0.1 * more
        image = network(frames, lengths).image
        image.square().sum().backward()
        results.append([image, network.norms[0].running_mean, *(p.grad for p in network.parameters())])
    for some, others in zip(*results, strict=True):
        assert (some - others).abs().max() <= 1e-5 * some.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_later_frames_are_predicted_from_earlier_predictions(kind):
    network = small(kind).eval()
    first = network(FRAMES).image
    second = network(torch.cat((FRAMES, first), 1)).image
    assert torch.allclose(network(FRAMES, steps=2).image, torch.cat((first, second), 1), atol=1e-6)


def test_a_missing_frame_is_read_as_black():
    network = small(ConvLSTM)
    observed = torch.tensor([True, False, True, True]).expand(3, 4)
    black = FRAMES.clone()
    black[:, 1] = 0
    assert torch.equal(network(FRAMES, observed=observed).image, network(black).image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 7])
def test_every_parameter_gets_a_gradient(kind, layers):
    network = small(kind, layers=layers, activation="sigmoid")
    network(FRAMES).image.square().sum().backward()
    assert len(network.cells) == layers
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    network.zero_grad()
    network(FRAMES[:, :1]).image.sum().backward()  # the recurrent weights do nothing here, but ddp waits for them
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(kind):
    network = small(kind)
    exact = network(FRAMES).image
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(FRAMES)
        state = network.unroll(FRAMES)
    assert {part.dtype for layer in state for part in layer} == {torch.bfloat16}
    assert rough.image.dtype == rough.embedding.dtype == torch.float32
    assert torch.allclose(rough.image, exact, atol=0.05)
    assert not torch.equal(rough.image, exact)
    rough.image.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("kind", "backend"),
    [*((kind, "aot_eager") for kind in KINDS), pytest.param(ConvLSTM, "inductor", marks=pytest.mark.slow)],
)
def test_compiled(kind, backend):
    def images_and_gradients(network):
        image = network(FRAMES[:, :3]).image
        image.square().sum().backward()
        return [image, *(p.grad for p in network.parameters())]

    network = small(kind, layers=1)
    plain = images_and_gradients(network)
    network.zero_grad()
    network.compile(backend=backend)
    for eager, compiled in zip(plain, images_and_gradients(network), strict=True):
        assert torch.allclose(eager, compiled, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_can_be_tried_without_memory(kind):
    with torch.device("meta"):
        output = small(kind, layers=4, hidden_channels=71)(torch.empty(2, 3, 1, 6, 5), steps=3)
    assert output.image.shape == (2, 3, 1, 6, 5)
    assert output.embedding.shape == (2, 71)


@pytest.mark.parametrize(("activation", "low", "high"), [("relu", 0, 1e9), ("tanh", -1, 1), ("sigmoid", 0, 1)])
def test_output_activation_bounds_the_image(activation, low, high):
    image = small(ConvLSTM, activation=activation)(FRAMES * 100).image
    assert low <= image.min() < image.max() <= high


def test_an_even_kernel_is_refused():
    with pytest.raises(UserError, match=r"model.kernel_size=4: must be odd"):
        ConvLSTM((1, 6, 5), kernel_size=4)


def test_frames_of_another_size_need_a_network_without_peepholes():
    larger = torch.zeros(1, 2, 1, 8, 5)
    assert small(ConvLSTM, peepholes=False)(larger).image.shape == (1, 1, 1, 8, 5)
    with pytest.raises(UserError, match=r"frames are 8x5, the peepholes were made for 6x5; model\.peepholes=false"):
        small(ConvLSTM)(larger)


@pytest.mark.parametrize("name", ["convlstm", "convgru", "convrnn"])
def test_settings_that_cannot_be(name):
    wrong = ["model.layers=0", "model.hidden_channels=0", "model.activation=gelu", "model.kernel_size=0"]
    cfg = compose(["experiment=convlstm", f"model={name}", *wrong])
    assert problems_of(plain(cfg.model), "model") == [
        "model.layers=0: must be an integer at least 1",
        "model.hidden_channels=0: must be an integer at least 1",
        "model.kernel_size=0: must be an integer at least 1",
        "model.activation=gelu: must be one of relu, tanh, sigmoid, none",
    ]


def test_the_forget_gate_begins_open_and_no_other():
    torch.manual_seed(0)
    cell = ConvLSTMCell(2, 8, 3)
    usual = (10 * 9) ** -0.5  # of nn.Conv2d: one over the root of its inputs
    entry, forget, candidate, output = cell.conv.bias.detach().chunk(4)
    for bias, centre in ((entry, 0), (forget, 1), (candidate, 0), (output, 0)):
        assert (bias - centre).abs().max() <= usual
