"""How results of many files are told, as text and as data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.cli.main import FAILED, Result

if TYPE_CHECKING:
    from lib_dsm.cropping.write import CropReport
    from lib_dsm.dataset.notes import Note
    from lib_dsm.tagging.writing import TagReport


def batch_result(report: CropReport | TagReport, written: str, skipped: str, **more: Any) -> Result:
    """What was done to many pictures; failed only if nothing came of it."""
    lines = lines_of([*report.failed, *pairs(report.notes)])
    lines.append(f"{len(report.written)} {written}, {len(report.skipped)} {skipped}, {len(report.failed)} failed.")
    return Result(
        {
            "written": names_of(report.written),
            "skipped": names_of(report.skipped),
            "failed": data_of(report.failed),
            "notes": data_of(pairs(report.notes)),
            **more,
        },
        "\n".join(lines),
        FAILED if report.failed and not report.written and not report.skipped else 0,
    )


def pairs(notes: Iterable[Note]) -> list[tuple[Path, str]]:
    return [(note.path, note.text) for note in notes]


def lines_of(told: Iterable[tuple[Path, str]]) -> list[str]:
    """Each sentence with its file's path, which most sentences name themselves."""
    return [text if str(path) in text else f"{path}: {text}" for path, text in told]


def data_of(told: Iterable[tuple[Path, str]]) -> list[dict[str, str]]:
    return [{"path": str(path), "text": text} for path, text in told]


def names_of(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]
