import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from healing_mnist.callbacks.restoration import RestorationBaselines, _sums, detail_of


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


def test_detail_is_the_share_of_the_originals_fine_structure():
    torch.manual_seed(0)
    target, noise = torch.rand(20, 3, 16, 16), torch.rand(20, 3, 16, 16)

    def detail(image):
        _, _, shared, own = _sums(image, target)
        return float(shared / own)

    assert detail(target) == pytest.approx(1)
    assert detail(0.3 * target + 0.5) == pytest.approx(0.3, rel=1e-4)  # brightness is no detail
    assert detail(torch.full_like(target, 0.5)) == pytest.approx(0, abs=1e-5)
    assert detail(target + noise) == pytest.approx(1, abs=0.03)  # wrong detail neither helps nor harms
    mean = np.stack([uniform_filter(channel, 3) for channel in target[0].numpy()])[:, 1:-1, 1:-1]
    np.testing.assert_allclose(detail_of(target)[0], target[0, :, 1:-1, 1:-1].numpy() - mean, atol=1e-6)
