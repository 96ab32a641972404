"""The quick composition against Hydra's own."""

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from healing_mnist.config import CONF, plain, register_resolvers
from healing_mnist.sweeps.composing import Composer


@pytest.fixture(scope="module")
def composer():
    register_resolvers()
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    return Composer(loader, loader.load_configuration("train", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["experiment=joint", "task.reconstruction_weight=0.3", "seed=4", "optimizer.lr=0.002", "run_dir='a b/c=1'"],
        ["experiment=joint", "optimizer=sgd", "optimizer.momentum=0.5", "model.channels=[4,8]", "+trainer.max_steps=3"],
        ["task.reconstruction_weight=0.3", "experiment=joint", "scheduler=none", "name=null"],
        ["experiment=joint", "hydra.sweep.dir=x", "hydra.sweep.subdir=y", "~callbacks.progress"],
    ],
)
def test_it_is_what_hydra_composes(composer, overrides):
    for _ in range(2):  # the second time from the copy
        found = composer(overrides)
        expected = composer.loader.load_sweep_config(composer.master, overrides)
        task = [o for o in overrides if not o.startswith("hydra.")]
        assert list(found.hydra.overrides.task) == list(expected.hydra.overrides.task) == task
        assert found.hydra.sweep == expected.hydra.sweep
        parts = [OmegaConf.masked_copy(c, [key for key in c if key != "hydra"]) for c in (found, expected)]
        assert plain(parts[0]) == plain(parts[1])


@pytest.mark.parametrize("override", ["model.latent_dmi=3", "optimizer=nothing", "sed=3"])
def test_it_refuses_what_hydra_refuses(composer, override):
    with pytest.raises(HydraException):
        composer([override])
