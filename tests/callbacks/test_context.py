"""Whole sequences: which frames each prediction has seen, its error, where it is marked."""

import lightning as L
import pytest
import torch
from torch import nn

from healing_mnist.batch import Output
from healing_mnist.callbacks.context import Context, animation, predict
from healing_mnist.data.autoregressive import AutoregressiveDigits
from healing_mnist.tasks.next_frame import NextFrame


class Halves(nn.Module):
    """Half the last frame plus a tenth of the first; further frames likewise from the predictions."""

    def forward(self, frames, lengths=None, observed=None, steps=1):
        images = []
        for _ in range(steps):
            images.append(0.5 * frames[:, -1] + 0.1 * frames[:, 0])
            frames = torch.cat((frames[:, 1:], images[-1][:, None]), 1)
        return Output(image=torch.stack(images, 1))


@pytest.fixture
def tested(tmp_path):
    """Trainer, task and data after a test with the callback."""
    data = AutoregressiveDigits(sequences=30, novel_sequences=5, size=12, frames=8, components=5)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[Context(sequences=2)], **quiet)
    task = NextFrame(Halves())
    trainer.test(task, data, verbose=False)
    return trainer, task, data


def test_figures_and_numbers(tested, read_csv, tmp_path):
    data = tested[2]
    for split, held_out in (("n6", {4, 8}), ("n3", set())):
        rows = read_csv(f"context_{split}")
        assert all((tmp_path / f"figures/context_{split}{ending}").is_file() for ending in (".png", "_moving.gif"))
        numbers = data.sequences_of[split][:2].tolist()
        assert len(rows) == 2 * 6 * 3
        assert {int(row["frame"]) for row in rows if row["held_out"] == "1"} == held_out
        for row in rows:
            number, t = int(row["sequence"]), int(row["frame"]) - 1
            assert number in numbers
            truth = data.whole_sequence(number).double()
            if row["prediction"] == "rolled out":
                seen = [truth[0], truth[1]]
                for _ in range(t - 1):
                    seen.append(0.5 * seen[-1] + 0.1 * seen[-2])
                image = seen[-1]
            else:
                image = truth[t - 1] if row["prediction"] == "last frame" else 0.5 * truth[t - 1] + 0.1 * truth[t - 2]
            assert float(row["mse"]) == pytest.approx((image - truth[t]).square().mean().item(), rel=1e-4)


def test_predictions_have_no_sight_of_what_they_predict(tested):
    task = tested[1]
    truth = torch.rand(2, 6, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    before = predict(task, truth, 3)
    truth[:, 4:] = 0.7
    after = predict(task, truth, 3)
    assert torch.equal(before["one by one"][:, :2], after["one by one"][:, :2])
    assert not torch.equal(before["one by one"][:, 2], after["one by one"][:, 2])
    assert torch.equal(before["rolled out"], after["rolled out"])


def test_animation_has_a_row_for_the_truth_and_for_each_prediction(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "healing_mnist.callbacks.figures.image_grid", lambda *given, **named: drawn.append((given, named))
    )
    frames = torch.full((2, 4, 1, 5, 6), 0.25)
    list(animation("n6", [3, 9], frames, {"one by one": frames[:, 1:] * 2, "rolled out": frames[:, 1:] * 3}))
    assert [named["title"][:16] for _, named in drawn] == [f"N6, frame {t} of 4" for t in range(1, 5)]
    for t, ((images, rows, columns), named) in enumerate(drawn):
        assert (rows, columns) == (["truth", "one by one", "rolled out"], ["#3", "#9"])
        expected = torch.tensor([0.25, 0.5, 0.75] if t else [0.25] * 3)
        greys = torch.tensor([[image.mean() for image in row] for row in images])
        assert torch.allclose(greys, expected[:, None].expand(3, 2))
        assert named["marked"] == [[False] * 2, [t > 0] * 2, [t > 0] * 2]
