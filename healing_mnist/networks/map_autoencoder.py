"""R4's convolutional autoencoder, whose embedding is a map of half the image's size."""

from __future__ import annotations

from torch import Tensor, nn

from healing_mnist.batch import Output
from healing_mnist.checks import Positive, UserError
from healing_mnist.networks.layers import Sigmoid


class MapAutoencoder(nn.Module):
    """Convolution, max-pool, convolution, upsample, convolution with sigmoid (R4): 11,011 parameters for RGB images.

    There is no bottleneck to speak of (8,192 numbers for 3,072), so it restores rather than compresses.

    Args:
        image_shape: (channels, height, width) of the images.
        hidden_channels: of the first two convolutions.
        kernel_size: side of the square kernels, odd.

    Raises:
        UserError: for an even kernel, which would change the size.
    """

    def __init__(
        self,
        image_shape: tuple[Positive, Positive, Positive],
        hidden_channels: Positive = 32,
        kernel_size: Positive = 3,
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise UserError(f"model.kernel_size={kernel_size}: must be odd")
        channels, *size = image_shape
        padding = kernel_size // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, hidden_channels, kernel_size, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(hidden_channels, hidden_channels, kernel_size, padding=padding),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Upsample(size=tuple(size)),
            nn.Conv2d(hidden_channels, channels, kernel_size, padding=padding),
            Sigmoid(),
        )

    def forward(self, images: Tensor) -> Output:
        """(B, C, H, W) -> image (B, C, H, W) in [0, 1], embedding (B, hidden_channels * H/2 * W/2), the map."""
        maps = self.encoder(images)
        return Output(image=self.decoder(maps), embedding=maps.flatten(1))
