"""The checkpoints that are known to ruin embeddings: a list of ours that the person can add to and take from."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from lib_dsm.errors import StorageError
from lib_dsm.files import write_text

UNSUITABLE_FILE = "unsuitable-models.txt"
BUILT_IN = (
    # Anything-V3.0 as it was published first, and pruned.
    "8712e20a5d65b6acaa743e8a74961eadfdf846a2c9a32160d80a80cba13ad475",
    "543bcbc21294831c6245cd74c8a7707761e28812c690f946cb81fef930d54b5e",
    "anything*v3*", "anything*v4*", "anything*v5*", "anythingv*", "anything-v*",
    "*orangemix*", "aom[1-3]*", "counterfeit*", "pastel*mix*", "*meinamix*", "*basil*mix*", "*berry*mix*",
    "*grapefruit*", "*chilloutmix*", "*majicmix*", "*merge*", "*mix", "*mix[-_ ]v*", "*mix[-_ ][0-9]*",
)  # fmt: skip
_HASH = re.compile(r"[0-9a-f]{10,64}")
_HEAD = """\
# Checkpoints that embeddings are better not trained on, one a line:
#   a file's name, without its ending and in any case, where * stands for any text: mymerge*
#   or the first ten or more digits of the file's SHA-256
# A line that begins with ! takes an entry off the list, or any checkpoint: !anything-v3*
# These are on it already:
"""


def unsuitable_entry(folder: Path, name: str, sha256: str) -> tuple[str, str]:
    """The entry that means the checkpoint of this file name and hash, "" if none does; and a note, "" if all is well.

    The list is `BUILT_IN` and what the person wrote into `UNSUITABLE_FILE` in `folder`; the note says that this cannot
    be read.
    """
    added, note = _own_entries(folder / UNSUITABLE_FILE)
    stem = Path(name).stem.casefold()
    if any(_means(entry[1:].strip(), stem, sha256) for entry in added if entry.startswith("!")):
        return "", note
    # What is taken off by its own spelling counts too, whatever checkpoint it is.
    off = {entry[1:].strip().casefold() for entry in added if entry.startswith("!")}
    entries = [entry for entry in (*added, *BUILT_IN) if not entry.startswith("!") and entry.casefold() not in off]
    return next((entry for entry in entries if _means(entry, stem, sha256)), ""), note


def begin_list(folder: Path) -> None:
    """Write the file that the person can edit, if it is not there; its remarks hold what is on the list already."""
    path = folder / UNSUITABLE_FILE
    if path.exists():
        return
    try:
        write_text(path, _HEAD + "".join(f"# {entry}\n" for entry in BUILT_IN))
    except StorageError:
        return  # nothing depends on it


def _own_entries(path: Path) -> tuple[list[str], str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return [], f"Your list of unsuitable models, {path}, cannot be read: {reason}."
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line], ""


def _means(entry: str, stem: str, sha256: str) -> bool:
    entry = entry.casefold()
    if _HASH.fullmatch(entry) and sha256.casefold().startswith(entry):
        return True
    return fnmatchcase(stem, Path(entry).stem if entry.endswith((".ckpt", ".safetensors")) else entry)
