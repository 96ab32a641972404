"""Parts that do not fit each other are named before anything is trained."""

import re
import shutil
import sys

import pytest
from omegaconf import OmegaConf

from healing_mnist import config, evaluation
from healing_mnist.callbacks.metrics_table import MetricsTable
from healing_mnist.checks import UserError
from healing_mnist.explore import explore
from healing_mnist.sweeps import results

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
        (["data=n6", *N6[:3]], "draws single images, AutoregressiveDigits has none. .* data=n6 analysis=n6_data"),
        (
            ["data=sequences", *SMALL[:2]],
            "HealingSequences has none. .* Healing MNIST by `python -m healing_mnist.preview`",
        ),
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


@pytest.fixture
def own(train, fast, tmp_path_factory, monkeypatch):
    """`own(*overrides)` trains `own_parts` as `data=ramps model=net`."""
    conf = tmp_path_factory.mktemp("own") / "conf"
    shutil.copytree(config.CONF, conf)
    data = {
        "_target_": "own_parts.Ramps",
        "image_shape": [1, 12, 12],
        "num_classes": 2,
        "batch_size": 4,
        "eval_batch_size": 5,
    }
    OmegaConf.save(data, conf / "data" / "ramps.yaml")
    OmegaConf.save({"_target_": "own_parts.Net"}, conf / "model" / "net.yaml")
    for module in (config, evaluation):
        monkeypatch.setattr(module, "CONF", conf)
    small = [option for option in fast if not option.startswith("data.")]
    return lambda *said: train("experiment=autoencoder", "data=ramps", "model=net", *small, *said)


def test_data_without_a_source_are_trained_on_measured_again_and_found(own, monkeypatch):
    result = own()
    assert evaluation.evaluate(result.folder).metrics == result.metrics
    assert evaluation.evaluate(result.folder, ["data=ramps", "data.eval_batch_size=3"]).metrics == pytest.approx(
        result.metrics
    )
    assert not results._as_it_is(config.plain(OmegaConf.load(result.folder / "config.yaml")))
    monkeypatch.setattr(results, "_as_it_is", lambda _: True)
    found = results.Results.found(result.folder.parent.parent, "autoencoder/*")
    assert found.count("finished") == 1


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("data=NoTable", r"data: NoTable.draw\('train'\) must return a table"),
        ("data=Uneven", r"data: Uneven.draw\('train'\): columns of unequal length: image 12, label 3"),
        ("data=NoTest", r"data: NoTest.draw\('test'\): no rows"),
        ("data=Tuples", r"data: Tuples.render must return a Batch, not a tuple"),
        (
            "data=Bytes",
            r"data: Bytes renders input as float32 in \[0, (?:219\.999\d*|220)\]; must be float32 in \[0, 1\]",
        ),
        ("data=NaNs", r"data: NaNs renders target as float32 in \[nan, nan\]; must be float32 in \[0, 1\]"),
        ("data=Wide", r"data.image_shape=\[1, 12, 12\]: Wide has \[1, 12, 24\]"),
        ("data=Slip", r"data=Slip: KeyError: 'picture' \(own_parts.py:\d+\)"),
        ("data=NoImages", r"data=NoImages: AttributeError: 'NoneType' object has no attribute 'ndim'"),
        ("model=Bare", r"model: Bare must return an Output, not a Tensor"),
        ("model=Smaller", r"model: Smaller makes images \(2, 1, 12, 6\) for targets \(2, 1, 12, 12\)"),
        ("model=OneNumber", r"model: OneNumber makes images \(2, 1, 1, 1\) for targets \(2, 1, 12, 12\)"),
        ("model=OneLogit", r"model: OneLogit makes logits \(2, 1\); must be \(2, 2\)"),
        ("model=MapEmbedding", r"model: MapEmbedding makes embeddings \(2, 1, 12, 12\); must be \(2, d\)"),
        ("model=Endless", r"task: Reconstruction.losses: loss is inf on the first two rows"),
        ("model=Frozen", r"model: Frozen has no weights to train"),
        (
            "model=Breaks",
            r"model=Breaks: AttributeError: 'Breaks' object has no attribute 'there_is_none' \(own_parts.py:\d+\)",
        ),
        ("model=NoModule", r"model._target_=own_parts.NoModule: must be a torch.nn.modules.module.Module"),
        ("task=NoLoss", r"task: NoLoss.losses must return a dictionary with loss"),
        ("task=BareLoss", r"task: BareLoss.losses must return a dictionary with loss"),
        ("task=LossOfEach", r"task: LossOfEach.losses: loss is \(2\); must be a tensor without"),
        ("task=NumberBeside", r"task: NumberBeside.losses: beside is a float; must be a tensor without dimensions"),
        ("task=ScoreSlip", r"task=ScoreSlip.*: AttributeError: 'Output' object has no attribute 'picture' \(own_parts"),
        ("task=FinalSlip", r"AttributeError: 'FinalSlip' object has no attribute 'nothing' \(own_parts.py:\d+\)"),
        ("+analysis.mine=NoModule", r"analysis.mine._target_=own_parts.NoModule: must be a .*Callback"),
    ],
)
def test_mistakes_in_parts_of_ones_own_are_named_before_training(part, words, own, monkeypatch, tmp_path):
    monkeypatch.setattr(MetricsTable, "on_fit_start", lambda *_: pytest.fail("was trained"))
    group, _, name = part.partition("=")
    with pytest.raises(UserError, match=words):
        own(f"{group}._target_=own_parts.{name}")
    assert not list(tmp_path.iterdir())


def test_a_callback_that_cannot_be_made_is_told_in_one_line(own):
    with pytest.raises(UserError) as error:
        own("+analysis.mine._target_=own_parts.BreaksToo")
    assert re.fullmatch(
        r"analysis.mine=BreaksToo: ValueError: it cannot be made \(own_parts.py:\d+\)", str(error.value)
    )


def test_a_task_may_ask_its_trainer(own):
    assert own("task._target_=own_parts.Annealed").metrics["test/mse"] > 0
