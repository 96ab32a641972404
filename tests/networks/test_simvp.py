"""SimVP: against its modules applied frame by frame, SciPy's correlation, padding, gaps, roll-out."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch import nn
from torch.nn import functional as F

from healing_mnist.checks import UserError, problems_of
from healing_mnist.config import compose, plain
from healing_mnist.networks.simvp import Inception, SimVP

FRAMES = torch.rand(4, 5, 1, 9, 12, generator=torch.Generator().manual_seed(0))  # (B, T, C, H, W)
LENGTHS = torch.tensor([1, 3, 5, 4])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(window=7, horizon=2, **settings):
    given = {"hidden_channels": 6, "translator_channels": 12, "kernel_sizes": [1, 3, 5], "groups": 3, **settings}
    network = SimVP((1, 9, 12), window, horizon, **given)
    for parameter in network.parameters():  # also norms, which start as zeros and ones
        nn.init.normal_(parameter, std=0.4)
    return network


def in_float64(tensor):
    return tensor.detach().double().numpy()


def test_inception_is_a_sum_of_grouped_convolutions():
    """Every convolution map by map, every norm group by group."""
    module = Inception(5, 6, 4, [3, 5], groups=2)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    maps = torch.rand(2, 5, 7, 8)
    found = module(maps)
    for image, result in zip(maps, found, strict=True):
        weight, bias = in_float64(module.narrow.weight)[..., 0, 0], in_float64(module.narrow.bias)
        narrow = np.einsum("oi,ihw->ohw", weight, in_float64(image)) + bias[:, None, None]
        total = np.zeros((6, 7, 8))
        for conv, norm, _ in module.branches:
            weight, bias = in_float64(conv.weight), in_float64(conv.bias)
            for group in range(2):
                read, made = narrow[2 * group : 2 * group + 2], slice(3 * group, 3 * group + 3)
                out = np.stack(
                    [
                        b + sum(correlate(m, k, mode="same") for m, k in zip(read, kernels, strict=True))
                        for kernels, b in zip(weight[made], bias[made], strict=True)
                    ]
                )
                out = (out - out.mean()) / np.sqrt(out.var() + norm.eps)
                out = out * in_float64(norm.weight)[made, None, None] + in_float64(norm.bias)[made, None, None]
                total[made] += np.where(out > 0, out, 0.2 * out)
        np.testing.assert_allclose(in_float64(result), total, atol=1e-4)


@torch.no_grad()
def test_the_network_written_out():
    """Frame by frame, with the layers' weights alone: strides, order of channels and skips are said here anew."""
    network = small(spatial_layers=2, translator_layers=3)

    def block(maps, module, stride, up=None):
        conv, norm, _ = module
        if up is None:
            maps = F.conv2d(maps, conv.weight, conv.bias, stride, 1)
        else:
            maps = F.conv_transpose2d(maps, conv.weight, conv.bias, stride, 1, output_padding=up)
        return F.leaky_relu(F.group_norm(maps, 2, norm.weight, norm.bias), 0.2)

    first = [block(FRAMES[:, t], network.encoder[0], 1) for t in range(5)]
    maps = torch.cat([block(maps, network.encoder[1], 2) for maps in first], 1)
    assert maps.shape == (4, 5 * 6, 5, 6)
    a, b, c = network.translator.down
    d, e, f = network.translator.up
    one = a(maps)
    two = b(one)
    translated = f(torch.cat((e(torch.cat((d(c(two)), two), 1)), one), 1))
    output = network(FRAMES, steps=2)
    torch.testing.assert_close(output.embedding, translated.mean((2, 3)))
    assert output.embedding.shape == (4, 12)
    for step, own in enumerate(translated.split(6, 1)):
        large = block(own, network.decoder[0], 2, up=(0, 1))  # 9 = 2 * 5 - 1 rows, 12 = 2 * 6 - 1 + 1 columns
        last = block(torch.cat((large, first[-1]), 1), network.decoder[1], 1, up=0)
        conv = network.to_image[0]
        image = torch.einsum("oi,bihw->bohw", conv.weight[..., 0, 0], last) + conv.bias.view(-1, 1, 1)
        torch.testing.assert_close(output.image[:, step], 1 / (1 + (-image).exp()), atol=1e-5, rtol=1e-5)


def test_number_of_parameters():
    kernels, hid, wide, inputs, horizon, groups = [3, 5, 7, 11], 16, 32, 2, 1, 4

    def inception(before, after):
        branches = sum((wide // 2 // groups * size**2 + 1) * after + 2 * after for size in kernels)
        return (before + 1) * wide // 2 + branches

    spatial = [9 * 1 * hid, 9 * hid * hid, 9 * hid * hid, 9 * 2 * hid * hid]
    translator = inception(inputs * hid, wide) + 2 * inception(wide, wide) + inception(2 * wide, horizon * hid)
    network = SimVP((1, 36, 36))
    assert sum(p.numel() for p in network.parameters()) == sum(spatial) + 4 * 3 * hid + translator + hid + 1


@torch.no_grad()
def test_a_batch_is_its_sequences_one_by_one_each_with_its_length():
    network = small()
    together = network(FRAMES, LENGTHS, steps=3)
    for b, length in enumerate(LENGTHS):
        alone = network(FRAMES[b : b + 1, :length], steps=3)
        torch.testing.assert_close(together.image[b], alone.image[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.embedding[b], alone.embedding[0], atol=1e-5, rtol=1e-5)
    padding = (torch.arange(5) >= LENGTHS[:, None])[..., None, None, None]
    assert torch.equal(network(torch.where(padding, 0.7, FRAMES), LENGTHS, steps=3).image, together.image)
    assert (network(FRAMES).image[:2, 0] - together.image[:2, 0]).abs().mean() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("gap", [1, 4])
def test_what_lies_in_a_gap_is_not_looked_at(gap):
    network, observed = small(), torch.ones(4, 5, dtype=torch.bool)
    observed[:, gap] = False
    observed[0] = False  # nothing is there
    changed = torch.where(observed[..., None, None, None], FRAMES, 0.9)
    missing = network(FRAMES, observed=observed).image
    assert torch.equal(missing, network(changed, observed=observed).image)
    assert (missing - network(FRAMES).image).abs().mean() > 1e-3
    blank = FRAMES * observed[..., None, None, None]
    assert not torch.equal(missing, network(blank).image)  # no frame is another thing than a black one
    assert torch.equal(network(FRAMES, observed=torch.ones_like(observed)).image, network(FRAMES).image)


@torch.no_grad()
def test_a_gap_stays_where_it_is_while_predictions_follow():
    network, seen = small(window=6, horizon=1), torch.tensor([True, True, False, True, True]).expand(4, 5)
    rolled, frames = network(FRAMES, observed=seen, steps=4).image, FRAMES
    for step in range(4):
        image = network(frames[:, -5:], observed=seen[:, -5:]).image
        torch.testing.assert_close(rolled[:, step], image[:, 0])
        frames, seen = torch.cat((frames, image), 1), torch.cat((seen, seen.new_ones(4, 1)), 1)


@torch.no_grad()
def test_the_skip_comes_from_the_last_frame_that_is_there():
    network, observed = small(horizon=1, window=6), torch.tensor([True, True, True, False, False]).expand(4, 5)
    skipped = []
    network.decoder[-1].register_forward_pre_hook(lambda module, given: skipped.append(given[0][:, 6:]))
    network(FRAMES, observed=observed)
    torch.testing.assert_close(skipped[0], network.encoder[0](FRAMES[:, 2]))


@torch.no_grad()
@pytest.mark.parametrize("horizon", [1, 2])
def test_later_frames_are_predicted_from_earlier_predictions(horizon):
    network = small(window=3 + horizon, horizon=horizon)
    frames = FRAMES[:, :3]
    first = network(frames, steps=horizon).image
    second = network(torch.cat((frames, first), 1)[:, -3:], steps=horizon).image
    expected = torch.cat((first, second), 1)
    for steps in range(1, 2 * horizon + 1):
        torch.testing.assert_close(network(frames, steps=steps).image, expected[:, :steps])
    short = network(frames[:, :1], steps=2 * horizon).image
    again = network(torch.cat((frames[:, :1], short[:, :horizon]), 1), steps=horizon).image
    torch.testing.assert_close(short[:, horizon:], again)


@pytest.mark.parametrize("shape", [(1, 36, 36), (3, 32, 32), (1, 27, 14), (1, 5, 1)])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_shapes_and_gradients(shape, layers):
    network = SimVP(shape, window=4, horizon=2, hidden_channels=4, spatial_layers=layers, translator_channels=8)
    output = network(torch.rand(2, 2, *shape), steps=2)
    assert output.image.shape == (2, 2, *shape)
    assert output.image.min() >= 0
    assert output.image.max() <= 1
    output.image.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_longer_sequences_are_refused():
    message = r"model\.window=4: reads 2 frames \(model\.horizon=2 .*the data give 5; must be at least 7"
    with pytest.raises(UserError, match=message):
        small(window=4)(FRAMES)


def test_bfloat16():
    network = small()
    exact = network(FRAMES, LENGTHS, steps=3).image
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(FRAMES, LENGTHS, steps=3)
    assert rough.image.dtype == rough.embedding.dtype == torch.float32
    assert (rough.image - exact).abs().mean() < 0.02
    assert not torch.equal(rough.image, exact)
    rough.image.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_shapes_can_be_tried_without_memory():
    with torch.device("meta"):
        network = SimVP((1, 36, 36), hidden_channels=512, translator_channels=4096)
        output = network(torch.empty(2, 2, 1, 36, 36), steps=3)
    assert output.image.shape == (2, 3, 1, 36, 36)
    assert output.embedding.shape == (2, 512)


def test_compiled():
    def images_and_gradients(network):
        image = network(FRAMES).image
        image.square().sum().backward()
        return [image, *(p.grad for p in network.parameters())]

    network = small()
    eager = images_and_gradients(network)
    network.zero_grad()
    network.compile(backend="aot_eager")
    for found, expected in zip(images_and_gradients(network), eager, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 7}, r"model\.horizon=7: must be below model\.window=7"),
        ({"hidden_channels": 3}, r"model\.hidden_channels=3: must be a multiple of 2"),
        ({"groups": 5}, r"model\.groups=5: must divide half of model\.translator_channels=12"),
        ({"hidden_channels": 4}, r"model\.groups=3: .* model\.horizon=2 times model\.hidden_channels=4"),
        ({"kernel_sizes": [3, 4]}, r"model\.kernel_sizes=\[3, 4\]: 4 must be odd"),
    ],
)
def test_settings_that_do_not_fit_each_other(settings, message):
    with pytest.raises(UserError, match=message):
        small(**settings)


def test_settings_that_cannot_be():
    wrong = ["model.groups=0", "model.kernel_sizes=[]", "model.spatial_layers=0", "model.translator_layers=0"]
    assert problems_of(plain(compose(["experiment=simvp", *wrong]).model), "model") == [
        "model.spatial_layers=0: must be an integer at least 1",
        "model.translator_layers=0: must be an integer at least 1",
        "model.kernel_sizes=[]: must be a list with at least one value",
        "model.groups=0: must be an integer at least 1",
    ]


def test_it_reads_as_many_frames_as_the_longest_example_has():
    for said, frames in (
        (["data.window=5"], 5),
        (["data=sequences"], 6),
        (["data=sequences", "data.length=[3,8]"], 8),
    ):
        assert compose(["experiment=simvp", *said]).model.window == frames
