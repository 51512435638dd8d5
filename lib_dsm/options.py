"""Options are declared once, as dataclass fields made by `option`; widgets, command-line flags, JSON and tables follow.

A class of options is a frozen or plain `@dataclass` whose fields are `option(...)`s of type bool, int, float, str,
`tuple[...]` of those, or a further dataclass of options in a tuple. It may have a static method `defaults_for(values)`
that gives other defaults than the fields' own where one of the given values decides.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from lib_dsm.errors import InputError

Options = TypeVar("Options")


@dataclass(frozen=True)
class Spec:
    """What is known of one option: everything a face needs to ask for it and to check the answer."""

    name: str
    type: Any
    default: Any
    help: str
    label: str
    minimum: float | None
    maximum: float | None
    choices: tuple[Any, ...] | None
    step: float | None


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",  # noqa: A002 - the word everybody looks for
    *,
    label: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
    step: float | None = None,
) -> Any:
    """A dataclass field that is an option; bounds are inclusive, `step` is what a slider moves by."""
    metadata = {
        "help": help, "label": label, "minimum": minimum, "maximum": maximum, "choices": choices, "step": step,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def specs(options: type) -> dict[str, Spec]:
    """The declared options of a class, by name, in order."""
    hints = typing.get_type_hints(options)
    return {
        field.name: Spec(
            name=field.name,
            type=hints[field.name],
            default=field.default,
            help=field.metadata.get("help", ""),
            label=field.metadata.get("label") or field.name.replace("_", " ").capitalize(),
            minimum=field.metadata.get("minimum"),
            maximum=field.metadata.get("maximum"),
            choices=field.metadata.get("choices"),
            step=field.metadata.get("step"),
        )
        for field in dataclasses.fields(options)
    }


def from_json(options: type[Options], values: Any, what: str = "settings") -> Options:
    """Build options from plain data, checking every name, type and bound.

    Raises:
        InputError: an unknown key, a missing one, a value of the wrong kind or out of bounds; the key is named.
    """
    if not isinstance(values, dict):
        raise InputError(f"The {what} are a {type(values).__name__}, not an object with keys.", "Check the file.")
    known = specs(options)
    for key in values:
        if key not in known:
            near = ", ".join(sorted(known))
            raise InputError(f'"{key}" is not a known key of the {what}.', f"Known keys: {near}.")
    checked = {}
    decided: Any = getattr(options, "defaults_for", None)
    values = {**(decided(values) if decided else {}), **values}
    for name, spec in known.items():
        if name in values:
            checked[name] = check(spec, values[name], what)
        elif spec.default is dataclasses.MISSING:
            raise InputError(f'The {what} lack "{name}".', spec.help and f"{spec.help.rstrip('.')}.")
    return options(**checked)


def to_json(options: Any) -> dict[str, Any]:
    """Plain data that `from_json` reads back to an equal object."""
    result: dict[str, Any] = dataclasses.asdict(options)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in result.items()}


def check(spec: Spec, value: Any, what: str = "settings") -> Any:
    """Return `value` as the option's type; numbers may be written as text, and a text may be a number.

    Raises:
        InputError: it is of another kind or out of bounds.
    """
    converted = _convert(spec.type, value, spec, what)
    if spec.choices is not None and converted not in spec.choices:
        choices = ", ".join(map(str, spec.choices))
        raise InputError(f'{spec.label} of the {what} is "{value}".', f"Choose one of: {choices}.")
    if isinstance(converted, (int, float)) and not isinstance(converted, bool):
        if spec.minimum is not None and converted < spec.minimum:
            raise InputError(f"{spec.label} is {_short(converted)}, below {_short(spec.minimum)}.", "Raise it.")
        if spec.maximum is not None and converted > spec.maximum:
            raise InputError(f"{spec.label} is {_short(converted)}, above {_short(spec.maximum)}.", "Lower it.")
    return converted


def _short(value: Any) -> str:
    """A value as a sentence quotes it: numbers in full, nothing longer than a line."""
    text = f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _convert(kind: Any, value: Any, spec: Spec, what: str) -> Any:
    wrong = InputError(f"{spec.label} of the {what} is {_short(value)}.", f"It must be {_kind_name(kind)}.")
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(kind):
            return None
        inner = next(part for part in typing.get_args(kind) if part is not type(None))
        return _convert(inner, value, spec, what)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise wrong
        return tuple(_convert(typing.get_args(kind)[0], item, spec, what) for item in value)
    if dataclasses.is_dataclass(kind):
        if isinstance(value, typing.cast(type, kind)):
            return value
        return from_json(typing.cast(type, kind), value, spec.label.lower())
    if kind is bool:
        if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "1", "0", "on", "off"):
            return value.lower() in ("true", "yes", "1", "on")
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind is str:
        # Such as the learning rate 0.005, which is a number to everybody who writes it.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf:
            return str(value)
        if not isinstance(value, str):
            raise wrong
        return value
    try:
        if isinstance(value, bool):
            raise wrong
        number = kind(value)
        exact = not isinstance(value, float) or number == value
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if not exact or (isinstance(number, float) and not math.isfinite(number)):
        raise wrong
    return number


def _kind_name(kind: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(kind, "a list" if typing.get_origin(kind) is tuple else "of another kind")


def markdown_table(options: type) -> str:
    """The options as a Markdown table, for the documentation."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for spec in specs(options).values():
        default = "" if spec.default is dataclasses.MISSING else f"`{spec.default}`"
        choices = f" ({', '.join(map(str, spec.choices))})" if spec.choices else ""
        rows.append(f"| `{spec.name}` | {default} | {spec.help}{choices} |")
    return "\n".join(rows)
