from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import InputError
from lib_dsm.pruning.query import QueryError, parse

CAPTION = ["1girl", "blue hair", "long hair", r"ganyu \(genshin impact\)", "hat", "-_-", "black and white"]


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("", True),
        ("  ", True),
        ("hat", True),
        ("Blue_Hair", True),
        ("blue   hair", True),
        ("hair", False),
        ("* hair", True),
        ("hat AND 1boy", False),
        ("hat OR 1boy", True),
        ("1boy OR hat AND smile", False),
        ("(1boy OR hat) AND 1girl", True),
        ("hat, 1girl", True),
        ("hat -1boy", True),
        ("hat -1girl", False),
        ("-1boy", True),
        ("NOT 1boy AND NOT 2boys", True),
        ("NOT (1boy OR hat)", False),
        ("--hat", True),
        (r"ganyu \(genshin impact\)", True),
        ('"ganyu (genshin impact)"', True),
        ('"* hair"', False),
        ('"-_-"', True),
        ("black and white", True),
        ('"blue hair" AND "hat"', True),
        ("blue-hair", False),
        ("*", True),
        ("a\\", False),
        ("tags = 7", True),
        ("tags>7 OR TAGS:7", True),
        ("count(* hair) = 2", True),
        ('count("* hair") >= 1', False),
        (r"count(ganyu \(*\)) = 1", True),
        ("tokens < 75 AND tokens >= 20", True),
        ("is:repeated OR is:empty", False),
        ('"tags=7"', False),
        (r"oh\, my", False),
    ],
)
def test_queries(query: str, meant: bool) -> None:
    assert parse(query)(CAPTION) is meant


def test_every_caption_without_tags() -> None:
    assert parse("NOT *")([]) and not parse("NOT *")(["a"])


@pytest.mark.parametrize(
    ("query", "position", "said"),
    [
        ("hat AND", 7, "tag is missing"),
        ("AND hat", 0, "tag is missing"),
        ("hat AND OR x", 8, "tag is missing"),
        ("(hat", 4, '")" is missing'),
        ("hat) x", 3, 'Unexpected ")"'),
        ("ganyu (genshin)", 6, "AND, OR or a comma"),
        ('"a" "b"', 4, "AND, OR or a comma"),
        ('hat AND "x', 8, "not closed"),
        ("()", 1, "tag is missing"),
        ("hat,", 4, "tag is missing"),
        ("-" * 500 + "a", 100, "Too many"),
        ("hat AND tokens > many", 17, "number is missing"),
        ("tags >", 6, "number is missing"),
        ("count(* hair)", 13, "comparison is missing"),
        ("count() > 1", 6, "tag is missing"),
        ("count(hat > 1", 5, 'a ")" are missing'),
        ("hat, is:blue", 8, "is no state"),
        ("red name:x", 4, "AND, OR or a comma"),
        ("name: ", 6, "file name is missing"),
        ("hat tags > 5", 4, "AND, OR or a comma"),
    ],
)
def test_errors_name_the_place(query: str, position: int, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert caught.value.position == position and said in str(caught.value)


@given(st.text(alphabet='ab "\\(),-*?ANDORT', max_size=20))
def test_any_text_is_understood_or_refused_with_a_place(query: str) -> None:
    try:
        assert parse(query)(["a", "b"]) in (True, False)
    except QueryError as error:
        assert 0 <= error.position <= len(query)


TREES = st.recursive(
    st.sampled_from(["a", "b", "c"]),
    lambda inner: st.one_of(
        st.tuples(st.just("NOT"), inner), st.tuples(inner, st.sampled_from(["AND", "OR", ","]), inner)
    ),
    max_leaves=8,
)


def written(tree: str | tuple) -> str:  # type: ignore[type-arg]
    if isinstance(tree, str):
        return tree
    return "(" + " ".join(part if part in ("AND", "OR", ",", "NOT") else written(part) for part in tree) + ")"


def holds(tree: str | tuple, tags: set[str]) -> bool:  # type: ignore[type-arg]
    if isinstance(tree, str):
        return tree in tags
    if len(tree) == 2:
        return not holds(tree[1], tags)
    left, operator, right = tree
    return holds(left, tags) or holds(right, tags) if operator == "OR" else holds(left, tags) and holds(right, tags)


@given(TREES, st.lists(st.sets(st.sampled_from(["a", "b", "c"])), min_size=1, max_size=5))
def test_a_query_means_the_same_on_a_whole_folder(tree: str | tuple, captions: list[set[str]]) -> None:  # type: ignore[type-arg]
    query = parse(written(tree))
    with tempfile.TemporaryDirectory() as name:
        for number, tags in enumerate(captions):
            (Path(name) / f"{number}.png").touch()
            (Path(name) / f"{number}.txt").write_text(", ".join(sorted(tags)))
        assert query.mask(TagIndex.read(Path(name))).tolist() == [query(sorted(tags)) for tags in captions]


def test_what_only_a_folder_can_tell(tmp_path: Path) -> None:
    from PIL import Image

    captions = {"1": "hat, hat", "2": None, "3": "", "long 4": "blue hair, red hair, " * 20, "5": "ねこ"}
    for number, (name, text) in enumerate(captions.items()):
        Image.new("RGB", (64 + 64 * number, 64)).save(tmp_path / f"{name}.png")
        if text is not None:
            (tmp_path / f"{name}.txt").write_bytes(text.encode("utf-8-sig" if name == "5" else "utf-8"))
    index = TagIndex.read(tmp_path)

    def found(query: str) -> list[str]:
        mask = index.mask(parse(query))
        return [name.split(".")[0] for name, is_meant in zip(index.names, mask, strict=True) if is_meant]

    assert found("is:missing") == ["2"] and found("is:empty") == ["3"] and found("is:foreign") == ["5"]
    assert found("is:repeated") == ["1", "long 4"]
    assert found("width > 128") == ["3", "5", "long 4"] and found("ratio = 1, height = 64") == ["1"]
    assert found("pixels < 10000") == ["1", "2"]
    assert found("tokens > 75") == ["long 4"] and found("count(* hair) >= 40") == ["long 4"]
    assert found('name:"long*"') == found("name:long*") == ["long 4"] and found("NOT name:?.png") == ["long 4"]
    with pytest.raises(InputError, match="more than tags"):
        parse("width > 5")(["a"])


@given(TREES, st.sets(st.sampled_from(["a", "b", "c"])))
def test_a_query_means_what_it_says(tree: str | tuple, tags: set[str]) -> None:  # type: ignore[type-arg]
    assert parse(written(tree))(sorted(tags)) == holds(tree, tags)
