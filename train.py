"""Train one model and test it: ``python train.py experiment=NAME model.latent_dim=8 ...`` (``--help`` for the rest)."""

from omegaconf import DictConfig

from healing_mnist import cli
from healing_mnist.imports import importing


def train(cfg: DictConfig) -> float | None:
    with importing():  # only when a run starts: torch and lightning take seconds
        from healing_mnist import runs

    result = runs.train(cfg, runs.overrides_of_this_job())
    if result is None:  # one of the processes that ddp adds
        return None
    print(runs.summary_of(result))
    return result.objective


if __name__ == "__main__":
    cli.main(train, "train")
