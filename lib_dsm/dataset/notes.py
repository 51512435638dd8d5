"""What was noticed about one file on the way, without stopping the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """One sentence about one file."""

    path: Path
    text: str
