"""The CNN-LSTM: against a loop over frames and LSTM cells, padding, causality, gaps."""

import itertools

import pytest
import torch
from torch import nn

from healing_mnist.checks import UserError
from healing_mnist.networks.autoencoder import Autoencoder, ConvEncoder
from healing_mnist.networks.cnn_lstm import CNNLSTM

SIZE = 14


def make(freeze=True, **options):
    torch.manual_seed(0)
    encoder = ConvEncoder((1, SIZE, SIZE), latent_dim=4, channels=[3, 5], hidden=16, freeze=freeze)
    network = CNNLSTM(encoder, **{"width": 8, "hidden_size": 6, **options}).eval()
    for module in network.modules():  # statistics as after some training, so that batch norm does something
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return network


def sequences(batch=5, time=6, seed=1):
    return torch.rand(batch, time, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def run_cells(network, sequence, layer, suffix=""):
    """One direction of one LSTM layer over (T, features), with the equations written out: (T, hidden)."""
    weights = [
        getattr(network.lstm, f"{kind}_l{layer}{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    hidden = cell = torch.zeros(network.lstm.hidden_size)
    states = []
    for x in sequence:
        i, f, g, o = (weights[0] @ x + weights[2] + weights[1] @ hidden + weights[3]).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        states.append(hidden)
    return torch.stack(states)


def slow_embedding(network, frames, embedding):
    """Embedding of one sequence (T, C, H, W) by loops."""
    sequence = torch.stack([network.widen(network.encoder(frame[None])[0]) for frame in frames])
    for layer in range(network.lstm.num_layers):
        forward = run_cells(network, sequence, layer)
        if network.lstm.bidirectional:
            backward = run_cells(network, sequence.flip(0), layer, "_reverse")
            sequence, last = torch.cat((forward, backward.flip(0)), 1), torch.cat((forward[-1], backward[-1]))
        else:
            sequence, last = forward, forward[-1]
    return sequence.mean(0) if embedding == "mean" else last


OPTIONS = list(itertools.product([False, True], ["last", "mean"]))


@pytest.mark.parametrize(("bidirectional", "embedding"), OPTIONS)
@torch.no_grad()
def test_is_encoder_lstm_decoder(bidirectional, embedding):
    network = make(bidirectional=bidirectional, embedding=embedding)
    frames = sequences()
    output = network(frames)
    expected = torch.stack([slow_embedding(network, sequence, embedding) for sequence in frames])
    assert output.embedding.shape == (5, network.embedding_dim) == (5, 12 if bidirectional else 6)
    torch.testing.assert_close(output.embedding, expected, atol=1e-6, rtol=1e-5)
    assert output.image.shape == (5, 1, 1, SIZE, SIZE)
    torch.testing.assert_close(output.image[:, 0], network.decoder(expected))
    assert output.image.min() >= 0
    assert output.image.max() <= 1


@pytest.mark.parametrize("decode", ["next", "sequence"])
@pytest.mark.parametrize(("bidirectional", "embedding"), OPTIONS)
@torch.no_grad()
def test_padding_never_changes_a_result(bidirectional, embedding, decode):
    network = make(bidirectional=bidirectional, embedding=embedding, decode=decode, mask_input=True)
    frames, lengths = sequences(), torch.tensor([3, 6, 1, 4, 6])
    observed = torch.rand(5, 6, generator=torch.Generator().manual_seed(3)) < 0.6
    together = network(frames, lengths, observed, steps=3)
    for i, length in enumerate(lengths):
        alone = network(frames[i : i + 1, :length], observed=observed[i : i + 1, :length], steps=3)
        torch.testing.assert_close(together.image[i], alone.image[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(together.embedding[i], alone.embedding[0], atol=1e-6, rtol=1e-5)
    # Whatever lies in the padding, it is not looked at.
    padding = torch.arange(6) >= lengths[:, None]
    other = network(torch.where(padding[..., None, None, None], 0.7, frames), lengths, observed, steps=3)
    assert torch.equal(other.image, together.image)


def test_padding_does_not_enter_batch_norm_when_the_encoder_is_trained():
    frames, lengths = sequences(), torch.tensor([3, 6, 1, 4, 6])
    padding = (torch.arange(6) >= lengths[:, None])[..., None, None, None]
    statistics = []
    for filler in (0.0, 1.0):
        network = make(freeze=False).train()
        network(torch.where(padding, filler, frames), lengths)
        statistics.append(network.encoder.convolutions[3].running_mean.clone())
    assert torch.equal(*statistics)


@torch.no_grad()
def test_a_later_frame_changes_no_earlier_output_of_one_direction():
    frames = sequences()
    changed = frames.clone()
    changed[:, 4] = 1 - changed[:, 4]
    for bidirectional in (False, True):
        network = make(bidirectional=bidirectional)
        before, after = (network.lstm(network.widen(network.encode(x)))[0] for x in (frames, changed))
        assert torch.equal(before[:, :4], after[:, :4]) != bidirectional
        assert not torch.equal(before[:, 4:], after[:, 4:])


@torch.no_grad()
def test_predictions_after_each_prefix_do_not_see_what_follows():
    network = make()
    frames = sequences()
    prefixes = [network(frames, lengths=torch.full((5,), t)).image for t in range(1, 7)]
    frames[:, 3:] = 0.3
    for t in range(1, 4):
        assert torch.equal(network(frames, lengths=torch.full((5,), t)).image, prefixes[t - 1])


@torch.no_grad()
def test_missing_frames_count_as_told():
    frames, observed = sequences(), torch.ones(5, 6, dtype=torch.bool)
    observed[:, 2] = False
    changed = frames.clone()
    changed[:, 2] = 0.9
    for mask_input in (False, True):
        network = make(mask_input=mask_input)
        missing = network(frames, observed=observed).image
        assert torch.equal(missing, network(changed, observed=observed).image)  # what lies in the gap is not looked at
        assert not torch.equal(missing, network(frames).image)
        assert torch.equal(network(frames).image, network(frames, observed=torch.ones_like(observed)).image)
    features = network.encode(frames)
    features[:, 2] = 0
    assert not torch.equal(network.predict(features).image, missing)  # the mask says more than zero features do


@torch.no_grad()
def test_sequence_decoder_starts_from_the_embedding_alone():
    network = make(decode="sequence")
    frames = sequences(batch=2)
    output = network(frames, steps=6)
    assert output.image.shape == frames.shape
    states, _ = network.unroll(output.embedding[:, None].repeat(1, 6, 1))
    for t in range(6):
        torch.testing.assert_close(output.image[:, t], network.decoder(states[:, t]), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_kept_features_give_the_same():
    network = make(mask_input=True)
    frames, lengths = sequences(), torch.tensor([3, 6, 1, 4, 6])
    features = network.encode(frames, lengths)
    assert torch.equal(network.predict(features, lengths).image, network(frames, lengths).image)


@pytest.mark.parametrize("decode", ["next", "sequence"])
@pytest.mark.parametrize("mask_input", [False, True])
@pytest.mark.parametrize(("bidirectional", "embedding"), OPTIONS)
def test_gradients_reach_every_parameter(bidirectional, embedding, mask_input, decode):
    options = {"embedding": embedding, "mask_input": mask_input, "decode": decode}
    network = make(freeze=False, bidirectional=bidirectional, **options).train()
    network(sequences(), torch.tensor([3, 6, 2, 4, 6]), steps=2).image.square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_frozen_encoder_stays_as_it_is():
    network = make(freeze=True).train()
    before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(sequences(), steps=2).image.sum().backward()
    optimizer.step()
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_decoder_mirrors_whatever_encoder_there_is():
    options = {"kernel_size": 5, "activation": "elu", "batch_norm": "none", "dropout": 0.1, "hidden": 40}
    network = CNNLSTM(ConvEncoder((1, 28, 28), 6, [4, 8], **options), hidden_size=7)
    whole = Autoencoder((1, 28, 28), 7, [4, 8], **options)
    assert str(network.decoder) == str(whole.decoder)
    assert network(torch.rand(2, 3, 1, 28, 28)).image.shape == (2, 1, 1, 28, 28)


def test_dropout_needs_two_layers():
    with pytest.raises(UserError, match=r"dropout=0\.5: acts between LSTM layers"):
        make(num_layers=1, dropout=0.5)


@pytest.mark.parametrize("decode", ["next", "sequence"])
def test_the_recurrent_layers_stay_in_float32_under_autocast(decode):
    network, frames, lengths = make(decode=decode), sequences(), torch.tensor([3, 6, 1, 4, 6])
    seen = []
    for layer in (network.lstm, network.unroll):
        if layer is not None:
            layer.register_forward_pre_hook(lambda module, given: seen.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network.encode(frames, lengths)
        assert features.dtype == torch.bfloat16
        assert network.predict(features, lengths, steps=2).embedding.dtype == torch.float32
    assert seen
    assert not any(seen)


def test_compiling_reaches_what_training_calls():
    network = make()
    network.compile(backend="eager")
    assert network.encoder._compiled_call_impl is not None
    assert network.decoder._compiled_call_impl is not None
    assert network._compiled_call_impl is None


def test_embeddings_are_widened_with_a_relu():
    torch.manual_seed(0)
    widen = CNNLSTM(ConvEncoder((1, SIZE, SIZE), 5, [4, 8]), width=11).widen
    inputs = torch.randn(7, 5)
    torch.testing.assert_close(widen(inputs), (inputs @ widen[0].weight.T + widen[0].bias).clamp(min=0))


@pytest.mark.parametrize("decode", ["next", "sequence"])
def test_parameters_have_the_names_that_checkpoints_know(decode):
    names = [name for name, _ in make(freeze=False, decode=decode, num_layers=1).named_parameters()]
    weights = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    parts = {part: [name for name in names if name.startswith(f"{part}.")] for part in ("encoder", "decoder")}
    unroll = [f"unroll.{name}" for name in weights] if decode == "sequence" else []
    own = ["widen.0.weight", "widen.0.bias", *(f"lstm.{name}" for name in weights), *unroll]
    assert names == [*parts["encoder"], *own, *parts["decoder"]]  # the optimizer's state goes by their order
    assert parts["encoder"][0] == "encoder.convolutions.0.weight"
    assert parts["decoder"][0] == "decoder.expand.0.0.weight"
