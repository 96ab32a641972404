"""What the fork server imports once, so that no job has to: everything a training would import on its way."""

import gc
import importlib
import pkgutil

import healing_mnist
from healing_mnist import runs  # noqa: F401
from healing_mnist.sweeps.launcher import prepare_process

for package in ("callbacks", "data", "networks", "tasks"):  # what a configuration may name
    for module in pkgutil.walk_packages([f"{healing_mnist.__path__[0]}/{package}"], f"healing_mnist.{package}."):
        importlib.import_module(module.name)
for name in (
    "matplotlib.backends.backend_agg",
    "torch.utils.tensorboard",
    "sklearn.datasets",
    "healing_mnist.sweeps.plots",
):
    importlib.import_module(name)  # imported in the middle of a training, or for the summary

prepare_process()
gc.collect()
gc.freeze()  # the collector of a job leaves these objects alone, so their memory stays shared
