import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.dataset.matching import Replacement, TagPattern, literal, tag_key
from lib_dsm.errors import InputError


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
    if found is not None:
        spans = [(wild, *found.span(group)) for group, wild in enumerate(re.findall("[*?]", pattern), 1)]
        assert meant.wilds(tag) == spans


def test_many_stars_take_no_longer_than_one() -> None:
    """With an expression that tries every place for every star, this would not end."""
    stars = 30
    meant = TagPattern("*a" * stars + "*b*")
    assert not meant.matches("a" * 500)
    tag = "a" * stars + "b" + "a" * 500
    assert meant.matches(tag)
    assert [tag[first:end] for _, first, end in meant.wilds(tag)] == [""] * (stars + 1) + ["a" * 500]


@pytest.mark.parametrize(
    ("text", "tag", "written"),
    [
        ("hat=cap", "Hat", "cap"),
        ("hat=>cap", "hat", "cap"),
        ("=_= => asleep", "=_=", "asleep"),
        (r"\=_\==asleep", "=_=", "asleep"),
        (">_<=>_>", ">_<", ">_>"),
        ("hat=>_<", "hat", ">_<"),
        ("hat", None, None),
        ("=hat", None, None),
        ("hat=", "hat", ""),
        ("hat|cap=beret", "cap", "beret"),
        ("|_|=face", "|_|", "face"),
        ("foo *=x *", "Foo_Bar", "x Bar"),
        ("foo *=x *", "Foo_Bar_Baz", "x Bar_Baz"),
        ("foo *=x *", r"(foo Bar \(baz\):1.2)", r"x Bar \(baz\)"),
        ("foo *=x *", "bar", None),
        ("a?b=c?d", "aXb", "cXd"),
        ("?girl*=* ?", "1Girl Up", " Up 1"),
        ("* x *=*", "a x b", "a"),
        ("* x=* and *", "a x", "* and *"),
        (r"* x=\* *", "a x", "* a"),
        ("hat=*_*", "hat", "*_*"),
        ("*_*=*x*", "*_*", "*x*"),
        ("*straße=*", "Große_STRASSE", "Große_"),
    ],
)
def test_replacements(text: str, tag: str | None, written: str | None) -> None:
    if tag is None:
        with pytest.raises(InputError, match="OLD=NEW"):
            Replacement.parse(text)
    else:
        assert Replacement.parse(text).written(tag) == written


@given(st.text(min_size=1).filter(str.strip))
def test_a_star_is_the_whole_tag(tag: str) -> None:
    assert tag_key(Replacement.parse("*=*").written(tag) or "") == tag_key(tag)
