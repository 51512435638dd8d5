import os

import pytest

from lib_dsm.errors import StorageError
from lib_dsm.training.step_table import StepTable


def table(folder, columns=("step", "text", "number")) -> StepTable:
    return StepTable(folder / "table.csv", columns)


def test_rows_come_back_as_they_were_written(tmp_path):
    made = table(tmp_path)
    assert list(made.rows()) == []
    made.append(1, ['a "quoted", text\nof two lines', 0.5])
    made.append(2, ["b"])
    assert list(table(tmp_path).rows()) == [(1, ['a "quoted", text\nof two lines', "0.5"]), (2, ["b", ""])]
    made.keep_until(1)
    made.append(2, ["c", 1])
    assert [cells[0][0] for _, cells in made.rows()] == ["a", "c"]


def test_a_kill_at_any_byte_costs_the_last_row_at_most(tmp_path):
    made = table(tmp_path)
    for step in (1, 2, 3):
        made.append(step, [f"text {step}", step / 3])
    whole = list(made.rows())
    content = made.path.read_bytes()
    begin = content.rindex(b"3,text 3")
    for size in range(begin, len(content)):
        made.path.write_bytes(content[:size])
        assert list(made.rows()) == whole[:2]
        made.keep_until(9)  # as a resumed run does
        made.append(3, ["text 3", 1.0])
        assert list(made.rows()) == whole


def test_a_file_of_an_earlier_version_is_read_by_its_header_and_gets_the_new_one(tmp_path):
    (tmp_path / "table.csv").write_text("step,number\n1,0.5\n2,0.25\n")
    made = table(tmp_path)
    assert list(made.rows()) == [(1, ["", "0.5"]), (2, ["", "0.25"])]
    made.keep_until(2)
    made.append(3, ["x", 1.0])
    assert list(made.rows()) == [(1, ["", "0.5"]), (2, ["", "0.25"]), (3, ["x", "1.0"])]


def test_damaged_rows_are_left_out(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"step,text,number\n1,a,1\n\0\0\0\nx,b,2\n3,c\n4,d\xff,4\n")
    assert [step for step, _ in table(tmp_path).rows()] == [1, 4]


@pytest.mark.skipif(os.name == "nt", reason="/dev/full is of Linux")
def test_a_full_disk_is_a_sentence(tmp_path):
    (tmp_path / "table.csv").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left"):
        StepTable(tmp_path / "table.csv", ("step",)).append(1, [])
