"""Many runs: every device busy, nothing lost, one table.

`points` says what varies, `definition` what a sweep's folder holds, `launcher` runs jobs in the `slots` of a process
`pool`, `sweeper` holds these together, `search` chooses points with Optuna; `results` are read from the jobs' folders
and become `tables`, `plots` and a `page`.
"""


def register() -> None:
    """Make the launcher ``slots`` and the sweeper ``points`` known to Hydra. Imports neither torch nor lightning."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    from healing_mnist.sweeps.launcher import SlotLauncher
    from healing_mnist.sweeps.sweeper import PointSweeper

    # Hydra makes plugins of classes below these packages only, however they were registered.
    homes = ("hydra_plugins.", "hydra._internal.core_plugins.", "healing_mnist.sweeps.")
    Plugins.is_in_toplevel_plugins_module = staticmethod(lambda name: name.startswith(homes))
    Plugins.instance().register(SlotLauncher)
    Plugins.instance().register(PointSweeper)
    # conf/hydra/launcher has these with settings of our own; Hydra would warn about two of a name.
    for name in ("ray", "submitit_slurm"):
        ConfigStore.instance().repo["hydra"]["launcher"].pop(f"{name}.yaml", None)
