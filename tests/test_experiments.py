"""Every named experiment runs once through: a batch of training, validation, test, its checkpoints and its figures."""

from fnmatch import fnmatchcase

import pytest

from healing_mnist import build, runs
from healing_mnist.config import CONF, compose, plain

FEW_ROWS = ["data.batch_size=8", "data.eval_batch_size=8", "analysis.context.sequences=1"]  # of 71 channels
SMALL = {
    "HealingImages": ["data.limit=200"],
    "HealingSequences": ["data.limit=200", "data.num_sequences=64", "data.num_eval_sequences=64"],
    "AutoregressiveDigits": ["data.sequences=40", "data.novel_sequences=6", "data.size=18", *FEW_ROWS],
    "Restoration": ["data.source=digits", "data.limit=200"],
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One for all experiments, so that an encoder several of them need is made once."""
    return tmp_path_factory.mktemp("outputs")


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_experiment_runs(name, outputs):
    kind = compose([f"experiment={name}"]).data._target_.rsplit(".", 1)[-1]
    small = ["data.batch_size=32", "data.eval_batch_size=64", *SMALL[kind]]
    overrides = [f"experiment={name}", "debug=fdr", "trainer=cpu", f"output_dir={outputs}", *small]
    result = runs.train(cfg := compose(overrides), overrides)
    assert result.metrics
    assert result.objective is not None
    known = build.metrics_of(cfg)
    measured = [name for name in {**result.best, **result.metrics} if name.startswith(("val/", "test/"))]
    assert not [name for name in measured if not any(fnmatchcase(name, pattern) for pattern in known)]
    assert all((result.folder / "checkpoints" / file).exists() for file in ("best.ckpt", "last.ckpt"))
    figures = list((result.folder / "figures").glob("*.png"))
    assert figures
    assert all(figure.with_suffix(".csv").exists() for figure in figures), "a figure without its numbers"


@pytest.mark.parametrize(
    ("name", "beside"),
    [("convgru", "convlstm"), ("convrnn", "convlstm"), ("simvp", "convlstm"), ("cnn_transformer", "cnn_lstm")],
)
def test_networks_compared_differ_in_the_network_alone(name, beside):
    settings, others = plain(compose([f"experiment={name}"])), plain(compose([f"experiment={beside}"]))
    assert settings["model"]["_target_"] != others["model"]["_target_"]
    assert settings.pop("model") == plain(compose([f"experiment={name}", f"model={name}"]).model)
    del others["model"]
    assert settings | {"name": beside} == others
