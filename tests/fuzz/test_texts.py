"""Captions and other texts of any bytes: what is read says the same again, or is refused in a sentence."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from lib_dsm.cropping.colors import parse_color
from lib_dsm.dataset.captions import join_tags, read_caption_file, split_tags
from lib_dsm.dataset.matching import tag_key
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.dataset.token_count import token_count
from lib_dsm.guards.unsuitable import UNSUITABLE_FILE, unsuitable_entry
from lib_dsm.pruning.query import parse
from lib_dsm.pruning.tables import IMPLICATIONS_FILE, KINDS_FILE, SYNONYMS_FILE, load_tables
from lib_dsm.pruning.tag_list import LISTS, load_tag_list
from lib_dsm.tagging.labels import read_labels
from lib_dsm.tagging.naming import demand_pattern
from lib_dsm.training.schedule import parse_learning_rate
from lib_dsm.training.templates import template_lines
from tests.fuzz.mangled import examples, odd_text, refused_or_fine, spoiled

CAPTIONS = [
    "1girl, blue eyes, (long hair:1.2), smile \\(happy\\), a\\, b\r\n".encode(encoding)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be")
] + ["女の子, 青い目\n笑顔".encode("cp932"), "fiancée, naïve".encode("cp1252"), b"\xff\xfe\0", b"\xef\xbb\xbf", b"\0"]
ANY = st.one_of(st.binary(max_size=120), spoiled(CAPTIONS))


@examples(400)
@example(b"\t\xef\xbb\xbf")  # the first tag is what would be a mark at the beginning of a file
@example(b"\t\xef\xbb\xbf\x80")
@example(b"(\r:0)")  # two tags that together would be a group with a weight
@example(b"(\n:0), a")
@example(b"(\\)\n:0), a")
@given(ANY)
def test_a_caption_of_any_bytes(place, content):
    path = place / "caption.txt"
    path.write_bytes(content)
    caption = refused_or_fine(lambda: read_caption_file(path))
    if caption is None:
        return
    tags = caption.tags
    assert split_tags(join_tags(tags)) == tags
    path.write_bytes(caption.bytes_with(tags))
    assert read_caption_file(path).tags == tags
    assert token_count(caption.text) >= 0
    for tag in tags:
        tag_key(tag)


@examples(60)
@given(st.lists(ANY, min_size=1, max_size=4))
def test_a_folder_of_such_captions_is_indexed(place, contents):
    folder = place / "set"
    folder.mkdir(exist_ok=True)
    for number in range(4):
        (folder / f"{number}.png").touch()
        (folder / f"{number}.txt").unlink(missing_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number}.txt").write_bytes(content)
    index = TagIndex.read(folder, False)
    assert len(index) == 4
    assert len(index.problems) + int(index.usable.sum()) >= 4


def words(*parts: str) -> st.SearchStrategy[str]:
    """Texts put together from the words of a language, and anything else."""
    return st.one_of(odd_text(), st.lists(st.one_of(st.sampled_from(parts), odd_text(4)), max_size=12).map("".join))


@examples(300)
@given(
    words("(", ")", " AND ", " OR ", " NOT ", '"', "tag", "*", "tags>", "width", "3", "[", "-", ",", ":", "is:", "=")
)
def test_a_query(text):
    refused_or_fine(lambda: parse(text))


def test_a_query_nested_too_deep_is_refused():
    for text in ("(" * 100_000, "(" * 100_000 + "a" + ")" * 100_000, "NOT " * 100_000 + "a", "-" * 100_000 + "a"):
        refused_or_fine(lambda text=text: parse(text))


@examples(200)
@given(words("0.005", ":", ",", "1e-3", "500", " ", "-", "inf", "nan", "1e999", "99999999999999999999"))
def test_a_learning_rate(text):
    refused_or_fine(lambda: parse_learning_rate(text))


@examples(100)
@given(words("#", "ff", "rgb(", "1", ",", ")", "auto", "white", "hsl(", "%", "blur"))
def test_a_colour(text):
    refused_or_fine(lambda: parse_color(text))


@examples(100)
@given(words("{", "}", "name", "stem", ".txt", "[", "]", "/", "..", "\0", "%"))
def test_a_naming_pattern(text):
    refused_or_fine(lambda: demand_pattern(text))


TABLE = b"[hair]\nponytail, hair\n=drills\nholding *\n[eyes]\n# remark\na, b -> c\n* dress -> dress\n"


@examples(60)
@given(st.one_of(ANY, spoiled([TABLE])), st.sampled_from((KINDS_FILE, SYNONYMS_FILE, IMPLICATIONS_FILE)))
def test_tables_of_tags(place, content, name):
    folder = place / "tables"
    folder.mkdir(exist_ok=True)
    for other in folder.iterdir():
        other.unlink()
    (folder / name).write_bytes(content)
    tables = refused_or_fine(lambda: load_tables(folder))
    if tables is not None:
        tables.kinds.of("long hair")


LIST = b'1girl,0,4225150,"girl,sole_female"\nlong_hair,0,100,\n"a,b",5,1,"x"\n'
LABELS = b"tag_id,name,category,count\n1,general,9,10\n2,1girl,0,5\n3,hatsune_miku,4,2\n"


@examples(100)
@given(st.one_of(ANY, spoiled([LIST, LABELS])))
def test_lists_of_tags(place, content):
    folder = place / "lists"
    (folder / LISTS).mkdir(parents=True, exist_ok=True)
    for old in (folder / LISTS).iterdir():
        old.unlink()
    (folder / LISTS / f"{hash(content)}.csv").write_bytes(content)
    load_tag_list(load_tables(folder), folder)


JSON_LABELS = (
    b'{"dataset_info": {"tag_mapping": {"idx_to_tag": {"0": "a", "1": "b"}, "tag_to_category": {"a": "general"}}}}'
)


@examples(150)
@given(
    st.one_of(ANY, spoiled([LABELS, JSON_LABELS, b"a\nb\nrating:safe\n"])), st.sampled_from((".csv", ".json", ".txt"))
)
def test_labels_of_taggers(place, content, suffix):
    path = place / f"labels{suffix}"
    path.write_bytes(content)
    refused_or_fine(lambda: read_labels(path))


@examples(80)
@given(st.one_of(ANY, spoiled([b"a photo of a [name], [filewords]\n\n[name]\n"])))
def test_templates(place, content):
    path = place / "template.txt"
    path.write_bytes(content)
    refused_or_fine(lambda: template_lines("file", str(path)))


@examples(60)
@given(ANY)
def test_the_list_of_unsuitable_models(place, content):
    (place / UNSUITABLE_FILE).write_bytes(content)
    refused_or_fine(lambda: unsuitable_entry(place, "model", "0" * 64))
