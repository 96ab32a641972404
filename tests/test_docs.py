"""The documentation: its examples run, its links lead somewhere."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from healing_mnist import runs
from healing_mnist.config import CONF, register_resolvers
from healing_mnist.sweeps import document
from healing_mnist.sweeps.study import Study

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, kind):
    """File name -> content of the code blocks whose first line names a file."""
    return dict(re.findall(rf"```{kind}\n# (\S+)\n(.*?)```", (ROOT / page).read_text(), re.S))


@pytest.mark.parametrize(
    ("page", "overrides"),
    [
        ("README.md", ["experiment=autoencoder", "model=linear", "model.latent_dim=4"]),
        ("docs/data.md", ["experiment=joint", "data=inverted", "data.ratio=0.3"]),
    ],
)
def test_the_example_of_a_page_trains(page, overrides, fast, tmp_path, monkeypatch):
    for name, code in blocks(page, "python").items():
        module = name.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_loader(module, loader=None)
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module, made)
        exec(compile(code, name, "exec"), made.__dict__)
        package, _, last = module.rpartition(".")
        monkeypatch.setattr(importlib.import_module(package), last, made, raising=False)
    for name, text in blocks(page, "yaml").items():
        place = tmp_path / name
        place.parent.mkdir(parents=True)
        place.write_text(text)
    register_resolvers()
    options = [option for option in fast if not option.startswith("data.limit")]
    said = [*overrides, *options, f"output_dir={tmp_path}", f"hydra.searchpath=[file://{tmp_path}/conf]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        result = runs.train(compose("train", said), said)
    assert result.metrics["test/mse"] < 0.5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            assert anchor in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles], target


def test_the_results_stand_in_the_words_of_the_study():
    study = Study.load("reports")
    text = study.document.read_text()
    written = document.sections(text)
    assert study.intro.strip() in text
    for part in study.parts:
        section = written.get(part.name, text)  # one that was not run is named at the top
        said = (part.title, part.says, part.remark) if part.name in written else (part.title,)
        missing = [words for words in said if words.strip() not in section]
        assert not missing, f"{part.name}: python sweep.py study=reports run=false writes them"
