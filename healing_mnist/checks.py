"""Find every mistake in a configuration before any work starts.

The types in a constructor's signature are the schema: a node with a ``_target_`` is compared with the signature of what
it names, so that a value is described once, where it is used. `Annotated` adds ranges::

    def __init__(self, latent_dim: Positive, dropout: Fraction = 0.0, activation: Literal["relu", "elu"] = "relu")
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
import sys
import sysconfig
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra.errors import InstantiationException


class UserError(Exception):
    """A mistake of the user's: the message alone is shown, without a traceback, and the exit code is 1."""


def told(error: BaseException, who: str = "") -> str:
    """What went wrong in code that settings name, in one line with the place; a `UserError` tells that itself.

    `who` was at work, in front of the line.
    """
    cause = error
    while isinstance(cause, InstantiationException) and cause.__cause__:  # around what a constructor raises
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return str(cause)
    frames, libraries = traceback.extract_tb(cause.__traceback__), ("site-packages", sysconfig.get_path("stdlib"))
    place = [frame for frame in frames if not any(part in frame.filename for part in libraries)] or frames
    where = f" ({Path(place[-1].filename).name}:{place[-1].lineno})" if place else ""
    return f"{who}{': ' * bool(who)}{type(cause).__name__}: {cause}{where}"


def refuse(problems: Sequence[str], where: str = "in the settings") -> None:
    """Raise one UserError that lists all problems; do nothing where there is none."""
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise UserError("\n  ".join([f"{count} {where}:", *problems]))


@dataclass(frozen=True)
class Range:
    """Allowed interval of a number; `None` leaves an end open. `above` excludes the lower end, `below` the upper."""

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        if self.low is not None and (value <= self.low if self.above else value < self.low):
            return False
        return self.high is None or (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"in {'(' if self.above else '['}{self.low:.10g}, {self.high:.10g}{')' if self.below else ']'}"
        if self.high is not None:
            return f"at most {self.high:g}"
        return f"above {self.low:g}" if self.above else f"at least {self.low:g}"


@dataclass(frozen=True)
class NotEmpty:
    """A list with something in it."""

    def __contains__(self, value: Sequence) -> bool:
        return len(value) > 0

    def __str__(self) -> str:
        return "with at least one value"


Positive = Annotated[int, Range(low=1)]
NonNegative = Annotated[int, Range(low=0)]
PositiveFloat = Annotated[float, Range(low=0, above=True)]
NonNegativeFloat = Annotated[float, Range(low=0)]
Fraction = Annotated[float, Range(low=0, high=1)]
Widths = Annotated[list[Positive], NotEmpty()]  # of layers, one each


def suggestion(name: str, allowed: Sequence[str]) -> str:
    """`"; did you mean 'x'?"` when one of `allowed` is close to `name`, else nothing."""
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def mismatch(value: Any, hint: Any) -> str | None:
    """Say what `hint` allows when `value` does not fit it; None when it fits or the hint cannot be judged."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        base, *limits = args
        problem = mismatch(value, base)
        if problem or value is None:
            return problem
        broken = [str(limit) for limit in limits if isinstance(limit, (Range, NotEmpty)) and value not in limit]
        return f"{_name(base)} {' and '.join(broken)}" if broken else None
    if origin is Literal:
        return None if value in args else "one of " + ", ".join(str(arg) for arg in args)
    if origin in (typing.Union, types.UnionType):
        # No yaml holds a tensor, which PyTorch's optimizers allow in the place of a number.
        problems = [mismatch(value, arg) for arg in args if getattr(arg, "__name__", None) != "Tensor"]
        return None if None in problems else " or ".join(problems)
    if hint is type(None):
        return None if value is None else "null"
    if hint is float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return "a number"
        return None if isinstance(value, int) or math.isfinite(value) else "a finite number"
    if hint is int:
        return None if isinstance(value, int) and not isinstance(value, bool) else "an integer"
    if hint in (bool, str):
        return None if isinstance(value, hint) else _name(hint)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, Sequence) or isinstance(value, str):
            return "a list"
        if origin is tuple and Ellipsis not in args and len(args) != len(value):
            return f"a list of {len(args)} values"
        hints = args if origin is tuple and Ellipsis not in args else args[:1] * len(value)
        broken = [p for p in map(mismatch, value, hints) if p]
        return f"a list, each {broken[0]}" if broken else None
    if origin in (dict, Mapping):
        return None if isinstance(value, Mapping) else "a mapping"
    if ((inspect.isclass(hint) and hint is not Any) or origin is Callable) and not isinstance(value, Mapping):
        return "a group of settings"
    return None


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _name(hint: Any) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text", list: "a list"}
    return names.get(typing.get_origin(hint) or hint, str(hint))


def problems_of(config: Any, path: str = "", supplied: Sequence[str] = ()) -> list[str]:
    """Compare every ``_target_`` node below `config` (plain dicts and lists) with the signature it names.

    `supplied` are arguments of the top node that the program adds itself. Returns one line per problem, each with the
    full key, the value given and what is allowed.
    """
    from hydra.utils import get_object

    found: list[str] = []
    if isinstance(config, Mapping):
        target = config.get("_target_")
        if target is not None:
            hydras = logging.getLogger("hydra.utils")
            hydras.disabled = True  # it would say the same
            try:
                function = get_object(target)
            except Exception as error:
                module, _, name = str(target).rpartition(".")
                near = suggestion(name, dir(sys.modules[module]) if module in sys.modules else ())
                return [f"{path}._target_={target}: cannot be imported ({' '.join(str(error).split())}){near}"]
            finally:
                hydras.disabled = False
            found += _signature_problems(config, function, path, supplied)
        for key, value in config.items():
            found += problems_of(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, Sequence) and not isinstance(config, str):
        for i, value in enumerate(config):
            found += problems_of(value, f"{path}[{i}]")
    return found


def _signature_problems(config: Mapping, function: Any, path: str, supplied: Sequence[str]) -> list[str]:
    found = []
    parameters = signature_of(function)
    if parameters is None:
        return []
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {
        k: v for k, v in config.items() if k not in ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")
    }
    for key, value in given.items():
        where = f"{path}.{key}" if path else key
        if key not in parameters:
            if not open_ended:
                near = suggestion(key, list(parameters))
                found.append(f"{where}={value}: unknown setting of {function.__name__}{near}")
            continue
        if isinstance(value, Mapping) and "_target_" in value:
            continue  # an object in the making; its own node is compared with its own signature
        allowed = mismatch(value, parameters[key].annotation)
        if allowed:
            found.append(f"{where}={shown(value)}: must be {allowed}")
    if not config.get("_partial_") and "_args_" not in config:
        for key, parameter in parameters.items():
            needed = parameter.default is parameter.empty and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            )
            if needed and key not in given and key not in supplied:
                found.append(f"{path}.{key}: missing; {function.__name__} needs it")
    return found


def signature_of(function: Any) -> dict[str, inspect.Parameter] | None:
    """Parameters by name with annotations resolved; **kwargs of a subclass continue in its base class."""
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None
    owner = function.__init__ if inspect.isclass(function) else function
    try:
        hints = typing.get_type_hints(owner, include_extras=True)
    except Exception:
        hints = {}
    parameters = {name: p.replace(annotation=hints.get(name, Any)) for name, p in parameters.items()}
    variadic = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]
    if inspect.isclass(function) and variadic:
        for base in function.__mro__[1:]:
            if "__init__" in vars(base) and base is not object:
                # What is required there may well be supplied by the subclass itself.
                inherited = {
                    name: p
                    if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) or p.default is not p.empty
                    else p.replace(default=None)
                    for name, p in (signature_of(base) or {}).items()
                }
                del parameters[variadic[0]]
                return {**inherited, **parameters}
    return parameters
