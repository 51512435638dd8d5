from pathlib import Path

import pytest

from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import InputError
from lib_dsm.pruning.character import PRESETS, consequence, preset_of, propose, replacement
from lib_dsm.pruning.prune import PruneOptions, plan_prune
from lib_dsm.pruning.query import parse
from lib_dsm.pruning.tables import KINDS, begin_tables, load_tables, set_kind
from lib_dsm.pruning.tag_list import load_tag_list
from tests.benchmarks.prune_character import measure
from tests.pruning.test_prune import dataset


def test_the_constant_attributes_are_proposed_and_nothing_else() -> None:
    for name, found in measure(characters=12, pictures=40).items():
        assert found["precision"] >= 0.95 and found["recall"] >= 0.95, (name, found)


def character(tmp_path: Path) -> TagIndex:
    common = "1girl, solo, blue hair, red eyes, hat, black gloves, smile, outdoors"
    return TagIndex.read(
        dataset(tmp_path / "set", a=common, b=common, c=common, d="blue_hair, long hair, nude", e=None)
    )


def test_a_proposal_says_why_and_shows_pictures(tmp_path: Path) -> None:
    found = {item.tag: item for item in propose(character(tmp_path), 0.5)}
    assert list(found) == ["blue hair", "blue_hair", "long hair", "red eyes", "black gloves", "hat"]
    hair = found["blue hair"]
    assert hair.samples == ("a 猫.png", "b 猫.png", "c 猫.png") and hair.without == ("d 猫.png",)
    assert hair.share == 1.0 and "3 of 4 captions" in hair.reason and found["blue_hair"].chosen
    assert not found["long hair"].chosen and "Only 1 of 4" in found["long hair"].reason
    assert found["hat"].kind == "clothes/accessory"


@pytest.mark.parametrize(
    ("preset", "chosen"),
    [
        ("character", ["blue hair", "blue_hair", "red eyes", "black gloves", "hat"]),
        ("accessories", ["blue hair", "blue_hair", "red eyes", "black gloves"]),
        ("features", ["blue hair", "blue_hair", "red eyes"]),
        ("outfit", ["black gloves", "hat"]),
        ("nudity", ["nude"]),
    ],
)
def test_presets(tmp_path: Path, preset: str, chosen: list[str]) -> None:
    asked = preset_of(preset)
    assert asked is not None
    assert [item.tag for item in propose(character(tmp_path), 0.5, asked) if item.chosen] == chosen
    assert preset_of("no") is None and len({item.name for item in PRESETS}) == len(PRESETS)


def test_an_outfit_is_what_its_pictures_have_in_common(tmp_path: Path) -> None:
    captions = {"a": "red dress, boots", "b": "red dress, boots", "c": "armor", "d": "armor", "e": "armor, boots"}
    index = TagIndex.read(dataset(tmp_path / "set", **captions))
    outfit = preset_of("outfit")
    assert outfit is not None
    within = index.mask(parse("red dress"))
    assert [item.tag for item in propose(index, 0.9, outfit, within) if item.chosen] == ["boots", "red dress"]


def test_nudity_becomes_one_tag(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", a="1girl, nude, nipples, bed", b="nsfw, nude", c="hat")
    nudity = preset_of("nudity")
    assert nudity is not None
    tags = [item.tag for item in propose(TagIndex.read(folder), preset=nudity)]
    plan_prune(folder, PruneOptions(replace=replacement(tags, nudity.replace))).apply()
    assert TagIndex.read(folder).counts == {"nsfw": 2, "1girl": 1, "bed": 1, "hat": 1}


def test_what_follows_from_pruning(tmp_path: Path) -> None:
    follows = consequence(character(tmp_path), ["Blue Hair", "red eyes", "long hair"])
    assert follows.inherent == ("blue hair", "red eyes", "blue_hair", "long hair") and follows.missed == ()
    assert ("hat", "clothes", 0.75) in follows.promptable and ("smile", "expression", 0.75) in follows.promptable
    few = consequence(character(tmp_path), ["no such"])
    assert few.inherent == () and len(few.promptable) == 11


def test_a_person_has_the_last_word_on_kinds(tmp_path: Path) -> None:
    kinds = load_tables(tmp_path).kinds
    assert (kinds.of("leaf on head"), kinds.of("strange thing")) == ("clothes/accessory", "other")
    set_kind(tmp_path, "strange thing", "body")
    set_kind(tmp_path, "Leaf_on_head", "background")
    set_kind(tmp_path, "strange thing", "clothes")
    kinds = load_tables(tmp_path).kinds
    assert (kinds.of("leaf on head"), kinds.of("strange thing")) == ("background", "clothes")
    assert (tmp_path / "tag-kinds.txt").read_text().count("strange thing") == 1
    with pytest.raises(InputError, match="no kind"):
        set_kind(tmp_path, "x", "nothing")
    (tmp_path / "tag-kinds.txt").write_text("[hair]\nx\n[colour]\ny\n")
    with pytest.raises(InputError, match='line 3: "colour" is no kind'):
        load_tables(tmp_path)


@pytest.mark.parametrize("face", ["^_^", "+_+", "!", "=_=", "#_#", "[_]", "*_*", "=", "..."])
def test_a_face_may_have_a_kind_too(tmp_path: Path, face: str) -> None:
    for kind in ("background", "meta"):
        set_kind(tmp_path, face, kind)
        kinds = load_tables(tmp_path).kinds
        assert kinds.of(face) == kind and kinds.of("@_@") == "expression"
    assert load_tables().kinds.of("=_=") == "expression"


def test_a_table_that_is_no_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "tag-kinds.txt").write_bytes("[hair]\n=é\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"tag-kinds\.txt cannot be read"):
        set_kind(tmp_path, "x", "hair")
    assert b"\xe9" in (tmp_path / "tag-kinds.txt").read_bytes()


def test_every_kind_of_the_shipped_table_is_used_and_remarks_are_handed_on(tmp_path: Path) -> None:
    tables = load_tables()
    used = {kind.partition("/")[0] for part in (tables.kinds.ends, tables.kinds.exact) for kind in part.values()}
    assert used == set(KINDS)
    begin_tables(tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["tag-implications.txt", "tag-kinds.txt", "tag-synonyms.txt"]
    assert load_tables(tmp_path).kinds == tables.kinds


def test_completion_knows_the_set_the_lists_and_aliases(tmp_path: Path) -> None:
    index = TagIndex.read(dataset(tmp_path / "set", a="long hair, Very_Long_Hair", b="long hair, longing"))
    (tmp_path / "tag-lists").mkdir()
    (tmp_path / "tag-lists" / "x.csv").write_text('long_sleeves,0,9000,"lange,sleeves long"\nlong_hair,0,99999,\nbad\n')
    known = load_tag_list(load_tables(), tmp_path)
    found = known.suggest(index, "long")
    assert [item.tag for item in found[:3]] == ["long hair", "longing", "long sleeves"]
    assert (found[0].count, found[0].known) == (2, 99999)
    assert [(item.tag, item.alias) for item in known.suggest(index, "lange")] == [("long sleeves", "lange")]
    assert ("cat ears", "nekomimi") in [(item.tag, item.alias) for item in known.suggest(index, "nekomi")]
    assert known.suggest(index, " ") == []
