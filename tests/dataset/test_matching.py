import re

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


@given(st.from_regex("[ab*?]{0,4}[ab][ab*?]{0,4}", fullmatch=True), st.text("ab", max_size=9))
def test_the_first_star_gets_the_most(pattern: str, tag: str) -> None:
    expression = re.escape(pattern).replace(r"\*", "(.*)").replace(r"\?", "(.)")
    found = re.fullmatch(expression, tag)
    meant = TagPattern(pattern)
    assert meant.matches(tag) is (found is not None)
    assert meant.parts(tag) == (None if found is None else found.groups())
    stars = re.fullmatch(expression.replace("(.)", "."), tag.upper(), re.IGNORECASE)
    assert meant.wild_texts(tag.upper()) == (list(stars.groups()) if stars else [])


def test_many_stars_take_no_longer_than_one() -> None:
    """With an expression that tries every place for every star, this would not end."""
    stars = 30
    meant = TagPattern("*a" * stars + "*b*")
    assert not meant.matches("a" * 500)
    tag = "a" * stars + "b" + "a" * 500
    assert meant.matches(tag) and meant.parts(tag) == ("",) * (stars + 1) + ("a" * 500,)
    assert meant.wild_texts(tag) == list(meant.parts(tag) or ())
