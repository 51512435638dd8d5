from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.dataset.matching import Replacement, TagPattern, tag_key
from lib_dsm.pruning.edits import (
    add,
    add_at,
    add_beside,
    add_general,
    dedupe,
    keep_general,
    keep_specific,
    merge,
    order,
    remove,
    replace,
)
from lib_dsm.pruning.tables import load_tables

TAG = st.sampled_from(["hat", "Hat", "blue hair", "Blue_Hair", r"a \(b\)", "a (b)", "^_^", "solo"])
TAGS = st.lists(TAG, max_size=8)


def keys(tags: list[str]) -> list[str]:
    return [tag_key(tag) for tag in tags]


@given(TAGS, TAG)
def test_remove_takes_every_spelling_and_nothing_else(tags: list[str], unwanted: str) -> None:
    assert remove(tags, [TagPattern(unwanted)]) == [tag for tag in tags if tag_key(tag) != tag_key(unwanted)]


def test_remove_by_pattern() -> None:
    tags = ["long hair", "chair", r"hat \(x\)", "hair"]
    assert remove(tags, [TagPattern("* hair"), TagPattern("hat (*)")]) == ["chair", "hair"]
    assert remove(tags, [TagPattern("*")]) == []


@given(TAGS, TAG, st.sampled_from(["nsfw", "solo", "Hat"]))
def test_replace(tags: list[str], old: str, new: str) -> None:
    result = replace(tags, Replacement([TagPattern(old)], new))
    if tag_key(old) not in keys(tags):
        assert result == tags
    else:
        rest = {tag_key(old), tag_key(new)}
        assert [tag for tag in result if tag_key(tag) not in rest] == [t for t in tags if tag_key(t) not in rest]
        assert keys(result).count(tag_key(new)) == 1
        assert tag_key(old) == tag_key(new) or tag_key(old) not in keys(result)


def test_replacing_several_by_one_keeps_the_first_place() -> None:
    assert replace(["a", "nude", "b", "nipples"], Replacement.parse("n*=nsfw")) == ["a", "nsfw", "b"]
    assert replace(["nsfw", "a", "nude"], Replacement.parse("nude=nsfw")) == ["nsfw", "a"]


def test_replacing_by_what_the_wildcards_stood_for() -> None:
    assert replace(["Dark Blue_hair", "hat"], Replacement.parse("*_hair=* locks")) == ["Dark Blue locks", "hat"]
    assert replace(["a x b", "c x d"], Replacement.parse("* x *=*-*")) == ["a-b", "c-d"]
    assert replace(["a x"], Replacement.parse("* x=* and *")) == ["* and *"]  # not as many: written as it is
    assert replace(["nude", "a", "nipples"], Replacement.parse("nude|nipples=nsfw")) == ["nsfw", "a"]


def test_add_at_a_place_and_beside() -> None:
    assert add_at(["a", "b"], ["x", "A"], 1) == ["a", "x", "b"]
    assert add_beside(["a", "b"], ["x", "y"], TagPattern("b"), after=False) == ["a", "x", "y", "b"]
    assert add_beside(["a", "b"], ["x"], TagPattern("a"), after=True) == ["a", "x", "b"]
    assert add_beside(["a", "b"], ["x"], TagPattern("c"), after=True) == ["a", "b", "x"]
    assert add_beside(["a", "b"], ["x"], TagPattern("c"), after=False) == ["a", "b", "x"]
    assert add_beside([], ["x"], TagPattern("c"), after=False) == ["x"]


@given(TAGS, st.integers(0, 3))
def test_order_keeps_everything_and_leaves_the_first(tags: list[str], leave: int) -> None:
    result = order(tags, tag_key, leave)
    assert sorted(result) == sorted(tags) and result[:leave] == tags[:leave]
    assert keys(result[leave:]) == sorted(keys(result[leave:]))


@given(TAGS)
def test_merge_leaves_nothing_that_has_a_preferred_tag(tags: list[str]) -> None:
    preferred = {"hat": "cap", "blue hair": "Blue Locks"}
    result = merge(tags, preferred)
    assert not {"hat", "blue hair"} & set(keys(result))
    others = [tag for tag in tags if tag_key(tag) not in preferred]
    assert [tag for tag in result if tag not in preferred.values()] == others
    assert set(keys(result)) == {tag_key(preferred.get(key, key)) for key in keys(tags)}
    assert result == list(tags) or len(result) <= len(tags)


def test_implied_tags_in_three_ways() -> None:
    implied = load_tables().implied
    tags = ["solo", "long hair", "absurdly long hair", "cat ears", "white_dress", "smile"]
    assert keep_specific(tags, implied) == ["solo", "absurdly long hair", "cat ears", "white_dress", "smile"]
    assert keep_general(tags, implied, str.upper) == ["solo", "long hair", "ANIMAL EARS", "DRESS", "smile"]
    assert add_general(["cat ears", "long hair"], implied, str) == ["cat ears", "animal ears", "long hair"]
    assert keep_specific([], implied) == [] and keep_general(["a"], implied, str) == ["a"]


@given(TAGS, TAGS, st.booleans())
def test_add_puts_only_what_is_missing(tags: list[str], new: list[str], first: bool) -> None:
    result = add(tags, new, first)
    added = result[: len(result) - len(tags)] if first else result[len(tags) :]
    assert (result[len(added) :] if first else result[: len(tags)]) == tags
    assert set(keys(added)) == set(keys(new)) - set(keys(tags)) and len(set(keys(added))) == len(added)


@given(TAGS)
def test_dedupe_keeps_the_first_of_each(tags: list[str]) -> None:
    result = dedupe(tags)
    assert keys(result) == list(dict.fromkeys(keys(tags)))
    assert all(tag == next(t for t in tags if tag_key(t) == tag_key(tag)) for tag in result)
    assert dedupe(result) == result
    assert dedupe(["solo", "solo", "hat", "Solo"]) == ["solo", "hat"]
