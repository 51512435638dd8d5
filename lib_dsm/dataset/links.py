"""Links in a folder of pictures: where work on it would read or write somewhere else.

A person's own links are a person's own affair: the command line follows those of pictures and captions, as of a set
whose pictures lie on another disk. The pages and programs reach only what was opened, and a folder may have come from
anywhere; so there every job looks for links first (`Service.work_folder`). What the library keeps in `.dsm` is never
behind a link, and the history never writes behind one, whoever asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lib_dsm.dataset.listing import PICTURE_SUFFIXES, WRITTEN_SUFFIXES
from lib_dsm.dataset.locks import METADATA_FOLDER, own_links
from lib_dsm.errors import InputError

_WORKED_ON = (*PICTURE_SUFFIXES, *WRITTEN_SUFFIXES)


def links_in(folder: Path, recursive: bool = False) -> Iterator[Path]:
    """The links among a folder's pictures and captions, with `recursive` also of the folders inside, and in its `.dsm`.

    Links to other folders are none of them: nothing follows those.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == METADATA_FOLDER:
                    yield from own_links(folder)
                elif entry.is_symlink():
                    if entry.name.lower().endswith(_WORKED_ON):
                        yield Path(entry.path)
                elif recursive and not entry.name.startswith(".") and entry.is_dir():
                    yield from links_in(Path(entry.path), recursive)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error
