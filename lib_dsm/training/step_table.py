"""A CSV file with one row a step (or for some steps), appended to while a run goes on and read by its header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lib_dsm.errors import StorageError
from lib_dsm.files import write_text


class StepTable:
    """Rows whose first column is the step. A kill at any moment costs the last row at most.

    Columns that an older file lacks read as "", so that files of earlier versions stay readable.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self._columns = tuple(columns)

    def append(self, step: int, values: Sequence[object]) -> None:
        """Add a row; the values follow the columns after the step, further columns stay empty.

        Raises:
            StorageError: the disk does not take it.
        """
        try:
            new = not self.path.is_file()
            with self.path.open("a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(self._columns)
                writer.writerow([step, *values, *[""] * (len(self._columns) - 1 - len(values))])
        except OSError as error:
            raise StorageError(
                f"{self.path} could not be written: {error.strerror}.", "Free some space and resume the run."
            ) from error

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each row's step and the cells after it, in the order they were written; damaged rows are left out."""
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
            # A line without its end was cut short, and its last number may be only a part.
            reader = csv.reader(line for line in file if line.endswith("\n") and "\0" not in line)
            header = next(reader, [])
            places = [header.index(name) if name in header else None for name in self._columns]
            for row in reader:
                cells = [row[place] if place is not None else "" for place in places] if len(row) == len(header) else []
                if cells and cells[0].isdecimal():
                    yield int(cells[0]), cells[1:]

    def has_after(self, step: int) -> bool:
        """Whether there are rows after `step`."""
        return any(at > step for at, _ in self.rows())

    def keep_until(self, step: int, rest: Path | None = None) -> None:
        """Take the rows after `step` away, into the new file `rest` if given; a file with no columns gets them.

        Raises:
            StorageError: the disk does not take it; all rows are where they were.
        """
        rows = list(self.rows())
        if rest is not None:
            write_text(rest, self._text(row for row in rows if row[0] > step))
        write_text(self.path, self._text(row for row in rows if row[0] <= step))

    def _text(self, rows: Iterable[tuple[int, list[str]]]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self._columns)
        writer.writerows([at, *cells] for at, cells in rows)
        return text.getvalue()
