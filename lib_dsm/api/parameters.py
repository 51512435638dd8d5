"""What a route reads from a call, told by its own code, so that the list of parameters is never behind it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType
from typing import Any

_KINDS = {
    "text": "text", "whole": "whole number", "flag": "true or false", "texts": "list of texts", "object": "object",
    "objects": "list of objects",
}  # fmt: skip
"""The readers of a `Call`, and what each gives."""
_ALWAYS_OPTIONAL = ("whole", "flag")


@dataclass(frozen=True)
class Parameter:
    """A key of a call; `required` says that the route refuses without it, at least where it comes to read it."""

    name: str
    kind: str
    required: bool


@lru_cache(maxsize=256)
def parameters(handler: Callable[..., Any]) -> tuple[Parameter, ...]:
    """What a route's function, and the functions to which it hands the call, read from the call, in that order."""
    found: dict[str, Parameter] = {}
    for name, reader, defaulted in _readings(handler, set()):
        required = not defaulted and reader not in _ALWAYS_OPTIONAL
        known = found.get(name)
        if known is None or (known.required and not required):
            found[name] = Parameter(name, _KINDS[reader], required)
    return tuple(found.values())


def _readings(function: Any, seen: set[Any]) -> Iterator[tuple[str, str, bool]]:
    if not isinstance(function, FunctionType) or function in seen:
        return
    seen.add(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "call":
            if called.attr in _KINDS and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), called.attr, len(node.args) > 1
        elif isinstance(called, ast.Name) and any(_is_call(argument) for argument in node.args):
            yield from _readings(function.__globals__.get(called.id), seen)


def _is_call(argument: ast.expr) -> bool:
    return isinstance(argument, ast.Name) and argument.id == "call"
