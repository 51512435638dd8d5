from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.dataset.matching import TagPattern, tag_key
from lib_dsm.pruning.edits import add, dedupe, remove, replace

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
    result = replace(tags, TagPattern(old), new)
    if tag_key(old) not in keys(tags):
        assert result == tags
    else:
        rest = {tag_key(old), tag_key(new)}
        assert [tag for tag in result if tag_key(tag) not in rest] == [t for t in tags if tag_key(t) not in rest]
        assert keys(result).count(tag_key(new)) == 1
        assert tag_key(old) == tag_key(new) or tag_key(old) not in keys(result)


def test_replacing_several_by_one_keeps_the_first_place() -> None:
    assert replace(["a", "nude", "b", "nipples"], TagPattern("n*"), "nsfw") == ["a", "nsfw", "b"]
    assert replace(["nsfw", "a", "nude"], TagPattern("nude"), "nsfw") == ["nsfw", "a"]


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
