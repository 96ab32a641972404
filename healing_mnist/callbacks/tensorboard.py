"""TensorBoard's logger, less the hparams.yaml beside its events: config.yaml says more."""

from lightning.pytorch.loggers import TensorBoardLogger


class TensorBoard(TensorBoardLogger):
    """Events straight in the run folder, so that TensorBoard calls a run what its folder is called."""

    def __init__(self, save_dir: str):
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def save(self) -> None:
        self.experiment.flush()
