"""What the fork server imports besides, where jobs draw, log or load digits: a second that each would take."""

from healing_mnist.imports import importing

with importing():
    import torch.utils.tensorboard  # noqa: F401
