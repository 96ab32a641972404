"""From what the user varies to a list of points, each the settings of one job.

Values are written in Hydra's own grammar: ``3,4,5``, ``range(1,8)``, ``interval(0,1)``, ``int(interval(1,100))``,
``tag(log,interval(1e-5,0.1))``; in a yaml a list will do too.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from healing_mnist.checks import UserError
from healing_mnist.config import CONF, as_override

SEED = "seed"  # never searched, always crossed with everything else
REPEATS = {SEED: "seeds", "data.fold": "folds"}  # what repeats a setting instead of being one, and its plural
# Settings that an experiment may not have; where images come from, the launcher asks before there are jobs.
WITHIN_GROUPS = re.compile(
    r"\+{0,2}(data|model|task|optimizer|scheduler|pretrained|callbacks|analysis)[./](?!(source|root|cache)=)"
)
WAITING = "tag(waiting,choice(["  # in a list, where null and nothing may stand
Point = dict[str, str]  # setting -> value, as Hydra reads it from a command line


@dataclass(frozen=True)
class Dimension:
    """One setting that varies: a list of values, or an interval (`low` and `high` both included)."""

    key: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    integer: bool = False
    log: bool = False

    def draw(self, generator: random.Random) -> str:
        """A value at random: uniform, or uniform in the logarithm."""
        if self.low is None:
            return generator.choice(self.values)
        half = 0.5 if self.integer else 0.0  # so that the two ends are as likely as the numbers between them
        low, high = self.low - half, self.high + half
        value = math.exp(generator.uniform(math.log(low), math.log(high))) if self.log else generator.uniform(low, high)
        return self.text(min(max(value, self.low), self.high))

    def text(self, value: Any) -> str:
        """`value` as it is written: a float has four digits, so that names of folders stay readable and exact."""
        if self.low is None:
            return str(value)
        return str(round(value)) if self.integer else f"{value:.4g}"

    def __str__(self) -> str:
        if self.low is None:
            return ", ".join(self.values)
        kind = ("log-" if self.log else "") + "uniform" + (" integers" if self.integer else "")
        return f"{kind} in [{self.low:g}, {self.high:g}]"


def deferred(arguments: Sequence[str]) -> list[str]:
    """The command line of a sweep in which settings of the groups wait for its jobs, where whole groups vary.

    Before there are jobs Hydra composes a configuration of all that does not vary. What is set within a group that does
    is unknown there, so it is written as a choice of one, which `said` takes back.
    """
    parser, swept, fixed = OverridesParser.create(), [], {}
    for text in arguments:
        try:
            override = parser.parse_override(text)
        except HydraException:  # an option of the command line, or told where Hydra reads it
            continue
        if override.is_sweep_override():
            swept.append(override.key_or_group)
        elif "=" in text and WITHIN_GROUPS.match(text):
            key, value = text.split("=", 1)
            fixed[text] = f"{key}={WAITING}{value}]))"
        elif override.key_or_group == "sweep" and (yaml_file := CONF / "sweep" / f"{override.value()}.yaml").exists():
            named = yaml.safe_load(yaml_file.read_text()) or {}
            swept += [key for varied in (named.get("params") or {}, *(named.get("zip") or ())) for key in varied]
    if not any("." not in key and (CONF / key).is_dir() for key in swept):
        return list(arguments)
    return [fixed.get(text, text) for text in arguments]


def said(argument: str) -> str:
    """What the user wrote for one of `deferred`."""
    key, waiting, value = argument.partition(f"={WAITING}")
    return f"{key}={value[:-3]}" if waiting else argument


def parse(overrides: Sequence[str], loader: ConfigLoader | None = None) -> tuple[dict[str, str], dict[str, Dimension]]:
    """Split overrides into the fixed ones (setting -> the override) and the ones that vary.

    `loader` is needed for ``optimizer=glob(*)`` only, to know what there is.
    """
    parser, fixed, varied = OverridesParser.create(loader), {}, {}
    for text in overrides:
        try:
            parsed = parser.parse_override(text)
        except HydraException as error:
            raise UserError(f"{text}: {str(error).splitlines()[0]}") from None
        if parsed.is_sweep_override():
            varied[parsed.get_key_element()] = _dimension(parsed)
        else:
            fixed[parsed.get_key_element().lstrip("+~")] = text
    return fixed, varied


def from_yaml(params: Mapping[str, Any]) -> list[str]:
    """Overrides of a yaml's mapping, setting -> list of values, or text in Hydra's grammar."""
    return [f"{k}={','.join(map(literal, v)) if isinstance(v, list) else literal(v)}" for k, v in params.items()]


def literal(value: Any) -> str:
    """`value` as it stands in an override; text is taken to be in Hydra's grammar already."""
    return value if isinstance(value, str) else as_override("", value)[1:]


def _dimension(override: Override) -> Dimension:
    key, value = override.get_key_element(), override._value
    if not override.is_interval_sweep():
        values = tuple(dict.fromkeys(override.sweep_string_iterator()))
        if not values:
            raise UserError(f"{override.input_line}: there is no value in it")
        return Dimension(key, values)
    integer = "int" in value.tags or isinstance(value.start, int)
    if unknown := value.tags - {"log", "int"}:
        raise UserError(f"{override.input_line}: unknown tag {', '.join(unknown)}; allowed: log, int")
    if not value.start < value.end:
        raise UserError(f"{override.input_line}: the lower end must be below the upper one")
    if "log" in value.tags and value.start <= 0:
        raise UserError(f"{override.input_line}: a logarithm needs a lower end above 0")
    return Dimension(key, (), float(value.start), float(value.end), integer, "log" in value.tags)


def pairs(groups: Sequence[Mapping[str, Sequence[Any]]]) -> list[list[Point]]:
    """Settings that change together: each mapping of equally long lists becomes a list of points."""
    together = []
    for group in groups:
        for key, values in group.items():
            if not isinstance(values, (list, tuple)):
                raise UserError(f"sweep.zip: {key}={values}: must be a list, as long as those it changes with")
        if len({len(values) for values in group.values()}) != 1:
            lengths = ", ".join(f"{key} has {len(values)}" for key, values in group.items())
            raise UserError(f"sweep.zip: settings that change together need equally many values, but {lengths}")
        columns = [list(map(literal, values)) for values in group.values()]
        together.append([dict(zip(group, row, strict=True)) for row in zip(*columns, strict=True)])
    return together


def grid(dimensions: Sequence[Dimension], together: Sequence[Sequence[Point]] = ()) -> list[Point]:
    """Every combination, the first setting changing slowest."""
    for dimension in dimensions:
        if dimension.low is not None:
            raise UserError(f"{dimension.key}: {dimension} cannot be listed; use sweep.method=random or tpe")
    sides = [*together, *([{d.key: value} for value in d.values] for d in dimensions)]
    return [_merged(parts) for parts in itertools.product(*sides)]


def sample(
    dimensions: Sequence[Dimension], together: Sequence[Sequence[Point]], trials: int, seed: int = 0
) -> list[Point]:
    """`trials` different points at random. More trials keep the earlier ones; a small space may hold fewer."""
    found: dict[tuple, Point] = {}
    for i in range(20 * trials):
        if len(found) == trials:
            break
        generator = random.Random(f"{seed} {i}")
        point = _merged(
            [*(generator.choice(group) for group in together), *({d.key: d.draw(generator)} for d in dimensions)]
        )
        found.setdefault(tuple(point.items()), point)
    return list(found.values())


def repeated(points: Sequence[Point], repeats: Sequence[Dimension]) -> list[Point]:
    """Every point with the first seed (or fold), then every point with the second: an early look sees all settings."""
    return [point | again for again in grid(repeats) for point in points]


def _merged(parts: Sequence[Point]) -> Point:
    return {key: value for part in parts for key, value in part.items()}


_parser = functools.cache(OverridesParser.create)


def value_of(text: str) -> Any:
    """The number, truth value, list or text that an override's value stands for."""
    if text.startswith(("[", "{")):
        return _parser().parse_override(f"x={text}").value()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    named = {"true": True, "false": False, "null": None}
    return named.get(text.lower(), text.strip("'\""))
