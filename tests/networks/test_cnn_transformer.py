"""The CNN-Transformer: against attention written out in NumPy, order, padding, gaps."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from healing_mnist.checks import UserError, problems_of
from healing_mnist.config import compose, plain
from healing_mnist.networks import cnn_transformer
from healing_mnist.networks.autoencoder import ConvEncoder
from healing_mnist.networks.cnn_transformer import CNNTransformer, sinusoids

SIZE, CODE = 14, 4
CODES = torch.randn(5, 6, CODE, generator=torch.Generator().manual_seed(2))
LENGTHS = torch.tensor([3, 6, 1, 4, 6])
OBSERVED = torch.tensor(  # nothing of the second sequence, not the last frame of the fourth
    [[1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1], [1, 1, 0, 1, 0, 1]]
).bool()


def make(freeze=True, **options):
    torch.manual_seed(0)
    encoder = ConvEncoder((1, SIZE, SIZE), CODE, [3, 5], hidden=16, freeze=freeze)
    settings = {"width": 12, "heads": 3, "num_layers": 2, "feedforward": 20, "embedding_dim": 7, **options}
    network = CNNTransformer(encoder, **settings).eval()
    with torch.no_grad():  # weights as after training: attention that chooses, and no bias that is zero
        network.widen[0].weight *= 20  # their features differ little
        for name, parameter in network.named_parameters():
            if not name.startswith(("encoder", "decoder")):
                parameter += torch.randn_like(parameter) * 0.3
    return network


def sequences(batch=5, time=6, seed=1):
    made = torch.Generator().manual_seed(seed)
    dark = torch.rand(batch, time, 1, 1, 1, generator=made)  # or an encoder that has learned nothing sees no difference
    return torch.rand(batch, time, 1, SIZE, SIZE, generator=made) * dark


def norm(x, layer):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return x * array(layer.weight) + array(layer.bias)


def linear(x, layer):
    return x @ array(layer.weight).T + array(layer.bias)


def array(tensor):
    return tensor.detach().double().numpy()


def position(number, width):
    angles = [number / 10_000 ** (2 * k / width) for k in range(width // 2)]
    return np.array([*np.sin(angles), *np.cos(angles)])


def slow_embedding(network, codes, numbers, following):
    """Embedding (d,) of one sequence: codes (T, d) of the frames that are there, and their positions."""
    width = len(network.token)
    x = np.concatenate(([array(network.token)], np.maximum(linear(array(codes), network.widen[0]), 0)))
    x = x + [position(n, width) for n in (following, *numbers)]
    for layer in network.transformer.layers:
        heads, attention = layer.self_attn.num_heads, layer.self_attn
        q, k, v = np.split(
            norm(x, layer.norm1) @ array(attention.in_proj_weight).T + array(attention.in_proj_bias), 3, 1
        )
        parts = []
        for one in np.split(np.arange(width), heads):
            weights = softmax(q[:, one] @ k[:, one].T / np.sqrt(width / heads), axis=1)
            parts.append(weights @ v[:, one])
        x = x + linear(np.concatenate(parts, 1), attention.out_proj)
        x = x + linear(np.maximum(linear(norm(x, layer.norm2), layer.linear1), 0), layer.linear2)
    return linear(norm(x, network.transformer.norm), network.summarise)[0]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("observed", [None, OBSERVED])
@pytest.mark.parametrize("training", [True, False])  # without gradients torch takes a way of its own
def test_is_attention_over_the_frames_that_are_there(training, observed, lengths):
    network, codes = make(num_layers=3), CODES
    with torch.set_grad_enabled(training):
        output = network.predict(codes, lengths, observed)
    assert output.embedding.std(0).min() > 0.1  # so that what is compared below depends on the frames
    assert output.embedding.shape == (5, 7) == (5, network.embedding_dim)
    for i in range(5):
        valid = 6 if lengths is None else int(lengths[i])
        there = [t for t in range(valid) if observed is None or observed[i, t]]
        expected = slow_embedding(network, codes[i, there], there, valid)
        np.testing.assert_allclose(output.embedding[i].detach(), expected, atol=1e-5)
    assert output.image.shape == (5, 1, 1, SIZE, SIZE)
    torch.testing.assert_close(output.image[:, 0], network.decoder(output.embedding))


@torch.no_grad()
def test_order_is_told_by_positions_alone(monkeypatch):
    network, shuffled = make(), CODES[:, [3, 1, 5, 0, 4, 2]]
    assert (network.embed(CODES) - network.embed(shuffled)).abs().max() > 0.1
    monkeypatch.setattr(cnn_transformer, "sinusoids", lambda positions, width: torch.zeros(len(positions), width))
    torch.testing.assert_close(network.embed(CODES), network.embed(shuffled), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [6, 7])
def test_every_position_is_told_apart_and_a_shift_is_a_rotation(width):
    positions = torch.arange(100)
    found = sinusoids(positions, width)
    assert found.shape == (100, width)
    assert torch.cdist(found, found).add(torch.eye(100)).min() > 1e-3
    if width == 6:  # sin(a + b), cos(a + b) from sin and cos of a, by an angle b of one step
        sin, cos, step = *found[0:-1].split(3, 1), 10_000.0 ** (torch.arange(3) * -2 / 6)
        ahead = torch.cat((sin * step.cos() + cos * step.sin(), cos * step.cos() - sin * step.sin()), 1)
        torch.testing.assert_close(found[1:], ahead, atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_never_changes_a_result():
    network, frames = make(), sequences()
    together = network(frames, LENGTHS, OBSERVED, steps=3)
    for i, length in enumerate(LENGTHS):
        alone = network(frames[i : i + 1, :length], observed=OBSERVED[i : i + 1, :length], steps=3)
        torch.testing.assert_close(together.image[i], alone.image[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.embedding[i], alone.embedding[0], atol=1e-5, rtol=1e-5)
    padding = (torch.arange(6) >= LENGTHS[:, None])[..., None, None, None]
    other = network(torch.where(padding, 0.7, frames), LENGTHS, OBSERVED, steps=3)
    assert torch.equal(other.image, together.image)


@torch.no_grad()
def test_what_lies_in_a_gap_is_not_looked_at():
    network, frames = make(), sequences()
    changed = torch.where(OBSERVED[..., None, None, None], frames, 0.9)
    missing = network(frames, observed=OBSERVED)
    assert missing.image.isfinite().all()  # also where no frame is there
    assert torch.equal(missing.image, network(changed, observed=OBSERVED).image)
    assert not torch.equal(missing.image, network(frames).image)
    complete = network(frames, torch.full((5,), 6), torch.ones(5, 6, dtype=torch.bool))
    torch.testing.assert_close(complete.embedding, network(frames).embedding, atol=1e-5, rtol=1e-5)


def test_layers_begin_with_weights_of_their_own():
    encoder = ConvEncoder((1, SIZE, SIZE), CODE, [3, 5], hidden=16)
    first, second = CNNTransformer(encoder, width=12, heads=3, feedforward=20).transformer.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert not torch.equal(first.self_attn.in_proj_weight, second.self_attn.in_proj_weight)


def test_number_of_parameters():
    width, wide, layers, code, embedding = 12, 20, 3, CODE, 7
    network = make(num_layers=layers)
    attention, linears, norms = 4 * (width + 1) * width, (width + 1) * wide + (wide + 1) * width, 2 * 2 * width
    ends = (code + 1) * width + width + 2 * width + (width + 1) * embedding  # widen, token, last norm, summarise
    own = [p.numel() for name, p in network.named_parameters() if not name.startswith(("encoder.", "decoder."))]
    assert sum(own) == layers * (attention + linears + norms) + ends


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradients_reach_every_parameter(dropout):
    network = make(freeze=False, dropout=dropout).train()
    network(sequences(), LENGTHS, steps=2).image.square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_dropout_acts_while_training_only():
    network, codes = make(dropout=0.5), torch.randn(5, 6, CODE)
    assert torch.equal(network.embed(codes), network.embed(codes))
    assert not torch.equal(network.train().embed(codes), network.embed(codes))


def test_bfloat16():
    network, frames = make(), sequences()
    exact = network(frames, LENGTHS, steps=2)
    with torch.autocast("cpu", torch.bfloat16):
        features = network.encode(frames, LENGTHS)
        rough = network.predict(features, LENGTHS, steps=2)
        with torch.no_grad():
            unlearned = network.predict(features, LENGTHS, steps=2)
    assert features.dtype == torch.bfloat16
    assert rough.embedding.dtype == torch.float32
    for found in (rough, unlearned):
        torch.testing.assert_close(found.image.float(), exact.image, atol=0.05, rtol=0)
        assert not torch.equal(found.embedding, exact.embedding)
    rough.image.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)


def test_shapes_can_be_tried_without_memory():
    with torch.device("meta"):
        network = CNNTransformer(ConvEncoder((1, 28, 28), 25), width=1024, num_layers=50, feedforward=4096)
        output = network(torch.empty(2, 5, 1, 28, 28), steps=3)
    assert output.image.shape == (2, 3, 1, 28, 28)
    assert output.embedding.shape == (2, 50)


def test_heads_share_the_width():
    with pytest.raises(UserError, match=r"model\.heads=5: must divide model\.width=12, which they share"):
        make(heads=5)


def test_settings_that_cannot_be():
    wrong = ["model.heads=0", "model.num_layers=0", "model.dropout=1.5", "+model.bidirectional=true"]
    cfg = compose(["experiment=cnn_transformer", *wrong])
    assert problems_of(plain(cfg.model), "model") == [
        "model.heads=0: must be an integer at least 1",
        "model.num_layers=0: must be an integer at least 1",
        "model.dropout=1.5: must be a number in [0, 1]",
        "model.bidirectional=True: unknown setting of CNNTransformer",
    ]


def test_decoder_mirrors_the_encoder():
    network = make()
    assert str(network.decoder) == str(network.encoder.mirrored(7))
