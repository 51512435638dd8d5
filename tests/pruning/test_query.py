from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(TREES, st.sets(st.sampled_from(["a", "b", "c"])))
def test_a_query_means_what_it_says(tree: str | tuple, tags: set[str]) -> None:  # type: ignore[type-arg]
    assert parse(written(tree))(sorted(tags)) == holds(tree, tags)
