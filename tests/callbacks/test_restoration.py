import pytest

from healing_mnist.callbacks.restoration import RestorationBaselines


def test_errors_of_input_and_mean_image(run_test, read_csv, caplog):
    trainer, data = run_test(RestorationBaselines())
    target = data.images.double().numpy() / 255
    expected = {
        "network": ((0.45 * target - target) ** 2).mean(),  # the network darkens the darkened input
        "input": ((0.5 * target - target) ** 2).mean(),
        "mean_image": ((target.mean(0) - target) ** 2).mean(),
    }
    found = {row["answer"]: float(row["mse"]) for row in read_csv("baselines")}
    assert found == pytest.approx(expected, rel=1e-5)
    assert trainer.callback_metrics["test/mse_input"] == pytest.approx(expected["input"], rel=1e-5)
    assert trainer.callback_metrics["test/mse_mean_image"] == pytest.approx(expected["mean_image"], rel=1e-5)
    said = (
        f"test/mse {expected['network']:.5f} is not below {expected['mean_image']:.5f}, that of the mean training image"
    )
    assert said in caplog.text


def test_a_clean_input_is_no_rival(run_test, read_csv, plain_data):
    run_test(RestorationBaselines(), data=plain_data)
    assert [row["answer"] for row in read_csv("baselines")] == ["network", "mean_image"]
