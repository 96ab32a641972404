import pytest
import torch
from torch import nn

from healing_mnist.checks import UserError
from healing_mnist.networks.autoencoder import Autoencoder, ConvEncoder, EmbeddingClassifier, JointAutoencoder
from healing_mnist.networks.classifiers import CNNClassifier

VARIATIONS = [
    {},
    {"downsample": "pool"},
    {"channels": [4, 8, 16, 32]},
    {"channels": [4, 8]},
    {"batch_norm": "all", "activation": "elu"},
    {"batch_norm": "none", "activation": "leaky_relu", "dropout": 0.1},
    {"kernel_size": 5},
]


@pytest.mark.parametrize("options", VARIATIONS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 36, 30)])
def test_reconstruction_has_the_shape_of_the_image(options, shape):
    network = Autoencoder(shape, latent_dim=7, **options)
    output = network(torch.rand(2, *shape))
    assert output.image.shape == (2, *shape)
    assert output.embedding.shape == (2, 7)
    assert output.image.min() >= 0
    assert output.image.max() <= 1


@pytest.mark.parametrize("options", VARIATIONS)
@pytest.mark.parametrize("side", [28, 32, 36])
def test_no_pixel_is_left_out(options, side):
    """Each pixel of the image reaches the embedding, and the embedding reaches each pixel: no border is cut off."""
    torch.manual_seed(0)
    network = Autoencoder((1, side, side), latent_dim=7, **{**options, "activation": "elu", "dropout": 0.0}).eval()
    painted = network.decoder(10 * torch.randn(64, 7))
    assert (painted != painted[:1]).any(0).all()
    images = torch.rand(8, 1, side, side, requires_grad=True)
    network.encoder(images).square().sum().backward()
    assert (images.grad != 0).any(0).all()


def test_layers_are_those_of_the_report():
    """R1 4.2: conv 8, 16, 32 with kernel 3 and stride 2, batch norm after the second, 288, 128, d; mirrored."""
    network = Autoencoder((1, 28, 28), latent_dim=5)
    conv = [m for m in network.encoder.convolutions if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size, m.stride) for m in conv] == [(c, (3, 3), (2, 2)) for c in (8, 16, 32)]
    kinds = [type(m) for m in network.encoder.convolutions]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.ReLU]
    linear = [m for m in network.encoder.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(288, 128), (128, 5)]
    back = [m for m in network.decoder.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in back] == [(5, 128), (128, 288)]
    transposed = [m.out_channels for m in network.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert transposed == [16, 8, 1]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.decoder.modules()) == 1


@pytest.mark.parametrize("options", VARIATIONS)
def test_every_parameter_receives_a_gradient(options):
    torch.manual_seed(0)
    network = JointAutoencoder(image_shape=(1, 28, 28), latent_dim=6, **options)
    output = network(torch.rand(16, 1, 28, 28))
    (output.image.square().mean() + output.logits.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_cnn_classifier_gives_every_parameter_a_gradient():
    network = CNNClassifier((3, 32, 32), num_classes=7)
    output = network(torch.rand(4, 3, 32, 32))
    assert output.logits.shape == (4, 7)
    output.logits.square().mean().backward()
    assert all(p.grad.any() for p in network.parameters())


def test_frozen_encoder_changes_in_nothing_while_training():
    network = EmbeddingClassifier(ConvEncoder((1, 28, 28), 5, freeze=True), latent_dim=5)
    before = {k: v.clone() for k, v in network.encoder.state_dict().items()}
    network(torch.rand(8, 1, 28, 28))  # as it is made: Lightning leaves the mode of modules alone
    network.train()
    network(torch.rand(8, 1, 28, 28)).logits.sum().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.encoder.state_dict().items())  # batch norm counts too
    assert all(p.grad is not None for p in network.classifier.parameters())


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
def test_pooling_fits_every_kernel(kernel_size):
    images = torch.rand(2, 1, 28, 20)
    pooled = Autoencoder((1, 28, 20), kernel_size=kernel_size, downsample="pool")
    assert pooled(images).image.shape == images.shape
    assert CNNClassifier((1, 28, 20), kernel_size=kernel_size)(images).logits.shape == (2, 10)


def test_too_many_blocks_for_the_image_are_refused():
    with pytest.raises(UserError, match="5 layers leave nothing of an image with side 28"):
        CNNClassifier((1, 28, 28), channels=[8] * 5)


@pytest.mark.parametrize("downsample", ["stride", "pool"])
def test_too_many_layers_for_the_image_are_refused(downsample):
    with pytest.raises(UserError, match=r"model\.channels: 6 layers .* side 28"):
        Autoencoder((1, 28, 28), channels=[4] * 6, downsample=downsample)


def test_networks_build_and_run_on_the_meta_device():
    with torch.device("meta"):
        network = JointAutoencoder(image_shape=(1, 28, 28))
        output = network(torch.empty(4, 1, 28, 28))
    assert output.image.device.type == output.logits.device.type == "meta"


def of(module, kind):
    return [part for part in module.modules() if isinstance(part, kind)]


def test_the_joint_network_is_the_reports_written_out():
    """Linear parts are the network's own; what stands between them is written here (R1 4.2, 4.3)."""
    torch.manual_seed(0)
    network = JointAutoencoder(image_shape=(1, 28, 28)).train()
    images = torch.rand(6, 1, 28, 28)
    down, up = of(network.encoder, nn.Conv2d), of(network.decoder, nn.ConvTranspose2d)
    norms = of(network, nn.BatchNorm2d)
    assert [norm.num_features for norm in norms] == [16, 16]
    maps = torch.relu(down[0](images))
    maps = torch.relu(norms[0](down[1](maps)))
    maps = torch.relu(down[2](maps))
    first, second = of(network.encoder, nn.Linear)
    embedding = second(torch.relu(first(maps.flatten(1))))
    first, second = of(network.classifier, nn.Linear)
    logits = second(torch.relu(first(embedding)))
    first, second = of(network.decoder, nn.Linear)
    maps = torch.relu(second(torch.relu(first(embedding)))).view(-1, 32, 3, 3)
    maps = torch.relu(norms[1](up[0](maps)))
    image = torch.sigmoid(up[2](torch.relu(up[1](maps))))
    found = network(images)
    torch.testing.assert_close(found.embedding, embedding)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.image, image)


def test_the_cnn_classifier_is_the_reports_written_out():
    torch.manual_seed(0)
    network = CNNClassifier((1, 28, 28)).eval()
    maps = images = torch.rand(3, 1, 28, 28)
    for convolution in of(network, nn.Conv2d):
        maps = nn.functional.max_pool2d(torch.relu(convolution(maps)), 2)
    first, second = of(network, nn.Linear)
    torch.testing.assert_close(network(images).logits, second(torch.relu(first(maps.flatten(1)))))


def test_dropout_follows_every_activation():
    network = Autoencoder((1, 28, 28), dropout=0.4)
    for part, maps, vectors in ((network.encoder, 3, 1), (network.decoder, 2, 1)):
        assert [drop.p for drop in of(part, nn.Dropout2d)] == [0.4] * maps
        assert [drop.p for drop in of(part, nn.Dropout)] == [0.4] * vectors
