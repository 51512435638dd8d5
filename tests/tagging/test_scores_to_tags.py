from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.dataset.captions import join_tags, split_tags
from lib_dsm.errors import ModelError
from lib_dsm.tagging.labels import Labels, read_labels
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.tags import KAOMOJI, caption_tags, mcut, merge, rating, select, spell

NAMES = ("general", "explicit", "blue_hair", "hat_(felt)", "^_^", "chair", "miku", "rin")
LABELS = Labels(NAMES, np.array([2, 3, 4, 5]), np.array([6, 7]), np.array([0, 1]))
SCORES = np.array([0.3, 0.6, 0.5, 0.9, 0.35, 0.34, 0.84, 0.85], np.float32)


def tags(**how: object) -> list[str]:
    options = TagOptions(**how)  # type: ignore[arg-type]
    return caption_tags(list(select(SCORES, LABELS, options)), LABELS, options)


def test_thresholds_by_category_spelling_and_order() -> None:
    assert tags() == [r"hat \(felt\)", "rin", "blue hair", "^_^"]
    assert tags(escape=False, keep_underscores=True) == ["hat_(felt)", "rin", "blue_hair", "^_^"]
    assert tags(sort="alphabetical") == ["^_^", "blue hair", r"hat \(felt\)", "rin"]
    assert tags(sort="model") == ["blue hair", r"hat \(felt\)", "^_^", "rin"]
    assert tags(threshold=0.51, character_threshold=0.5) == [r"hat \(felt\)", "rin", "miku"]
    assert rating(SCORES, LABELS) == "explicit"


@pytest.mark.parametrize("spelling", ["hat (felt)", "hat_(felt)", r"hat \(felt\)", "HAT_*", "hat *"])
def test_lists_match_any_spelling(spelling: str) -> None:
    assert r"hat \(felt\)" not in tags(exclude=(spelling,))
    assert tags(only=(spelling,)) == [r"hat \(felt\)"]


def test_exclude_goes_by_whole_tags() -> None:
    assert "chair" in tags(threshold=0.1, exclude=("hair",))


def test_first_moves_known_tags_and_adds_trigger_words() -> None:
    assert tags(first=("My_Char", "blue_hair", "chair"), only=("*hair", "rin")) == ["My_Char", "blue hair", "rin"]


def test_mcut() -> None:
    assert mcut(np.array([0.9, 0.1, 0.8, 0.2], np.float32)) == pytest.approx(0.5)
    assert mcut(np.array([], np.float32)) == 0.0
    assert tags(mcut=True) == [r"hat \(felt\)", "rin"]
    low = SCORES.copy()
    low[6:] = 0.1, 0.02
    assert "miku" not in select(low, LABELS, TagOptions(mcut=True))


def test_faces_keep_their_mouth() -> None:
    assert {spell(face, TagOptions(escape=False)) for face in KAOMOJI} == KAOMOJI
    assert spell("(o)_(o)", TagOptions()) == r"\(o\)_\(o\)"
    assert spell("a\\b", TagOptions()) == "a\\\\b"


@given(st.lists(st.sampled_from(NAMES), unique=True), st.lists(st.sampled_from(NAMES), unique=True))
def test_merging_loses_nothing_and_doubles_nothing(old: list[str], new: list[str]) -> None:
    existing = [spell(name, TagOptions()) for name in old]
    for how in ("append", "prepend"):
        merged = merge(existing, new, how)
        assert [tag for tag in merged if tag in existing] == existing
        assert len(merged) == len(set(old) | set(new))
        assert split_tags(join_tags(merged)) == merged
    assert merge(existing, new, "replace") == new


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
    assert labels.names == ("c", "a,b", "x", "r")
    assert (labels.character.tolist(), labels.general.tolist(), labels.rating.tolist()) == ([0], [1], [3])
    with pytest.raises(ModelError):
        read_labels(tmp_path / "none.csv")
