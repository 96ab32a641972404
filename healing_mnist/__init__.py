"""Learn from image sequences: data, models, training runs and sweeps.

Conventions, said once and used everywhere:

- Images are ``(batch, channel, height, width)``; sequences are ``(batch, time, channel, height, width)``.
- Pixels are uint8 at rest and float32 in [0, 1] once rendered. Angles are degrees, positive = counter-clockwise.
- ``lengths`` counts the valid input frames of a sequence; frames beyond it are zero and carry no meaning.
- MSE is the mean over pixels on [0, 1]. Metric names are ``train/loss``, ``val/mse``, ``test/accuracy``.
- A data set is base images plus a table of rows; frames are a pure function of the two (`healing_mnist.data`).

Importing this package imports neither torch nor lightning, so that the command line answers at once.
"""

__version__ = "0.1.0"
