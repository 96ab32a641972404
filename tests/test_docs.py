"""The documentation: its examples run, its links lead somewhere."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from healing_mnist import build, config, runs
from healing_mnist.checks import UserError
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


def commands():
    """What the pages give to train.py: a page's name and overrides. Of several values of a setting it is the first."""
    for page in PAGES:
        for words in re.findall(r"python train\.py (?!-sc)([^`\n#]*)", page.read_text()):
            said = [re.sub(r"^([^=\[\]{]+=[^,\[{]*),.*", r"\1", word) for word in shlex.split(words) if "=" in word]
            made_here = {"model=linear", "data=inverted"} & set(said)  # by the examples above
            if said and not made_here:
                yield page.name, tuple(word for word in said if word != "data.root=FOLDER")


@pytest.mark.parametrize(
    ("page", "said"), sorted(set(commands())), ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_command_of_a_page_is_one_that_runs(page, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if "latent_dim=0" in str(said) or "latnt" in str(said):  # shown for what it says
        with pytest.raises((UserError, ConfigCompositionException)):
            build.check(config.compose(list(said)))
        return
    names = {"experiment=NAME": "experiment=demo", "data/sequences=NAME": "data/sequences=const_plain"}
    build.check(config.compose([names.get(word, word) for word in said]))


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
