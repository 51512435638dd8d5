from pathlib import Path

import pytest

from lib_dsm.dataset.history import history, redo, undo
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import InputError
from lib_dsm.pruning.character import character_tags, kind_of
from lib_dsm.pruning.prune import PruneOptions, plan_prune
from lib_dsm.pruning.query import QueryError


def dataset(folder: Path, **captions: str | bytes | None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, caption in captions.items():
        (folder / f"{name} 猫.png").touch()
        if caption is not None:
            raw = caption if isinstance(caption, bytes) else caption.encode()
            (folder / f"{name} 猫.txt").write_bytes(raw)
    return folder


def texts(folder: Path) -> dict[str, bytes]:
    return {path.name.split(" ")[0]: path.read_bytes() for path in folder.glob("*.txt")}


def test_only_what_changes_is_written_and_undone_to_the_byte(tmp_path: Path) -> None:
    sjis = "青い髪, Blue_hair\r\n".encode("cp932")
    captions: dict[str, str | bytes | None] = {
        "a": "1girl,blue hair ,hat", "b": sjis, "c": " odd ,,spacing,", "d": None, "e": b"\0"
    }  # fmt: skip
    folder = dataset(tmp_path / "set", **captions)
    before = texts(folder)
    plan = plan_prune(folder, PruneOptions(remove=("blue hair",)))
    assert texts(folder) == before and plan.matched == 4
    assert plan.examples() == ["a 猫.png: - blue hair", "b 猫.png: - Blue_hair"]
    assert any("not text" in note.text for note in plan.notes)
    assert len(plan.apply().changed) == 2
    assert texts(folder) == {**before, "a": b"1girl, hat", "b": "青い髪\r\n".encode()}
    assert history(folder)[-1].title == "remove blue hair"
    undo(folder)
    assert texts(folder) == before
    redo(folder)
    assert texts(folder)["a"] == b"1girl, hat"


def test_where_replace_add_and_missing_captions(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", a="nude, hat", b="nude", c=None)
    options = PruneOptions(where="NOT hat", replace=("nude=nsfw",), add=("me",), add_first=True)
    plan_prune(folder, options).apply()
    assert texts(folder) == {"a": b"nude, hat", "b": b"me, nsfw", "c": b"me"}
    undo(folder)
    assert texts(folder) == {"a": b"nude, hat", "b": b"nude"}


def test_a_caption_changed_after_planning_is_a_conflict(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", a="hat, x", b="hat, x")
    plan = plan_prune(folder, PruneOptions(remove=("x",)))
    (folder / "a 猫.txt").write_text("by another window")
    outcome = plan.apply()
    assert texts(folder) == {"a": b"by another window", "b": b"hat"}
    assert [note.path.name for note in outcome.conflicts] == ["a 猫.txt"]


def test_a_plan_without_changes_is_no_act(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", a="hat")
    assert plan_prune(folder, PruneOptions(remove=("x",))).apply().act is None and history(folder) == []


@pytest.mark.parametrize(
    "options",
    [
        PruneOptions(),
        PruneOptions(replace=("a",)),
        PruneOptions(replace=("a=",)),
        PruneOptions(add=("a, b",)),
        PruneOptions(remove=("a",), where="(a"),
    ],
)
def test_bad_options(tmp_path: Path, options: PruneOptions) -> None:
    with pytest.raises(InputError) as caught:
        plan_prune(dataset(tmp_path / "set", a="hat"), options)
    assert isinstance(caught.value, QueryError) == bool(options.where)


def test_character_tags_are_proposed_by_kind(tmp_path: Path) -> None:
    common = r"1girl, solo, blue hair, red_eyes, animal ears, black gloves, hat, smile, outdoors, chair, closed eyes"
    folder = dataset(tmp_path / "set", a=common, b=common, c=common + ", white dress", d="from behind, holding hat")
    found = [(proposal.tag, proposal.kind) for proposal in character_tags(TagIndex.read(folder))]
    assert found == [
        ("blue hair", "hair"), ("red_eyes", "eyes"), ("animal ears", "ears"), ("hat", "hat"),
        ("black gloves", "clothes"),
    ]  # fmt: skip
    assert character_tags(TagIndex(folder)) == []


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("very_long_hair", "hair"), ("hair ornament", "hat"), ("Hair Between Eyes", "hair"), ("armchair", None),
        ("tears", None), ("looking at viewer", None), ("simple background", None), ("hand in own hair", None),
        ("dark-skinned female", "skin"), ("bow (weapon)", None), ("2girls", None), ("upper body", None),
        ("cowboy shot", None), ("no hat", None), ("wet hair", None), ("fox tail", "body"),
    ],
)  # fmt: skip
def test_kinds_go_by_whole_words(tag: str, kind: str | None) -> None:
    assert kind_of(tag) == kind
