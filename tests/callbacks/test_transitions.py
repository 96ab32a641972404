import csv

import lightning as L
import numpy as np
import pytest
import torch

from healing_mnist.callbacks import transitions
from healing_mnist.checks import UserError
from healing_mnist.data.autoregressive import AutoregressiveDigits
from healing_mnist.explore import explore


@pytest.fixture(scope="module")
def data():
    data = AutoregressiveDigits(sequences=40, novel_sequences=8, size=18, components=10, anomaly_rate=0.05)
    data.setup()
    return data


def test_every_figure_has_its_numbers(data, tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet)
    transitions.SequenceOverview(sequences=3, intensities=[0, 0.5], sides=[0, 9]).publish(trainer, data)
    written = {path.suffix: {p.stem for p in tmp_path.glob(f"figures/*{path.suffix}")} for path in tmp_path.glob("*/*")}
    assert written[".png"] == {"n6_sequences", "n3_sequences", "transitions", "noise_samples", "missing_regions"}
    assert written[".csv"] == written[".png"] | {"outliers"}
    with (tmp_path / "figures" / "missing_regions.csv").open() as file:
        assert {row["side"] for row in csv.DictReader(file)} == {"0", "9"}


def test_regions_go_from_nothing_to_the_whole_image():
    assert transitions.some_sides(36) == [0, 6, 12, 18, 24, 30, 36]
    assert transitions.some_sides(28) == [0, 5, 9, 14, 19, 23, 28]
    assert transitions.some_sides(3) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("sides=[9,50]", "analysis.sequence_overview.sides: 50 is more than 18, the side of the image"),
        ("sides=[]", r"analysis.sequence_overview.sides=\[\]: must be a list with at least one value or null"),
        ("intensities=[]", r"analysis.sequence_overview.intensities=\[\]: must be a list with at least one value"),
    ],
)
def test_samples_that_cannot_be_drawn_are_named(settings, words, tmp_path):
    small = ["data.sequences=20", "data.novel_sequences=4", "data.components=5", "data.size=18"]
    options = ["data=n6", "analysis=n6_data", f"analysis.sequence_overview.{settings}", f"output_dir={tmp_path}"]
    with pytest.raises(UserError, match=words):
        explore([*options, *small])
    assert not list(tmp_path.iterdir())


def test_transition_table_places_every_judged_transition(data):
    found, planted = data.transitions(), data.planted(data.training_sequences())
    rows = transitions.transition_table(data, found, planted)
    assert len(rows) == 28 * 12
    assert {row["from_frame"] for row in rows} == {1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}  # neither 4 nor 16 in it
    for row in rows:
        assert row["planted"] == data.sequence_table["anomalous"][row["sequence"], row["from_frame"] - 1]
    distances = np.array([row["distance"] for row in rows])
    assert distances.mean() == pytest.approx(0, abs=1e-4)
    assert [row["outlier"] for row in rows] == (distances > 3).astype(int).tolist()


def test_distances_are_outlines_with_heights_of_their_own():
    kinds = {0.0: (0, 0), 0.01: (1, 1), 5.0: (1, 0)}
    points = [
        {"component_1": x, "component_2": x, "distance": x, "outlier": kind[0], "planted": kind[1]}
        for x, kind in kinds.items()
        for _ in range(7)
    ]
    _, line = transitions.draw_transitions(points, torch.tensor([0.6, 0.4])).axes
    assert not any(outline.get_fill() for outline in line.patches)
    tops = [outline.get_xy()[:, 1].max() for outline in line.patches if len(outline.get_xy())]
    assert sorted(tops)[-3:] == [7, 7, 7]  # two of them in one place
    assert line.get_ylim()[0] < 1


def test_a_single_component_is_drawn_on_a_line():
    data = AutoregressiveDigits(sequences=40, novel_sequences=8, size=18, components=1)
    data.setup()
    found = data.transitions()
    rows = transitions.transition_table(data, found, data.planted(data.training_sequences()))
    assert {row["component_2"] for row in rows} == {0}
    plane, _ = transitions.draw_transitions(rows, found.explained).axes
    assert plane.get_ylabel() == "component 2 (0.0%)"


def test_scores_by_hand():
    outlying, planted = (torch.tensor(rows) > 0 for rows in ([[1, 1], [0, 0], [0, 1]], [[1, 0], [1, 0], [0, 1]]))
    of_transitions, of_sequences = transitions.scores(outlying, planted)
    counts = {"all": 6, "outliers": 3, "planted": 3, "precision": 2 / 3, "recall": 2 / 3}
    assert of_transitions == {"of": "transitions", **counts}
    assert of_sequences == {"of": "sequences", "all": 3, "outliers": 2, "planted": 3, "precision": 1.0, "recall": 2 / 3}


def test_parameters_and_pictures_show_the_same_jumps(data):
    numbers = transitions.pick(data, "n6", 4)
    assert len(set(numbers.tolist())) == 4
    jumps = data.sequence_table["anomalous"][numbers]
    assert jumps.any(1).tolist() == [False, False, True, True]
    rows = transitions.parameters(data, numbers)
    assert [row["jump"] for row in rows if row["sequence"] == numbers[2]] == [0, *jumps[2].int().tolist()]
    assert [row["rotation_degrees"] for row in rows if row["frame"] == 1] == [0.0] * 4


def test_noise_samples_report_the_error_that_theory_gives():
    frame = torch.full((1, 1, 60, 60), 0.5)
    _, table = transitions.noise_samples(frame, (0.0, 0.2))
    errors = {(row["kind"], row["intensity"]): row["mse"] for row in table}
    assert errors["Gaussian", "0"] == errors["Poisson", "0"] == errors["salt-and-pepper", "0"] == 0
    assert errors["Gaussian", "0.2"] == pytest.approx(0.04, rel=0.1)
    assert errors["Poisson", "0.2"] == pytest.approx(0.02, rel=0.1)
    assert errors["salt-and-pepper", "0.2"] == pytest.approx(0.2 * 0.25, rel=0.1)
