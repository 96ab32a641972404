"""Scores and baselines of sequence prediction by hand, the rule that finds squares, the kept output of an encoder."""

import math

import lightning as L
import pytest
import torch
from torch import nn

from healing_mnist import evaluation
from healing_mnist.batch import Batch, LazyBatch, Output
from healing_mnist.checks import UserError
from healing_mnist.data.sequences import HealingSequences
from healing_mnist.networks.autoencoder import ConvEncoder
from healing_mnist.networks.cnn_lstm import CNNLSTM
from healing_mnist.networks.cnn_transformer import CNNTransformer
from healing_mnist.tasks.next_frame import NextFrame, SequenceReconstruction
from healing_mnist.tasks.squares import SquareScores, square_size


def sequence_data(**settings):
    options = {"num_sequences": 96, "num_eval_sequences": 32, "batch_size": 32, "eval_batch_size": 32}
    return HealingSequences(**options | {"squares": "random", "growth": 2} | settings)


def task(network=None, kind=NextFrame, freeze=True, cache_embeddings=True, **model):
    torch.manual_seed(0)
    network = network or CNNLSTM(ConvEncoder((1, 28, 28), 5, freeze=freeze), hidden_size=8, **model)
    return kind(network, cache_embeddings=cache_embeddings, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3))


def trainer(tmp_path, epochs=2, callbacks=()):
    return L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=tmp_path,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


# ------------------------------------------------------------------------------------------------------------- squares


@pytest.mark.parametrize("side", [0, 1, 3, 7, 12])
def test_square_size_of_a_clear_square(side):
    image = torch.zeros(2, 1, 12, 12)
    image[:, :, :side, :side] = 1
    image[:, :, 8:, 8:] = 1  # bright elsewhere is no square
    assert square_size(image).tolist() == [side, side]


def test_square_size_of_what_a_network_draws():
    image = torch.zeros(5, 1, 12, 12)
    image[0, :, :3, :3] = 0.51
    image[1, :, :3, :3] = 0.49
    image[2, :, 1:4, 1:4] = 1  # not in the corner
    image[3, :, :4, :4] = 1
    image[3, :, 3, :4] = 0  # its fourth angle has 3 of 7 pixels left
    image[4, :, :4, :4] = 1
    image[4, :, 3, :3] = 0  # 4 of 7
    assert square_size(image).tolist() == [3, 0, 0, 3, 4]


def test_square_scores_by_hand():
    def images(sides):
        made = torch.zeros(len(sides), 1, 8, 8)
        for image, side in zip(made, sides, strict=True):
            image[:, :side, :side] = 1
        return made

    scores = SquareScores("x/")
    scores.update(images([3, 0, 2]), images([3, 3, 0]), torch.tensor([1, 0, 1]))
    scores.update(images([5, 0]), images([3, 0]), torch.tensor([1, 1]))
    found = {name: float(value) for name, value in scores.compute().items()}
    assert found == pytest.approx(
        {
            "x/square_accuracy": 3 / 5,
            "x/square_f1": 2 * 2 / (3 + 3),
            "x/square_size_accuracy": 1 / 3,
            "x/square_accuracy_determined": 3 / 4,
        }
    )


# ------------------------------------------------------------------------------------------------------------- scores


class Grey(nn.Module):
    """Predicts one brightness everywhere."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.25))

    def forward(self, frames, lengths=None, observed=None, steps=1):
        image = self.value.expand(len(frames), steps, *frames.shape[2:])
        return Output(image=image, embedding=frames.mean((1, 2, 3)))


def test_scores_and_baselines_are_those_of_a_loop(tmp_path):
    data = sequence_data(length=(4, 6), horizon=2, missing_frames=0.5)
    grey = task(Grey())
    found = trainer(tmp_path).test(grey, data, verbose=False)[0]
    batch = data.batch("test", torch.arange(32))
    errors = {name: [[], []] for name in ("", "baseline_last/", "baseline_mean/")}
    for i in range(32):
        there = [t for t in range(batch.lengths[i]) if batch.observed[i, t]]
        images = {
            "": torch.full((1, 28, 28), 0.25),
            "baseline_last/": batch.input[i, there[-1]],
            "baseline_mean/": sum(batch.input[i, t] for t in there) / len(there),
        }
        for name, image in images.items():
            for step in range(2):
                errors[name][step].append(float(((image - batch.target[i, step]) ** 2).mean()))
    for name, (first, second) in errors.items():
        assert found[f"test/{name}mse_step_1"] == pytest.approx(sum(first) / 32, rel=1e-4)
        assert found[f"test/{name}mse_step_2"] == pytest.approx(sum(second) / 32, rel=1e-4)
        mse = sum(first + second) / 64
        assert found[f"test/{name}mse"] == pytest.approx(mse, rel=1e-4)
        assert found[f"test/{name}psnr"] == pytest.approx(-10 * math.log10(mse), rel=1e-3)
        assert 0 <= found[f"test/{name}square_accuracy"] <= 1
        assert -1 <= found[f"test/{name}ssim"] <= 1
    assert found["test/baseline_oracle/mse"] < found["test/baseline_last/mse"]
    present = (square_size(batch.target[:, 0]) > 0).float(), (square_size(batch.target[:, 1]) > 0).float()
    absent = 1 - torch.cat(present).mean()
    assert found["test/square_accuracy"] == pytest.approx(float(absent))  # grey is no square


def test_data_without_squares_or_an_oracle_has_no_such_scores(tmp_path):
    class Plain(HealingSequences):
        oracle = property()  # hasattr says no

    data = Plain(num_sequences=32, num_eval_sequences=32)
    found = trainer(tmp_path).test(task(Grey()), data, verbose=False)[0]
    assert not [name for name in found if "square" in name or "oracle" in name or "step" in name]
    assert "test/baseline_mean/ssim" in found


def test_padding_of_a_reconstruction_does_not_count():
    target = torch.rand(2, 3, 1, 4, 4)
    lengths = torch.tensor([3, 1])
    batch = Batch(target, target, torch.zeros(2), torch.arange(2), lengths=lengths)
    image = target + torch.tensor([0.1, 0.2, 0.3])[None, :, None, None, None]
    loss = task(Grey(), kind=SequenceReconstruction).losses(batch, Output(image=image))["loss"]
    assert float(loss) == pytest.approx((0.1**2 + 0.2**2 + 0.3**2 + 0.1**2) / 4, rel=1e-5)


def test_reconstruction_learns(tmp_path):
    data = sequence_data(target="input", length=(3, 5), missing_area=0.1, num_sequences=160)
    network = task(kind=SequenceReconstruction, freeze=False, decode="sequence")
    runner = trainer(tmp_path, epochs=5)
    before = runner.test(network, data, verbose=False)[0]["test/mse"]
    runner.fit(network, data)
    assert runner.test(network, data, verbose=False)[0]["test/mse"] < 0.6 * before


# -------------------------------------------------------------------------------------------------------------- cache


def fitted(tmp_path, callbacks=(), resample=False, data=None, **options):
    network = task(**options)
    data = data or sequence_data(length=(3, 6), missing_frames=0.3, resample=resample)
    runner = trainer(tmp_path, callbacks=callbacks)
    runner.fit(network, data)
    return network, runner.test(network, data, verbose=False)[0]


class Watch(L.Callback):
    """Counts frames that are encoded while training, and how much memory the cache takes."""

    def __init__(self):
        self.frames, self.bytes, self.rendered = 0, 0, 0

    def on_train_start(self, trainer, task):
        self.bytes, self.trainer = task.cache_bytes, trainer
        task.network.encoder.register_forward_hook(self.count)

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        assert isinstance(batch, LazyBatch)
        self.rendered += not callable(batch._input)

    def count(self, module, inputs, output):
        self.frames += len(output) * self.trainer.training


@pytest.mark.parametrize("bidirectional", [False, True])
def test_keeping_the_encoders_output_changes_nothing(tmp_path, bidirectional):
    (with_cache, scores), (without, others) = (
        fitted(tmp_path, cache_embeddings=cache, bidirectional=bidirectional, mask_input=True)
        for cache in (True, False)
    )
    assert scores == pytest.approx(others, rel=1e-3, abs=1e-5)
    for name, value in with_cache.state_dict().items():
        torch.testing.assert_close(value, without.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_keeping_the_encoders_output_changes_nothing_for_a_transformer(tmp_path):
    found = []
    for cache in (True, False):
        torch.manual_seed(0)
        network = CNNTransformer(ConvEncoder((1, 28, 28), 5, freeze=True), width=8, heads=2, embedding_dim=6)
        watch = Watch()
        trained, scores = fitted(tmp_path, callbacks=[watch], network=network, cache_embeddings=cache)
        assert (watch.frames == 0) == cache
        found.append((scores, trained.state_dict()))
    (scores, state), (others, without) = found
    assert scores == pytest.approx(others, rel=1e-3, abs=1e-5)
    for name, value in state.items():
        torch.testing.assert_close(value, without[name], atol=1e-4, rtol=1e-3)


def test_with_the_cache_nothing_is_rendered_or_encoded_twice(tmp_path, caplog):
    watch = Watch()
    with caplog.at_level("INFO", logger="healing_mnist"):
        fitted(tmp_path, callbacks=[watch])
    assert watch.frames == watch.rendered == 0
    assert watch.bytes == (96 + 32) * 5 * 5 * 4  # rows x frames x features x float32
    assert "kept for train and val: 0.0 MB" in caplog.text


@pytest.mark.parametrize(
    ("options", "size"),
    [({"cache_embeddings": False}, 0), ({"freeze": False}, 0), ({"resample": True}, 32 * 5 * 5 * 4)],
)
def test_without_it_every_frame_is_encoded(tmp_path, options, size):
    watch = Watch()
    network, _ = fitted(tmp_path, callbacks=[watch], **options)
    assert watch.frames > 0
    assert watch.rendered == 2 * 3
    assert watch.bytes == size
    assert network.cache_bytes == 0  # given back


def test_one_step_lowers_the_loss_of_a_rolled_out_prediction(tmp_path):
    data = sequence_data(length=7, horizon=3)
    data.setup()
    network = task(freeze=False)
    batch = data.batch("train", torch.arange(32))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        output = network(batch)
        assert output.image.shape == batch.target.shape == (32, 3, 1, 28, 28)
        losses.append(network.losses(batch, output)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


# ------------------------------------------------------------------------------------------------------------ whole run


def test_a_run_can_be_measured_out_of_domain(train, fast):
    small = ["data.limit=100", "data.num_sequences=64", "data.num_eval_sequences=40", "trainer.max_epochs=1"]
    result = train("experiment=cnn_lstm", *fast, *small)
    assert {"test/mse", "test/baseline_oracle/mse", "test/square_accuracy_determined"} <= result.metrics.keys()
    assert result.metrics["test/baseline_oracle/mse"] < result.metrics["test/baseline_last/mse"]
    angles = "data.angles=[10,20,30,40,50,60,70,80,90]"
    other = evaluation.evaluate(result.folder, [angles, "data.horizon=2", "data.length=8"])
    assert {"test/mse_step_1", "test/mse_step_2"} <= other.metrics.keys()
    assert other.metrics["test/baseline_last/mse"] != result.metrics["test/baseline_last/mse"]
    with pytest.raises(UserError, match=r"^data\.horizon=6: must be in 1\.\.5"):
        evaluation.evaluate(result.folder, ["data.horizon=6"])


def test_an_encoder_of_another_size_is_refused(train, fast, tmp_path):
    small = ["data.limit=100", "trainer.max_epochs=1"]
    encoder = train("experiment=autoencoder_healing", "model.latent_dim=7", *fast, *small)
    checkpoint = encoder.folder / "checkpoints/best.ckpt"
    small += ["data.num_sequences=64", "data.num_eval_sequences=40", f"pretrained.checkpoint='{checkpoint}'"]
    with pytest.raises(UserError, match=r"best\.ckpt: .*another model:\s+.*\(7, 128\) in the file, \(25, 128\)"):
        train("experiment=cnn_lstm", *fast, *small)
    assert train("experiment=cnn_lstm", "model.encoder.latent_dim=7", *fast, *small).metrics
