import math

import numpy as np
import pytest
import torch
from PIL import Image

from healing_mnist.callbacks.figures import image_grid, moving_grid, publish, publish_gif, rasterize, scatter, subplots


class Trainer:
    """The few things publishing needs."""

    is_global_zero, global_step, loggers = True, 0, ()

    def __init__(self, root):
        self.default_root_dir = root


def test_publish_saves_picture_and_numbers(tmp_path):
    figure, axes = subplots()
    axes.plot([0, 1])
    publish(Trainer(tmp_path), "line", figure, [{"x": 0, "y": 0.5}, {"x": 1, "y": 1, "note": "end"}])
    assert Image.open(tmp_path / "figures/line.png").size == (600, 450)
    assert (tmp_path / "figures/line.csv").read_text() == "x,y,note\n0,0.5,\n1,1,end\n"
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["line.csv", "line.png"]


def test_only_the_first_process_writes(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.is_global_zero = False
    publish(trainer, "line", subplots()[0], [{"x": 0}])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_shows_every_image_in_its_place(channels):
    # 2 x 3 images of one value each; an image outside [0, 1] is clipped, a hole stays white.
    values = [[0.0, 0.25, 1.5], [0.5, None, 0.75]]
    images = [[None if v is None else torch.full((channels, 8, 8), v) for v in row] for row in values]
    picture = rasterize(image_grid(images, cell=1.0)) / 255
    height, width, _ = picture.shape
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            middle = picture[round(height * (i + 0.5) / 2), round(width * (j + 0.5) / 3)]
            expected = 1.0 if value is None else min(value, 1.0)
            np.testing.assert_allclose(middle, expected, atol=0.01)


def test_image_grid_keeps_colours():
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 8, 8)
    picture = rasterize(image_grid([[red]]))
    middle = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert middle.tolist() == [255, 0, 0]


def test_a_white_image_does_not_melt_into_the_page():
    picture = rasterize(image_grid(torch.ones(1, 1, 1, 8, 8)))
    middle = picture[picture.shape[0] // 2, :, 0]
    changes = np.flatnonzero(np.diff((middle == 255).astype(int)))
    assert len(changes) == 4  # page, frame, image, frame, page
    assert middle[changes[0] + 2] == middle[changes[2] + 2] == round(0.6 * 255)


def test_no_title_or_label_is_cut():
    figure, axes = subplots()
    figure.suptitle("A title " * 10)
    axes.set_title("That of a panel " * 5)
    grid = image_grid(
        torch.zeros(2, 1, 1, 8, 8), ["short", ",".join(f"setting_{i}=1234" for i in range(9))], title="W" * 9
    )
    for picture in (rasterize(figure), rasterize(grid)):
        edges = picture[[0, -1]].reshape(-1), picture[:, [0, -1]].reshape(-1)
        assert all((edge == 255).all() for edge in edges)


def test_gif_has_all_moments(tmp_path):
    film = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 7, 7)
    films, made = [[film, film[:2]]], [[3, math.inf]]
    figures = list(moving_grid(films, ["row"], ["long", "short"], "moment {}", start=1, made=made))
    assert [figure.get_suptitle() for figure in figures] == [f"moment {i}" for i in range(1, 6)]
    publish_gif(Trainer(tmp_path), "film", figures, seconds=0.2)
    moving = Image.open(tmp_path / "figures/film.gif")
    assert (moving.n_frames, moving.info["duration"], moving.info["loop"]) == (5, 200, 0)
    for i, figure in enumerate(figures):
        moving.seek(i)
        picture = rasterize(figure)
        assert moving.size == picture.shape[1::-1]
        assert np.abs(np.asarray(moving.convert("RGB")).astype(int) - picture).mean() < 1
        (sheet,) = (image.get_array() for image in figure.axes[0].images)
        greys = sheet[4, [4, -5]].mean(1).tolist()
        assert greys == pytest.approx([i / 4, min(i, 1) / 4])  # the short one rests on its last
        colored = [len(set(edge)) > 1 for edge in sheet[[0, 0], [0, -1]].tolist()]
        assert colored == [i >= 3, False]


def test_scatter_has_a_legend_for_groups_and_a_bar_for_a_quantity():
    points = np.random.default_rng(0).normal(size=(40, 2))
    figure, (few, many) = subplots(1, 2)
    scatter(few, points, np.arange(40) % 3, "class", ["cat", "dog", "owl"])
    scatter(many, points, np.linspace(0, 180, 40), "angle")
    assert [text.get_text() for text in few.get_legend().get_texts()] == ["cat", "dog", "owl"]
    assert many.get_legend() is None
    assert len(figure.axes) == 3  # the third is the colour bar


def test_names_on_each_other_are_left_to_the_legend():
    middles = np.array([[0, 0], [0.1, 0], [9, 9], [0, 9]])  # cat and dog in one place
    points = np.repeat(middles, 10, axis=0) + np.random.default_rng(0).normal(size=(40, 2)) / 100
    axes = subplots()[1]
    scatter(axes, points, np.arange(40) // 10, "class", ["cat", "dog", "owl", "fox"])
    assert [text.get_text() for text in axes.texts] == ["owl", "fox"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cat", "dog", "owl", "fox"]


def test_drawing_leaves_global_style_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    image_grid(torch.zeros(1, 1, 1, 4, 4))
    subplots()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("channels", "color"), [(1, (128,) * 3), (2, (64,) * 3), (3, (128, 0, 0))])
def test_channels_that_are_no_colors_are_drawn_as_grey(channels, color):
    image = torch.zeros(channels, 8, 8)
    image[0] = 0.5
    axes = image_grid([[image]]).axes[0]
    shown = axes.images[0].get_array()
    center = np.asarray(shown)[shown.shape[0] // 2, shown.shape[1] // 2, :3]
    assert np.rint(center * 255).tolist() == pytest.approx(color, abs=1)
