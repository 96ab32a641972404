"""Convolutional autoencoder (R1 4.2), joint autoencoder and classifier (R1 4.3), classifier on an encoder."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from healing_mnist.batch import Output
from healing_mnist.checks import Fraction, Positive, UserError
from healing_mnist.networks.layers import MLP, ActivationName, Sigmoid, ToImage, activation_layer

BatchNorm = Literal["second", "all", "none"]
ImageShape = tuple[Positive, Positive, Positive]


def downsampled_sizes(size: int, layers: int, kernel_size: int, downsample: str) -> list[int]:
    """Side lengths before and after each of `layers` halvings: 28 -> [28, 14, 7, 3] as in R1 4.2."""
    if layers < 1:
        raise UserError("model.channels=[]: at least one layer")
    sizes = [size]
    for layer in range(layers):
        if downsample == "pool":
            sizes.append((sizes[-1] + 2 * (kernel_size // 2) - kernel_size + 1) // 2)
        else:
            padding = _stride_padding(sizes[-1], layer == layers - 1, kernel_size)
            sizes.append((sizes[-1] + 2 * padding - kernel_size) // 2 + 1 if sizes[-1] > 1 else 0)
    if sizes[-1] < 1:
        raise UserError(f"model.channels: {layers} layers leave nothing of an image with side {size}; use fewer layers")
    return sizes


def _stride_padding(size: int, last: bool, kernel_size: int) -> int:
    # R1's last convolution is unpadded, which makes 7x7 into 3x3 and the flat vector 288 = 32 * 3 * 3. Where that would
    # leave out the last row and column (8x8), it is padded as the others are.
    return 0 if last and size >= kernel_size and (size - kernel_size) % 2 == 0 else kernel_size // 2


class ConvEncoder(nn.Module):
    """Images to embeddings: convolutions that halve the image, then two linear layers (R1 4.2).

    Args:
        image_shape: (channels, height, width) of the images.
        latent_dim: length d of the embedding.
        channels: output channels of each convolution; one layer each.
        kernel_size: side of the square kernels.
        downsample: halve by stride 2, or by max-pooling after a convolution of stride 1.
        activation: after every convolution and the first linear layer.
        batch_norm: after the second convolution (R1), after all, or none.
        dropout: probability after each activation.
        hidden: width of the linear layer between the convolutions and the embedding.
        freeze: keep weights and batch-norm statistics as they are loaded.

    Raises:
        UserError: when the image is too small for so many layers.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: Positive = 5,
        channels: list[Positive] = (8, 16, 32),
        kernel_size: Positive = 3,
        downsample: Literal["stride", "pool"] = "stride",
        activation: ActivationName = "relu",
        batch_norm: BatchNorm = "second",
        dropout: Fraction = 0.0,
        hidden: Positive = 128,
        freeze: bool = False,
    ):
        super().__init__()
        self.latent_dim = latent_dim
        heights = downsampled_sizes(image_shape[1], len(channels), kernel_size, downsample)
        widths = downsampled_sizes(image_shape[2], len(channels), kernel_size, downsample)
        layers: list[nn.Module] = []
        for i, width in enumerate(channels):
            before = channels[i - 1] if i else image_shape[0]
            if downsample == "pool":
                layers += [nn.Conv2d(before, width, kernel_size, padding=kernel_size // 2)]
            else:
                last = i == len(channels) - 1
                padding = [_stride_padding(side[i], last, kernel_size) for side in (heights, widths)]
                layers += [nn.Conv2d(before, width, kernel_size, stride=2, padding=padding)]
            layers += [*_norm(batch_norm, i, width), activation_layer(activation)]
            if downsample == "pool":
                layers.append(nn.MaxPool2d(2))
            if dropout:
                layers.append(nn.Dropout2d(dropout))
        self.convolutions = nn.Sequential(*layers)
        self.map_shapes = list(zip([image_shape[0], *channels], heights, widths, strict=True))
        self.project = nn.Sequential(
            nn.Flatten(), MLP(math.prod(self.map_shapes[-1]), [hidden], latent_dim, activation, dropout)
        )
        self._mirrored = {
            "kernel_size": kernel_size,
            "activation": activation,
            "batch_norm": batch_norm,
            "dropout": dropout,
            "hidden": hidden,
        }
        self.frozen = freeze
        self.requires_grad_(not freeze)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, latent_dim)."""
        return self.project(self.convolutions(images))

    def mirrored(self, latent_dim: int) -> ConvDecoder:
        """A fresh decoder with the same layers in reverse, from embeddings (B, latent_dim)."""
        return ConvDecoder(self.map_shapes, latent_dim, **self._mirrored)

    def train(self, mode: bool = True) -> ConvEncoder:
        """A frozen encoder stays in evaluation mode, else batch norm would go on counting and dropout dropping."""
        return super().train(mode and not self.frozen)


class ConvDecoder(nn.Module):
    """Embeddings to images in [0, 1]: `ConvEncoder` mirrored with transposed convolutions and a sigmoid (R1 4.2).

    Args:
        map_shapes: (channels, height, width) from the image down to the smallest map, `ConvEncoder.map_shapes`.
        latent_dim, kernel_size, activation, batch_norm, dropout, hidden: as in `ConvEncoder`.
    """

    def __init__(
        self,
        map_shapes: list[ImageShape],
        latent_dim: Positive = 5,
        kernel_size: Positive = 3,
        activation: ActivationName = "relu",
        batch_norm: BatchNorm = "second",
        dropout: Fraction = 0.0,
        hidden: Positive = 128,
    ):
        super().__init__()
        smallest = map_shapes[-1]
        self.expand = nn.Sequential(
            MLP(latent_dim, [hidden], math.prod(smallest), activation, dropout),
            activation_layer(activation),
            nn.Unflatten(1, tuple(smallest)),
        )
        layers: list[nn.Module] = []
        for i in reversed(range(1, len(map_shapes))):
            (before, *small), (after, *large) = map_shapes[i], map_shapes[i - 1]
            padding, extra = zip(
                *(_mirror_padding(s, g, kernel_size) for s, g in zip(small, large, strict=True)), strict=True
            )
            transposed = nn.ConvTranspose2d if i > 1 else ToImage
            layers.append(transposed(before, after, kernel_size, stride=2, padding=padding, output_padding=extra))
            if i > 1:  # the map of i - 1 is the encoder's (i - 1)th convolution's, whose batch norm is mirrored
                layers += [*_norm(batch_norm, i - 2, after), activation_layer(activation)]
                if dropout:
                    layers.append(nn.Dropout2d(dropout))
        self.convolutions = nn.Sequential(*layers, Sigmoid())

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, latent_dim) -> (B, C, H, W) in [0, 1]."""
        return self.convolutions(self.expand(embedding))


def _norm(batch_norm: BatchNorm, layer: int, channels: int) -> list[nn.Module]:
    wanted = batch_norm == "all" or (batch_norm == "second" and layer == 1)
    return [nn.BatchNorm2d(channels)] if wanted else []


def _mirror_padding(small: int, large: int, kernel_size: int) -> tuple[int, int]:
    """(padding, output_padding) with which a transposed convolution of stride 2 makes `small` into `large`."""
    for padding in range(kernel_size):
        extra = large - ((small - 1) * 2 - 2 * padding + kernel_size)
        if extra in (0, 1):
            return padding, extra
    raise UserError(f"model.kernel_size={kernel_size}: no transposed convolution makes a map of {small} into {large}")


class Autoencoder(nn.Module):
    """`ConvEncoder` and its mirror image (R1 4.2); the arguments are the encoder's."""

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: Positive = 5,
        channels: list[Positive] = (8, 16, 32),
        kernel_size: Positive = 3,
        downsample: Literal["stride", "pool"] = "stride",
        activation: ActivationName = "relu",
        batch_norm: BatchNorm = "second",
        dropout: Fraction = 0.0,
        hidden: Positive = 128,
    ):
        super().__init__()
        self.encoder = ConvEncoder(
            image_shape, latent_dim, channels, kernel_size, downsample, activation, batch_norm, dropout, hidden
        )
        self.decoder = self.encoder.mirrored(latent_dim)

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> image (B, C, H, W), embedding (B, latent_dim)."""
        embedding = self.encoder(images)
        return Output(image=self.decoder(embedding), embedding=embedding)


class JointAutoencoder(Autoencoder):
    """Autoencoder with a classifier on its embedding, trained together (R1 4.3).

    Args:
        num_classes: length of the logits.
        classifier_hidden: widths of the classifier's hidden layers.
        **autoencoder: the arguments of `Autoencoder`.
    """

    def __init__(self, *, num_classes: Positive = 10, classifier_hidden: list[Positive] = (128,), **autoencoder):
        super().__init__(**autoencoder)
        self.classifier = MLP(self.encoder.latent_dim, list(classifier_hidden), num_classes)

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> image, embedding and logits (B, num_classes)."""
        output = super().forward(images)
        output.logits = self.classifier(output.embedding)
        return output


class EmbeddingClassifier(nn.Module):
    """An MLP from an encoder's embedding to the classes (R1 4.2); the encoder says itself whether it is frozen.

    Args:
        encoder: images to embeddings (B, latent_dim).
        latent_dim: length of the embedding, the input of the MLP.
        num_classes: length of the logits.
        hidden: widths of the MLP's hidden layers.
        dropout: probability after each hidden layer.

    Raises:
        UserError: embeddings of another length than the encoder's.
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: Positive = 5,
        num_classes: Positive = 10,
        hidden: list[Positive] = (128,),
        dropout: Fraction = 0.0,
    ):
        super().__init__()
        given = getattr(encoder, "latent_dim", latent_dim)
        if given != latent_dim:
            raise UserError(
                f"model.encoder.latent_dim={given}: not model.latent_dim={latent_dim}, which it follows; say that alone"
            )
        self.encoder = encoder
        self.classifier = MLP(latent_dim, list(hidden), num_classes, dropout=dropout)

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> logits (B, num_classes), embedding (B, latent_dim)."""
        embedding = self.encoder(images)
        return Output(logits=self.classifier(embedding), embedding=embedding)
