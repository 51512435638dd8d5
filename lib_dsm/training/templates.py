"""Prompt templates: lines with `[name]` and `[filewords]` from the settings, a file, or the sets that come with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib_dsm.errors import InputError
from lib_dsm.training.config import RunConfig

_SETS = Path(__file__).resolve().parent / "prompt_templates"  # one text file each, named as the WebUI names its own


def with_template(config: RunConfig) -> RunConfig:
    """`config` with the lines themselves in `template`, wherever they came from.

    So a run's record has all that decides its prompts, and a file that changes later changes no run that has begun.

    Raises:
        InputError: the template file is not named, is missing or is not text.
    """
    if config.template_source == "lines":
        return config
    lines = template_lines(config.template_source, config.template_file)
    return replace(config, template=lines, template_source="lines", template_file="")


def template_lines(source: str, file: str = "") -> tuple[str, ...]:
    """The lines of a source other than "lines" (see config.TEMPLATE_SOURCES), stripped; blank ones are left out.

    Raises:
        InputError: as `with_template`.
    """
    if source == "file" and not file:
        raise InputError("The template file is not named.", "Choose a text file, or another template source.")
    path = Path(file) if source == "file" else _SETS / f"{source}.txt"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"The template file {path} cannot be read: {reason}.", "Choose a text file.") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())
