import pytest
import torch
from torch import nn

from healing_mnist.networks.layers import ToImage


def value_and_gradients(layer, maps, target):
    maps = maps.clone().requires_grad_()
    image = layer(maps)
    (image - target).pow(3).sum().backward()
    return image.detach(), maps.grad, layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("geometry", [(3, 2, 1, 1), (3, 2, 0, 0), (5, 2, (2, 1), (1, 0)), (2, 3, 0, (2, 1)), (4, 2, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_to_image_is_a_transposed_convolution(channels, geometry, memory_format):
    torch.manual_seed(0)
    reference = nn.ConvTranspose2d(4, channels, *geometry).double()
    layer = ToImage(4, channels, *geometry).double()
    layer.load_state_dict(reference.state_dict())
    maps = torch.randn(5, 4, 6, 7, dtype=torch.float64)
    target = torch.randn_like(reference(maps))
    expected = value_and_gradients(reference, maps, target)
    found = value_and_gradients(layer.to(memory_format=memory_format), maps.to(memory_format=memory_format), target)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_to_image_under_autocast():
    torch.manual_seed(0)
    layer, maps = ToImage(4, 1, 3, stride=2), torch.randn(2, 4, 6, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = layer(maps)
    image.float().sum().backward()
    assert image.dtype == torch.bfloat16
    torch.testing.assert_close(image.float(), layer(maps), rtol=0.02, atol=0.02)
    assert layer.weight.grad.dtype == torch.float32
