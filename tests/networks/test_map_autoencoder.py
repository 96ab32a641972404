import pytest
import torch
from torch import nn

from healing_mnist.checks import UserError
from healing_mnist.networks.map_autoencoder import MapAutoencoder


def test_parameter_count_of_the_report():
    assert sum(p.numel() for p in MapAutoencoder((3, 32, 32)).parameters()) == 11_011


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 27, 15)])
def test_shapes_and_gradients(shape):
    network = MapAutoencoder(shape, 8)
    output = network(torch.rand(2, *shape))
    assert output.image.shape == (2, *shape)
    assert output.embedding.shape == (2, 8 * -(-shape[1] // 2) * -(-shape[2] // 2))
    output.image.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_even_kernel_is_refused():
    with pytest.raises(UserError, match="kernel_size=4: must be odd"):
        MapAutoencoder((3, 32, 32), kernel_size=4)


def test_the_network_written_out():
    torch.manual_seed(0)
    network = MapAutoencoder((3, 32, 32), 8)
    first, second, last = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    images = torch.rand(2, 3, 32, 32)
    maps = torch.relu(second(nn.functional.max_pool2d(torch.relu(first(images)), 2)))
    image = torch.sigmoid(last(maps.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    torch.testing.assert_close(network(images).image, image)
