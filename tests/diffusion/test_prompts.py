import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.diffusion.prompts import SpecialTokens, Word, chunk_prompt, parse_emphasis

SPECIAL = SpecialTokens(start=1, end=2, padding=2, comma=3)


def spans(prompt):
    return [(span.text, round(span.weight, 6)) for span in parse_emphasis(prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [("", 1)]),
        ("plain", [("plain", 1)]),
        ("a (b) c", [("a ", 1), ("b", 1.1), (" c", 1)]),
        ("[b]", [("b", 0.909091)]),
        ("((b))", [("b", 1.21)]),
        ("(b:1.5)", [("b", 1.5)]),
        ("(b: -0.5 )", [("b", -0.5)]),
        ("((b:1.5) c)", [("b", 1.65), (" c", 1.1)]),
        (r"\(b\) \[c\] \\", [(r"(b) [c] " + "\\", 1)]),
        ("(open", [("open", 1.1)]),
        ("close) b:c", [("close) b:c", 1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(b:1.2.3)", [("b:1.2.3", 1.1)]),
        ("a BREAK b", [("a", 1), (None, 1), ("b", 1)]),
        ("(a)(b)", [("ab", 1.1)]),
    ],
)
def test_emphasis(prompt, expected):
    assert spans(prompt) == expected


@given(st.text(alphabet="ab ,()[]:\\1.5BREAK", max_size=60))
def test_any_text_is_parsed_into_weighted_pieces(prompt):
    parsed = parse_emphasis(prompt)
    assert parsed
    assert all(isinstance(span.weight, float) for span in parsed)


def numbers(text: str) -> list[int]:
    """A tokenizer for tests: "x" is 3 (the comma), every other character its code."""
    return [3 if character == "," else ord(character) for character in text if character != " "]


@given(st.text(alphabet="abcdef,", max_size=300))
def test_chunks_are_full_and_lose_no_token(prompt):
    chunks = chunk_prompt(prompt, numbers, SPECIAL)
    assert all(len(chunk.tokens) == len(chunk.weights) == 77 for chunk in chunks)
    assert all(chunk.tokens[0] == 1 and chunk.tokens[-1] == 2 for chunk in chunks)
    assert [token for chunk in chunks for token in chunk.tokens if token not in (1, 2)] == numbers(prompt)


def test_a_chunk_is_cut_after_a_comma_that_is_near():
    near = "a" * 60 + "," + "b" * 30
    assert chunk_prompt(near, numbers, SPECIAL)[0].tokens.count(ord("b")) == 0
    far = "a" * 50 + "," + "b" * 40
    assert chunk_prompt(far, numbers, SPECIAL)[0].tokens.count(ord("b")) == 24


def test_break_begins_a_new_chunk():
    chunks = chunk_prompt("a BREAK b", numbers, SPECIAL)
    assert [chunk.tokens[1] for chunk in chunks] == [ord("a"), ord("b")]


@given(st.integers(0, 90), st.integers(1, 75), st.text(alphabet="ab,", max_size=90))
def test_an_embedding_is_never_split(before, vectors, after):
    word = Word("z", (ord("z"),), vectors)
    chunks = chunk_prompt("a" * before + "z" + after, numbers, SPECIAL, [word])
    placed = [(chunk, place) for chunk in chunks for place in chunk.placed]
    assert len(placed) == 1
    chunk, place = placed[0]
    assert place.offset >= 1 and place.offset + vectors <= 76
    assert chunk.tokens[place.offset : place.offset + vectors] == (0,) * vectors
    assert [t for c in chunks for t in c.tokens if t == ord("a") or t == 3 or t == ord("b")] == numbers(
        "a" * before + after
    )


def test_the_longer_name_wins():
    words = [Word("z", (ord("z"),), 2), Word("zy", (ord("z"), ord("y")), 3)]
    chunk = chunk_prompt("zy", numbers, SPECIAL, words)[0]
    assert [place.name for place in chunk.placed] == ["zy"]


def test_the_weight_of_an_embedding_covers_all_its_vectors():
    chunk = chunk_prompt("(z:1.3)a", numbers, SPECIAL, [Word("z", (ord("z"),), 3)])[0]
    assert chunk.weights[1:5] == (1.3, 1.3, 1.3, 1.0)
