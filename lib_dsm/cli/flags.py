"""Command-line flags from declared options."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.options import Spec

Options = TypeVar("Options")
_COMMA = re.compile(r"(?<!\\),")  # \, is a comma within an item


def add_flags(parser: argparse.ArgumentParser, kind: type, skip: Iterable[str] = ()) -> None:
    """A flag for each option of the class: `--keep-tags 2`, `--mcut` and `--no-mcut`, lists with commas or repeated."""
    for spec in options.specs(kind).values():
        if spec.name in skip:
            continue
        flag = "--" + spec.name.replace("_", "-")
        text = _help(spec)
        if spec.type is bool:
            parser.add_argument(flag, dest=spec.name, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif typing.get_origin(spec.type) is tuple:
            parser.add_argument(flag, dest=spec.name, action="append", metavar="A,B", help=text)
        else:
            values = "{" + ",".join(map(str, spec.choices)) + "}" if spec.choices else spec.name.upper()
            parser.add_argument(flag, dest=spec.name, type=_reader(spec), metavar=values, help=text)


def read_flags(arguments: argparse.Namespace, kind: type[Options], **changes: Any) -> Options:
    """The options that the flags give, the defaults for the others.

    Raises:
        InputError: a value is wrong, or one without a default is missing.
    """
    given: dict[str, Any] = {}
    for spec in options.specs(kind).values():
        value = getattr(arguments, spec.name, None)
        if isinstance(value, list):
            value = [item.strip() for text in value for item in _COMMA.split(text) if item.strip()]
        if value is not None:
            given[spec.name] = value
    return options.from_json(kind, {**given, **changes})


def _help(spec: Spec) -> str:
    default = spec.default
    if default is dataclasses.MISSING or isinstance(default, (tuple, bool)) or default == "":
        return spec.help.replace("%", "%%")
    return f"{spec.help} ({default})".replace("%", "%%")


def _reader(spec: Spec) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return options.check(spec, text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
