"""What the fork server imports once, so that no job has to: everything a training would import on its way."""

import gc
import importlib

from healing_mnist import runs  # noqa: F401
from healing_mnist.sweeps.launcher import prepare_process

# Imported late by torch, lightning and the project itself, each for the first time in the middle of a training.
for module in ("matplotlib.backends.backend_agg", "torch._dynamo", "torch.utils.tensorboard", "sklearn.datasets"):
    importlib.import_module(module)

prepare_process()
gc.collect()
gc.freeze()  # the collector of a job leaves these objects alone, so their memory stays shared
