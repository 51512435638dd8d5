import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.dataset.matching import TagPattern, literal, tag_key


@pytest.mark.parametrize(
    ("pattern", "tag", "meant"),
    [
        ("blue hair", "Blue_Hair", True),
        ("ganyu (genshin)", r"ganyu \(genshin\)", True),
        (r"ganyu \(genshin\)", "ganyu_(genshin)", True),
        ("* hair", "very long hair", True),
        ("* hair", "hair", False),
        ("*hair", "chair", True),
        ("?girl", "1girl", True),
        ("?girl", "12girl", False),
        ("hat", "hat ribbon", False),
        (r"\*", "*", True),
        (r"a\*b", "acb", False),
        ("*", "anything", True),
        ("*_*", "blue hair", False),
        ("*_*", "*_*", True),
        ("?", "a", False),
        ("[ab]", "a", False),
    ],
)
def test_patterns(pattern: str, tag: str, meant: bool) -> None:
    assert TagPattern(pattern).matches(tag) is meant


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\\")).filter(str.strip))
def test_a_literal_means_its_tag_and_a_key_is_stable(tag: str) -> None:
    assert TagPattern(literal(tag)).matches(tag)
    assert tag_key(tag_key(tag)) == tag_key(tag)
    assert not TagPattern(literal(tag)).matches(tag + "x")
