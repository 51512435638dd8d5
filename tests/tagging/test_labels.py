import json
from pathlib import Path

import pytest

from lib_dsm.errors import ModelError
from lib_dsm.tagging.labels import read_labels


@pytest.mark.parametrize(
    "content", ["", "tag_id,name,category,count\n", "tag_id,name\n1,a\n", "name,category\na,x\n", "name,category\n,0\n"]
)
def test_bad_lists_of_tags(tmp_path: Path, content: str) -> None:
    (tmp_path / "selected_tags.csv").write_text(content)
    with pytest.raises(ModelError, match=r"selected_tags\.csv"):
        read_labels(tmp_path / "selected_tags.csv")


def test_labels_by_category_not_by_position(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('tag_id,name,category,count\n1,c,4,1\n2,"a,b",0,1\n3,x,3,1\n4,r,9,1\n', "utf-8")
    labels = read_labels(tmp_path / "t.csv")
    assert labels.names == ("c", "a,b", "x", "r") and labels.kinds == ("character", "general", "copyright", "rating")
    assert (labels.character.tolist(), labels.general.tolist(), labels.rating.tolist()) == ([0], [1], [3])
    with pytest.raises(ModelError):
        read_labels(tmp_path / "none.csv")


ROWS = {"1": {"tag": "b", "category": "Character"}, "0": {"tag": "a", "category": "General"}}
BY_INDEX = {"idx_to_tag": {"1": "b", "0": "a"}, "tag_to_category": {"a": "general", "b": "character"}}
BY_TAG = {"tag_to_idx": {"b": 1, "a": 0}, "tag_to_category": {"a": "general", "b": "character"}}


@pytest.mark.parametrize("content", [ROWS, BY_INDEX, BY_TAG, {"dataset_info": {"tag_mapping": BY_INDEX}}])
def test_lists_as_json(tmp_path: Path, content: object) -> None:
    path = tmp_path / "tags.json"
    path.write_text(json.dumps(content), "utf-8")
    labels = read_labels(path)
    assert labels.names == ("a", "b") and labels.kinds == ("general", "character")


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"0": {"tag": "a"}}', '{"idx_to_tag": {"1": "a"}}'])
def test_bad_lists_as_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "tags.json").write_text(text, "utf-8")
    with pytest.raises(ModelError, match=r"tags\.json"):
        read_labels(tmp_path / "tags.json")


def test_lists_a_tag_a_line(tmp_path: Path) -> None:
    (tmp_path / "tags.txt").write_text("1girl\n\nmiku\r\nrating:safe\n", "utf-8")
    (tmp_path / "tags-character.txt").write_text("miku\n", "utf-8")
    labels = read_labels(tmp_path / "tags.txt")
    assert labels.names == ("1girl", "miku", "rating:safe") and labels.kinds == ("general", "character", "rating")
