from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.dataset.captions import caption_path, join_tags, read_caption, shared_captions, split_tags
from lib_dsm.errors import InputError

TAGS = st.lists(
    st.text(st.characters(exclude_characters=",\r\n", exclude_categories=("Cs",))).map(str.strip).filter(bool)
)
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\\("))
ODD = st.text(alphabet="ab ,\\()[]:1.\n", max_size=24)


@given(TAGS)
def test_tags_survive_the_round_trip(tags: list[str]) -> None:
    assert split_tags(join_tags(tags)) == tags


@given(TEXTS)
def test_splitting_loses_nothing_but_what_separates(text: str) -> None:
    tags = split_tags(text)
    assert all(tag == tag.strip() and tag for tag in tags)
    assert "".join("".join(tags).split()) == "".join(text.replace(",", " ").split())
    assert split_tags(join_tags(tags)) == tags


@given(ODD)
def test_splitting_is_steady_with_escapes_and_weights(text: str) -> None:
    tags = split_tags(text)
    assert split_tags(join_tags(tags)) == tags and split_tags(join_tags(tags, ",")) == tags


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (r"oh\, my, x", [r"oh\, my", "x"]),
        (r"a\\, b", [r"a\\", "b"]),
        ("(a, b:1.2), c", ["(a, b:1.2)", "c"]),
        (r"(a \(b\), c:.5) , d", [r"(a \(b\), c:.5)", "d"]),
        (":(, x, :)", [":(", "x", ":)"]),
        ("(a, b), c", ["(a", "b)", "c"]),
        ("(a, b:1.2)c, d", ["(a", "b:1.2)c", "d"]),
    ],
)
def test_escaped_commas_and_weighted_groups(text: str, tags: list[str]) -> None:
    assert split_tags(text) == tags and split_tags(join_tags(tags)) == tags


@pytest.mark.parametrize(
    ("raw", "after"),
    [(b"a,b", b"x,y"), (b"a\nb\n", b"x\ny\n"), (b"a, b,c", b"x, y"), (b"a", b"x, y"), (b"a\n", b"x, y\n")],
)
def test_the_way_of_separating_stays(tmp_path: Path, raw: bytes, after: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    assert read_caption(tmp_path / "a.png").bytes_with(["x", "y"]) == after


def test_a_caption_file_of_the_other_ending(tmp_path: Path) -> None:
    (tmp_path / "a.caption").write_text("1girl")
    assert caption_path(tmp_path / "a.png").name == "a.caption" and read_caption(tmp_path / "a.png").tags == ["1girl"]
    (tmp_path / "a.txt").write_text("hat")
    assert read_caption(tmp_path / "a.png").tags == ["hat"]


def test_inner_text_is_kept() -> None:
    assert split_tags(" 1girl,Blue  Hair ,, a \\(b\\)\r\nsolo,solo,") == [
        "1girl", "Blue  Hair", "a \\(b\\)", "solo", "solo",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("a.jpg", "a.txt"),
        ("a.b.c.PNG", "a.b.c.txt"),
        ('it\'s "q".webp', 'it\'s "q".txt'),
        ("日本 語 🦊.png", "日本 語 🦊.txt"),
        ("name.txt.png", "name.txt.txt"),
    ],
)
def test_where_a_caption_lies(tmp_path: Path, name: str, caption: str) -> None:
    assert caption_path(tmp_path / name) == tmp_path / caption
    (tmp_path / caption).write_text("1girl", encoding="utf-8")
    assert read_caption(tmp_path / name).tags == ["1girl"]


@pytest.mark.parametrize(
    ("raw", "text", "encoding", "guessed"),
    [
        ("猫, cat".encode(), "猫, cat", "utf-8", False),
        ("猫, cat".encode("utf-8-sig"), "猫, cat", "utf-8-sig", False),
        ("猫, cat".encode("utf-16"), "猫, cat", "utf-16", False),
        (b"\xfe\xff" + "猫, cat".encode("utf-16-be"), "猫, cat", "utf-16", False),
        ("猫耳, 青い髪".encode("cp932"), "猫耳, 青い髪", "cp932", True),
        ("café, cat".encode("cp1252"), "café, cat", "cp1252", True),
        (b"", "", "utf-8", False),
    ],
)
def test_encodings(tmp_path: Path, raw: bytes, text: str, encoding: str, guessed: bool) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    caption = read_caption(tmp_path / "a.png")
    assert (caption.text, caption.encoding, bool(caption.note), caption.raw) == (text, encoding, guessed, raw)


@pytest.mark.parametrize("raw", [b"\xff\xfea", b"\x89PNG\0\0"])
def test_what_is_no_text_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.txt is not text"):
        read_caption(tmp_path / "a.png")


def test_a_picture_whose_name_is_as_long_as_can_be_has_a_caption(tmp_path: Path) -> None:
    """As saved by programs that make names of tags: with `.caption` the name would be too long for the disk."""
    picture = tmp_path / ("a" * 251 + ".png")
    picture.touch()
    assert caption_path(picture) == picture.with_suffix(".txt")
    assert not read_caption(picture).exists
    picture.with_suffix(".txt").write_text("hat")
    assert read_caption(picture).tags == ["hat"]


def test_missing_caption(tmp_path: Path) -> None:
    caption = read_caption(tmp_path / "a.png")
    assert (caption.exists, caption.tags, caption.digest) == (False, [], "")
    assert caption.bytes_with(["a"]) == b"a"


@pytest.mark.parametrize(("raw", "after"), [(b"a, b\n", b"x\n"), (b"a, b\r\n\r\n", b"x\r\n"), (b"a\nb", b"x")])
def test_a_line_end_at_the_end_stays(tmp_path: Path, raw: bytes, after: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(raw)
    assert read_caption(tmp_path / "a.png").bytes_with(["x"]) == after


def test_shared_captions_are_reported() -> None:
    notes = shared_captions([Path("a.jpg"), Path("a.png"), Path("b.png"), Path("sub/a.png")])
    assert [note.path for note in notes] == [Path("a.png")] and "a.jpg" in notes[0].text
