"""Train one model and test it: ``python train.py experiment=NAME model.latent_dim=8 ...`` (``--help`` for the rest)."""

from omegaconf import DictConfig

from healing_mnist import cli


def train(cfg: DictConfig) -> float | None:
    from healing_mnist import runs  # torch and lightning are imported only when a run starts

    result = runs.train(cfg, runs.overrides_of_this_job())
    if result is None:  # one of the processes that ddp adds
        return None
    print(runs.summary_of(result))
    return result.objective


if __name__ == "__main__":
    cli.main(train, "train")
