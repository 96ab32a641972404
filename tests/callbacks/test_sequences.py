"""Figures of sequences: their numbers against loops over the rows, damage to inputs against its description."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import nn

from healing_mnist.batch import Batch, Output
from healing_mnist.callbacks import sequences
from healing_mnist.callbacks.figures import rasterize
from healing_mnist.callbacks.sequences import (
    ErrorsByAttribute,
    Kept,
    MissingCurves,
    SequenceGrids,
    animation,
    grid,
    without_area,
    without_frames,
)
from healing_mnist.checks import UserError
from healing_mnist.data.sequences import HealingSequences
from healing_mnist.tasks.next_frame import NextFrame, SequenceReconstruction


class Darker(nn.Module):
    """Predicts the last frame there is, darker each step; forgets that it was told which one."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.9))

    def forward(self, frames, lengths=None, observed=None, steps=1):
        lengths = torch.full((len(frames),), frames.shape[1]) if lengths is None else lengths
        last = frames[torch.arange(len(frames)), lengths - 1]
        image = torch.stack([last * self.factor**k for k in range(1, steps + 1)], 1)
        return Output(image=image, embedding=last.flatten(1)[:, :3])


@pytest.fixture
def run(tmp_path):
    """Call with a callback and data settings to test `Darker`; returns the test split as one batch, and its errors."""

    def test(callback, kind=NextFrame, fit=False, **settings):
        options = {"num_sequences": 30, "num_eval_sequences": 45, "eval_batch_size": 20, "squares": 2}
        data = HealingSequences(**options | settings)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            default_root_dir=tmp_path,
            callbacks=[callback],
            logger=TensorBoardLogger(tmp_path, name="", version="tensorboard"),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
        )
        task = kind(Darker(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
        if fit:
            trainer.fit(task, data)
        trainer.test(task, data, verbose=False)
        batch = data.batch("test", torch.arange(45))
        with torch.no_grad():
            image = task(batch).image
        return batch, ((image - batch.target) ** 2).mean((1, 2, 3, 4)), task

    return test


def test_grids_show_the_best_the_worst_and_others(run, read_csv, tags, tmp_path):
    batch, errors, _ = run(SequenceGrids(count=4, every=1), length=(3, 6), horizon=2, fit=True)
    order = errors.argsort()
    for name, rows in (("best", order[:4]), ("worst", order.flip(0)[:4])):
        table = read_csv(f"sequences_{name}")
        assert [int(row["index"]) for row in table] == rows.tolist()
        assert [float(row["mse"]) for row in table] == pytest.approx(errors[rows].tolist(), rel=1e-4)
        assert [float(row["angle"]) for row in table] == batch.attributes["angle"][rows].tolist()
    others = [int(row["index"]) for row in read_csv("sequences_random")]
    assert len(set(others)) == 4
    assert others not in (order[:4].tolist(), order.flip(0)[:4].tolist())
    assert {"sequences", "sequences_best", "sequences_worst", "sequences_random", "sequences_moving"} <= set(tags())
    with Image.open(tmp_path / "figures/sequences_moving.gif") as moving:
        assert moving.n_frames == 6  # four input frames of the longest, two predicted


def test_a_prediction_too_bright_or_too_dark_differs():
    page = {"input": torch.zeros(2, 1, 1, 8, 8), "target": torch.full((2, 1, 1, 8, 8), 0.5)}
    page["image"] = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1, 1).expand_as(page["target"])
    page |= {name: torch.ones(2, dtype=torch.int64) for name in ("lengths", "target_lengths")}
    page |= {"seen": torch.ones(2, 1, dtype=torch.bool), "mse": torch.full((2,), 0.09), "index": torch.arange(2)}
    picture = rasterize(grid(page, "two")) / 255
    width, dark = picture.shape[1], np.isclose(picture[..., 0], 0.3, atol=0.01)
    columns = np.flatnonzero(dark.sum(0) > 150)  # the last of four images, in both rows
    assert columns.min() > 0.75 * width


@pytest.mark.parametrize(("again", "first"), [(False, 1), (True, 0)])
def test_frames_given_back_have_the_numbers_of_the_input(again, first):
    page = {name: torch.zeros(1, 2, 1, 8, 8) for name in ("input", "target", "image")}
    page |= {name: torch.tensor([2]) for name in ("lengths", "target_lengths")}  # as many predicted as seen
    page |= {"seen": torch.ones(1, 2, dtype=torch.bool), "mse": torch.zeros(1), "index": torch.arange(1)}
    labels = [text.get_text() for text in grid(page, "one", again).axes[0].get_xticklabels()]
    assert labels[:4] == ["frame 0", "frame 1", f"truth {first}", f"truth {first + 1}"]


def test_each_predicted_frame_has_its_own_error_and_each_row_its_sequence():
    page = {name: torch.zeros(2, 3, 1, 8, 8) for name in ("input", "target", "image")}
    page["image"] = torch.tensor([0.1, 0.2, 0.4]).view(3, 1, 1, 1).expand(2, 3, 1, 8, 8)
    page |= {name: torch.tensor([3, 3]) for name in ("lengths", "target_lengths")}
    page |= {"seen": torch.ones(2, 3, dtype=torch.bool), "mse": torch.full((2,), 0.07), "index": torch.arange(2)}
    page |= {"sequence": torch.tensor([17, 19]), "frame": torch.tensor([4, 14])}
    axes = grid(page, "two").axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.0100", "0.0400", "0.1600"] * 2
    assert [text.get_text() for text in axes.get_yticklabels()] == ["#17, frame 4", "#19, frame 14"]
    del page["frame"]
    assert [text.get_text() for text in grid(page, "two").axes[0].get_yticklabels()] == ["row 0", "row 1"]


def test_a_grid_of_several_splits_names_its_own(run, monkeypatch):
    titles = []
    monkeypatch.setattr(HealingSequences, "test_splits", ("val", "test"))
    monkeypatch.setattr(sequences, "grid", lambda page, title, again: titles.append(title) or grid(page, title, again))
    run(SequenceGrids(count=2))
    assert titles[0] == "Best predictions on val, with MSE per pixel"
    assert titles[-1] == "Random predictions on test, with MSE per pixel"


def test_kept_rows_are_those_of_one_sort():
    scores = torch.rand(50, generator=torch.Generator().manual_seed(0))
    kept = Kept(7)
    for part in torch.arange(50).split(9):
        kept.offer({"row": part}, scores[part])
    assert torch.equal(kept.page["row"], scores.argsort(descending=True)[:7])


@pytest.mark.parametrize("again", [False, True])
def test_animation_lays_truth_above_prediction(monkeypatch, again):
    drawn = []
    monkeypatch.setattr(
        "healing_mnist.callbacks.figures.image_grid", lambda *given, **named: drawn.append((given, named))
    )
    frames, target, image = (torch.full((2, steps, 1, 4, 4), grey) for steps, grey in ((3, 0.2), (3, 0.4), (3, 0.7)))
    lengths = torch.tensor([2, 3])
    page = {"input": frames, "target": target, "image": image, "lengths": lengths, "index": torch.tensor([5, 8])}
    page["target_lengths"] = lengths if again else torch.tensor([1, 1])
    list(animation(page, again))
    greys = torch.tensor([[[image.mean() for image in row] for row in given[0]] for given, _ in drawn])
    marked = [named["marked"] for _, named in drawn]
    assert all(columns == ["row 5", "row 8"] for (_, _, columns), _ in drawn)
    assert [named["title"][:6] for _, named in drawn] == [f"Step {t}" for t in range(3 if again else 4)]
    if again:
        assert torch.allclose(greys, torch.tensor([[0.4, 0.4], [0.7, 0.7]]).expand(3, 2, 2))
        assert marked == [[[False] * 2, [True] * 2]] * 3
    else:  # the first has ended after its third frame, and rests
        assert torch.allclose(greys[:, 0], torch.tensor([[0.2, 0.2], [0.2, 0.2], [0.4, 0.2], [0.4, 0.4]]))
        assert torch.allclose(greys[:, 1], torch.tensor([[0.2, 0.2], [0.2, 0.2], [0.7, 0.2], [0.7, 0.7]]))
        assert marked == [[[False] * 2, [t >= 2, t >= 3]] for t in range(4)]


def test_errors_by_attribute_are_means_over_groups(run, read_csv, tmp_path):
    batch, errors, _ = run(ErrorsByAttribute(["angle", "class", "squares"]), length=(3, 6))
    table = read_csv("errors")
    assert {row["attribute"] for row in table} == {"angle", "class"}  # squares has one value
    columns = {"angle": batch.attributes["angle"], "class": batch.label}
    for row in table:
        own = errors[columns[row["attribute"]] == float(row["value"])].double()
        assert int(row["count"]) == len(own)
        assert float(row["mse"]) == pytest.approx(own.mean().item(), rel=1e-4)
        assert float(row["standard_error"]) == pytest.approx(np.std(own.numpy(), ddof=1) / len(own) ** 0.5, rel=1e-3)
    assert sum(int(row["count"]) for row in table) == 2 * 45
    assert (tmp_path / "figures/errors.png").exists()


def test_padding_of_a_reconstruction_does_not_count(run, read_csv):
    batch, _, task = run(ErrorsByAttribute(["length"]), kind=SequenceReconstruction, target="input", length=(3, 6))
    with torch.no_grad():
        image = task(batch).image
    for row in read_csv("errors"):
        rows = (batch.attributes["length"] == float(row["value"])).nonzero().flatten()
        own = [
            ((image[i, :n] - batch.target[i, :n]) ** 2).mean() for i, n in zip(rows, batch.lengths[rows], strict=True)
        ]
        assert float(row["mse"]) == pytest.approx(float(torch.stack(own).mean()), rel=1e-4)


def test_curves_over_what_is_missing(run, read_csv, tmp_path):
    callback = MissingCurves(areas=[0.0, 0.3, 0.9], frames=[0.0, 0.4, 0.8], rows=30)
    batch, errors, _ = run(callback, length=(4, 6))
    found = {}
    for row in read_csv("missing"):
        found.setdefault(row["predictor"], {})[row["missing"], float(row["share"])] = float(row["mse"])
    assert [len(rows) for rows in found.values()] == [6] * 4  # the network and three baselines
    whole = (batch.last.unsqueeze(1) - batch.target).square().mean((1, 2, 3, 4))[:30]
    assert found["last"]["area", 0.0] == pytest.approx(whole.mean().item(), rel=1e-4)
    assert found["last"]["area", 0.9] == pytest.approx((batch.target[:30] ** 2).mean().item(), rel=0.15)  # damaged, too
    table = found["network"]
    assert all(int(row["count"]) == 30 for row in read_csv("missing"))
    assert table["area", 0.0] == table["frames", 0.0] == pytest.approx(errors[:30].mean().item(), rel=1e-4)
    nothing = (batch.target[:30] ** 2).mean().item()  # a blank last frame predicts black
    assert table["area", 0.0] != table["area", 0.3] != table["area", 0.9]
    assert table["frames", 0.8] == pytest.approx(nothing, rel=0.15)
    assert (tmp_path / "figures/missing.png").exists()


@pytest.mark.parametrize(
    ("missing", "words"), [(0.0, "share of the frames missing"), (0.4, "share missing of the frames there are")]
)
def test_a_share_of_frames_says_of_which(missing, words, run, monkeypatch):
    figures = []
    monkeypatch.setattr(
        "healing_mnist.callbacks.sequences.publish", lambda _, name, figure, rows: figures.append(figure)
    )
    run(MissingCurves(areas=[0.0], frames=[0.0, 0.5], rows=10), missing_frames=missing)
    assert figures[0].axes[1].get_xlabel() == words


@pytest.mark.parametrize(("share", "side"), [(0.0001, 0), (1.0, 28)])
def test_holes_of_nothing_or_everything_are_refused(share, side):
    data = HealingSequences(num_sequences=30, num_eval_sequences=45, angles=[10])
    MissingCurves().check_data(data)
    with pytest.raises(UserError, match=f"areas={share:g}: a hole with a side of {side} pixels; it must have 1 to 27"):
        MissingCurves(areas=[0.0, share]).check_data(data)


def batch_of(lengths, observed=None):
    frames = torch.rand(len(lengths), max(lengths), 1, 20, 10) + 0.5
    return Batch(frames, frames, torch.zeros(len(lengths)), None, lengths=torch.tensor(lengths), observed=observed)


def test_holes_have_their_size_and_reach_every_edge():
    batch = batch_of([5] * 200)
    damaged = without_area(batch, 0.25, torch.rand(200, 5, 2))
    holes = damaged.input == 0
    assert (holes.sum((-3, -2, -1)) == 7 * 7).all()  # a quarter of 10 x 20 pixels
    for edge in (holes[..., 0, :], holes[..., -1, :], holes[..., :, 0], holes[..., :, -1]):
        assert edge.any()
    assert torch.equal(damaged.input[~holes], batch.input[~holes])
    assert torch.equal(without_area(batch, 0.0, torch.rand(200, 5, 2)).input, batch.input)


def test_dropped_frames_are_seen_as_missing_and_one_is_left():
    observed = torch.ones(4, 6, dtype=torch.bool)
    observed[1, :4] = False  # of these six, two are left
    batch = batch_of([6, 6, 5, 1], observed)
    chance = torch.rand(4, 6, 2)
    for share, left in ((0.0, [6, 2, 5, 1]), (0.4, [4, 2, 3, 1]), (0.5, [3, 1, 3, 1]), (1.0, [1, 1, 1, 1])):
        damaged = without_frames(batch, share, chance)
        assert damaged.seen.sum(1).tolist() == left
        assert not damaged.input[~damaged.seen].any()
        assert torch.equal(damaged.input[damaged.seen], batch.input[damaged.seen])
