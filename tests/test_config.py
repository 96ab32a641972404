"""What settings make of themselves: the folder's name, one stage's settings within another's, callbacks."""

import pytest

from healing_mnist.config import compose, folder, folder_name


def test_the_same_settings_have_the_same_folder_however_said(tmp_path):
    said = [["experiment=joint", "model.latent_dim=8"], ["model.latent_dim=8", "experiment=joint", "seed=0"]]
    places = {folder(compose(o)) for o in said}
    assert len(places) == 1
    assert places.pop().name == "latent_dim=8"
    assert folder(compose(["experiment=joint"])).name == "default"
    assert folder(compose(["experiment=joint", "data.root=/somewhere"])).name == "default"


def test_folder_names_are_short_and_distinct():
    long = {f"model.a{i}": "x" * 20 for i in range(20)}
    names = {folder_name(long), folder_name(long | {"model.a19": "y"})}
    assert len(names) == 2
    assert all(len(name) <= 120 for name in names)
    assert folder_name({"model.lr": 1, "optimizer.lr": 2}) == "model.lr=1,optimizer.lr=2"
    assert "/" not in folder_name({"data.root": "/a/b"})


def test_a_stage_divides_the_images_as_its_successor_does():
    stage = compose(["experiment=cnn_lstm", "data.seed=3", "data.cache=/x"]).pretrained.settings
    assert (stage.seed, stage.data.cache) == (3, "/x")


def test_a_stage_is_trained_on_the_device_that_is_named_and_a_run_is_the_same_on_any():
    stage = compose(["experiment=cnn_lstm", "trainer.devices=[1]"])
    assert stage.pretrained.settings.trainer.devices == [1]
    assert compose(["experiment=cnn_lstm", "trainer.devices=2"]).pretrained.settings.trainer.devices == 1
    assert folder(stage) == folder(compose(["experiment=cnn_lstm"]))
    assert folder(compose(["trainer.devices=[0,1]"])) != folder(compose([]))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["experiment=convlstm", "callbacks=default"], "collapse=none"),
        (["experiment=cifar_autoencoder_cnn", "data.blur=null"], "blur=null"),
        (["~scheduler"], "scheduler=none"),
        (["scheduler=none"], "scheduler=none"),
        (["experiment=autoencoder", "optimizer=sgd"], "optimizer=SGD"),
    ],
)
def test_what_is_left_out_names_the_folder_too(overrides, name):
    assert folder(compose(overrides)).name.startswith(name)


def test_the_callbacks_follow_the_direction():
    best = compose(["callbacks=early_stopping", "objective=val/accuracy", "direction=maximize"]).callbacks
    assert (best.early_stopping.mode, best.checkpoint.mode) == ("max", "max")
    assert (best.early_stopping.monitor, best.checkpoint.monitor) == ("val/accuracy", "val/accuracy")
