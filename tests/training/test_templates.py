import pytest

from lib_dsm.errors import InputError
from lib_dsm.training.captions import FILEWORDS, NAME
from lib_dsm.training.config import TEMPLATE_SOURCES, RunConfig
from lib_dsm.training.templates import template_lines, with_template


def config(**changes):
    return RunConfig("zorgle", "model", "folder", **changes)


@pytest.mark.parametrize("source", [source for source in TEMPLATE_SOURCES if source not in ("lines", "file")])
def test_every_line_of_the_sets_has_what_it_needs(source):
    lines = template_lines(source)
    assert len(lines) == len(set(lines)) >= 8
    for line in lines:
        assert line.count(NAME) == 1 and line.count(FILEWORDS) == source.endswith("filewords")
    assert with_template(config(template_source=source)) == config(template=lines)


def test_lines_of_the_settings_stay_as_they_are():
    mine = config(template=("a [name]", " b"))
    assert with_template(mine) is mine


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("\ufeffa [name]\r\n\r\n  é [name], [filewords]\n", encoding="utf-8")
    read = with_template(config(template_source="file", template_file=str(path)))
    assert read == config(template=("a [name]", "é [name], [filewords]"))
    path.unlink()
    assert with_template(read) == read


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "picture.txt").write_bytes(b"\xff\xd8\xff\xe0")
    for file in (str(tmp_path / "none.txt"), str(tmp_path), str(tmp_path / "picture.txt")):
        with pytest.raises(InputError, match=file):
            with_template(config(template_source="file", template_file=file))
    with pytest.raises(InputError, match="not named"):
        with_template(config(template_source="file"))
