"""Parts that do not fit each other are named before anything is trained."""

import sys

import pytest

from healing_mnist import evaluation
from healing_mnist.callbacks.metrics_table import MetricsTable
from healing_mnist.checks import UserError
from healing_mnist.explore import explore

SMALL = ["data.num_sequences=40", "data.num_eval_sequences=20", "pretrained=none"]
N6 = ["data.sequences=20", "data.novel_sequences=4", "data.components=5", "model.hidden_channels=2"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["experiment=convlstm", "model=autoencoder", *N6[:3]],
            r"model=Autoencoder, .* do not fit together: .* \(.*.py:\d+",
        ),
        (["experiment=joint", "model=autoencoder"], "task: Joint learns from logits, Autoencoder makes none"),
        (["experiment=autoencoder", "model=cnn"], "task: Reconstruction learns from images, CNNClassifier makes none"),
        (["experiment=joint", "data=sequences", *SMALL], "task: Joint learns from single images, HealingSequences has"),
        (["experiment=convlstm", "data=images"], "task: NextFrame learns from sequences, HealingImages has none"),
        (["experiment=cnn_lstm", "data.target=input", "task.compile=true", *SMALL[:2]], "data.target=input: not what"),
        (["experiment=cnn_lstm", "data.target=input", *SMALL[:2]], "data.target=input: not what NextFrame learns; use"),
        (
            ["experiment=joint", "analysis=joint", "analysis.embeddings.attributes=[shape]"],
            "attributes=shape: must be one of class",
        ),
        (["experiment=convlstm", "analysis=robustness", "analysis.robustness.splits=[n7]", *N6], "splits: unknown n7"),
        (["experiment=cnn_classifier", "analysis=reconstruction"], "Reconstructions draws images, CNNClassifier makes"),
        (["experiment=autoencoder", "analysis=classification"], "Confusion draws logits, Autoencoder makes none"),
        (["experiment=cnn_classifier", "callbacks=collapse"], "Collapse draws images, CNNClassifier makes none"),
        (["experiment=cnn_classifier", "analysis=robustness"], "Robustness draws images, CNNClassifier makes none"),
        (["experiment=joint", "analysis=sequences"], "SequenceGrids draws sequences, HealingImages has none"),
        (["experiment=cnn_lstm", "analysis=restoration", *SMALL], "Reconstructions draws single images, HealingSeq"),
        (["experiment=autoencoder", "analysis=n6_data"], "SequenceOverview draws N6 and N3, HealingImages has none"),
        (["experiment=convlstm", "analysis=data", *N6], "DataOverview draws single images, Autoregressive"),
    ],
)
def test_parts_that_do_not_fit_are_named_before_training(overrides, words, train, fast, monkeypatch, tmp_path):
    monkeypatch.setattr(MetricsTable, "on_fit_start", lambda *_: pytest.fail("was trained"))
    options = [o for o in fast if not (o.startswith("data.limit") and N6[0] in overrides)]
    with pytest.raises(UserError, match=words):
        train(*options, *overrides)
    assert not list(tmp_path.iterdir())


def test_an_evaluation_names_them_too(train, fast):
    result = train("experiment=cnn_classifier", *fast, "trainer.max_epochs=1")
    with pytest.raises(UserError, match="Reconstructions draws images, CNNClassifier makes none"):
        evaluation.evaluate(result.folder, ["analysis=reconstruction"])
    with pytest.raises(UserError, match="task: Classification learns from single images, HealingSequences has none"):
        evaluation.evaluate(result.folder, ["data=sequences", *SMALL[:2]])
    assert not (result.folder / "evaluations").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=n6", *N6[:3]], "DataOverview draws single images, AutoregressiveDigits has none"),
        (["data.limit=50", "analysis=reconstruction"], "Reconstructions draws what a network makes; use analysis=data"),
    ],
)
def test_exploring_names_them_too(overrides, words, tmp_path):
    with pytest.raises(UserError, match=words):
        explore([*overrides, f"output_dir={tmp_path}"])


def test_colour_sequences_train_in_mixed_precision(train, fast, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "colours.py").write_text(
        "import torch\nfrom healing_mnist.data.sources import Base\nIMAGE_SHAPE = (3, 28, 28)\nNUM_CLASSES = 2\n"
        "def load(root, cache):\n"
        "    images = torch.randint(256, (40, 3, 28, 28), dtype=torch.uint8, generator=torch.manual_seed(0))\n"
        "    return Base(images, torch.arange(40) % 2, images, torch.arange(40) % 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own", None)
    options = [o for o in fast if not o.startswith("data.limit")]
    own = ["data.source=own.colours", "trainer.precision=bf16-mixed", "data.length=[3,6]", *SMALL]
    for experiment in ("cnn_lstm", "cnn_lstm_reconstruction"):
        assert train(f"experiment={experiment}", "model.encoder.freeze=false", *options, *own).metrics["test/mse"] > 0
