"""What the fork server imports once, so that no job has to: everything any training would import on its way."""

import importlib
import pkgutil
import signal
from contextlib import suppress

import healing_mnist
from healing_mnist.imports import importing


def import_all() -> None:
    """Import what a configuration may name, and what its training needs."""
    importlib.import_module("healing_mnist.runs")
    for package in ("callbacks", "data", "networks", "tasks"):
        folder = f"{healing_mnist.__path__[0]}/{package}"
        for module in pkgutil.walk_packages([folder], f"healing_mnist.{package}."):
            with suppress(Exception):  # whoever names it in a configuration meets the mistake
                importlib.import_module(module.name)
    importlib.import_module("healing_mnist.sweeps.plots")
    importlib.import_module("healing_mnist.sweeps.launcher").prepare_process()


# Ctrl-C reaches the fork server too, which has nothing to say to it; jobs and parent hear of it themselves.
before = signal.signal(signal.SIGINT, signal.SIG_IGN)
with importing():
    import_all()
signal.signal(signal.SIGINT, before)
