import pytest
import torch
from torch import nn

from healing_mnist.networks.darknet import DarknetClassifier


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 9, 9)])
def test_shapes_and_gradients(shape):
    network = DarknetClassifier(shape, 7, [8, 16])
    output = network(torch.rand(3, *shape))
    assert output.logits.shape == (3, 7)
    assert output.embedding.shape == (3, 16)
    output.logits.logsumexp(1).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_twenty_steps_lower_the_loss():
    torch.manual_seed(0)
    network, images, label = DarknetClassifier((3, 16, 16), 4, [8, 16]), torch.rand(16, 3, 16, 16), torch.arange(16) % 4
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(network(images).logits, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_network_written_out():
    """Convolution, batch norm, leaky ReLU of slope 0.1; the mean of the last maps into one linear layer."""
    torch.manual_seed(0)
    network = DarknetClassifier((3, 16, 16), 7, [8, 16]).eval()
    maps = images = torch.rand(2, 3, 16, 16)
    for part in network.features.modules():
        if isinstance(part, (nn.Conv2d, nn.MaxPool2d)):
            maps = part(maps)
        elif isinstance(part, nn.BatchNorm2d):
            maps = nn.functional.leaky_relu(part(maps), 0.1)
    torch.testing.assert_close(network(images).logits, network.head(maps.mean((2, 3))))
