"""Text files with prompt templates that lie in the host's own folder for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lib_dsm.errors import InputError
from lib_dsm.host.protocol import Host
from lib_dsm.training.config import RunConfig
from lib_dsm.training.templates import with_template


def template_names(host: Host) -> list[str]:
    """The templates in the host's folder and those below it, as one chooses them."""
    folder = host.folders.templates
    files = folder.rglob("*.txt") if folder.is_dir() else ()
    return sorted((path.relative_to(folder).as_posix() for path in files if path.is_file()), key=str.lower)


def find_template(host: Host, name: str) -> Path:
    """A template's file: `name` is its whole path, or its name in the host's folder, with or without the suffix.

    Raises:
        InputError: there is none.
    """
    given = Path(name)
    if given.is_absolute():
        return given  # whoever reads it says what is wrong with it
    names = template_names(host)
    for known in names:
        if name.replace("\\", "/") in (known, known.removesuffix(".txt")):
            return host.folders.templates / known
    raise InputError(
        f'There is no template file "{name}".', f"Give a file's whole path, or one of: {', '.join(names) or 'none'}."
    )


def with_host_template(host: Host, config: RunConfig) -> RunConfig:
    """`config` with the lines themselves in `template` (see `with_template`), also from a file of the host's.

    Raises:
        InputError: the template file is not named, is missing or is not text.
    """
    if config.template_source == "file" and config.template_file:
        config = replace(config, template_file=str(find_template(host, config.template_file)))
    return with_template(config)
