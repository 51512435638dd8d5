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
    assert texts(folder) == {**before, "a": b"1girl,hat", "b": "青い髪\r\n".encode("cp932")}
    assert history(folder)[-1].title == "remove blue hair"
    undo(folder)
    assert texts(folder) == before
    redo(folder)
    assert texts(folder)["a"] == b"1girl,hat"


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


@pytest.mark.parametrize(
    ("options", "after"),
    [
        (PruneOptions(replace=("a|b=x",)), "x, Long Hair, very long hair, x y, hat"),
        (PruneOptions(replace=("* hair=* locks",)), "b, a, Long locks, very long locks, x y, hat"),
        (PruneOptions(add=("n",), add_at=2), "b, n, a, Long Hair, very long hair, x y, hat"),
        (PruneOptions(add=("n",), add_before="x y"), "b, a, Long Hair, very long hair, n, x y, hat"),
        (PruneOptions(add=("n",), add_after="long_hair"), "b, a, Long Hair, n, very long hair, x y, hat"),
        (PruneOptions(sort="alphabet", sort_leave=1), "b, a, hat, Long Hair, very long hair, x y"),
        (PruneOptions(sort="kind"), "Long Hair, very long hair, hat, b, a, x y"),
        (PruneOptions(sort="count", remove=("* hair",)), "hat, b, a, x y"),
        (PruneOptions(keep_first=2), "b, a"),
        (PruneOptions(implied="specific"), "b, a, very long hair, x y, hat"),
        (PruneOptions(implied="general"), "b, a, Long Hair, x y, hat"),
        (PruneOptions(implied="both", remove=("long hair",)), "b, a, very long hair, Long Hair, x y, hat"),
    ],
)
def test_every_edit(tmp_path: Path, options: PruneOptions, after: str) -> None:
    folder = dataset(tmp_path / "set", a="b, a, Long Hair, very long hair, x y, hat", b="hat")
    plan = plan_prune(folder, options)
    plan.apply()
    assert texts(folder)["a"].decode() == after
    assert all(set(change.gone()) <= set(plan.tags()[0]) for change in plan.changes)
    undo(folder)
    assert texts(folder)["a"].decode() == "b, a, Long Hair, very long hair, x y, hat"


def test_synonyms_are_written_in_one_way(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", a="twin tails, Blonde, hat", b="twintails, twin_tails")
    plan_prune(folder, PruneOptions(synonyms=True)).apply()
    assert texts(folder) == {"a": b"twintails, blonde hair, hat", "b": b"twintails"}


def test_only_some_pictures(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", a="hat", b="hat", c="hat, x")
    names = ("a 猫.png", "c 猫.png")
    plan_prune(folder, PruneOptions(where="NOT x", pictures=names, add=("n",))).apply()
    assert texts(folder) == {"a": b"hat, n", "b": b"hat", "c": b"hat, x"}
    with pytest.raises(InputError, match="no picture d"):
        plan_prune(folder, PruneOptions(pictures=("d.png",), add=("n",)))


def test_encodings_are_kept_or_converted(tmp_path: Path) -> None:
    written = {"a": "utf-8-sig", "b": "utf-16", "c": "cp932", "d": "utf-16-be"}
    captions: dict[str, str | bytes | None] = {key: "猫, hat\r\n".encode(code) for key, code in written.items()}
    captions["d"] = b"\xfe\xff" + "猫, hat\r\n".encode("utf-16-be")
    folder = dataset(tmp_path / "set", **captions, e="hat, café")
    plan_prune(folder, PruneOptions(remove=("hat",))).apply()
    now = texts(folder)
    assert now == {
        "a": "猫\r\n".encode("utf-8-sig"), "b": "猫\r\n".encode("utf-16"), "c": "猫\r\n".encode("cp932"),
        "d": b"\xfe\xff" + "猫\r\n".encode("utf-16-be"), "e": "café".encode(),
    }  # fmt: skip
    plan_prune(folder, PruneOptions(add=("ö",), where="is:foreign")).apply()  # Shift-JIS cannot write it
    assert texts(folder)["c"] == "猫, ö\r\n".encode() and texts(folder)["a"] == "猫, ö\r\n".encode("utf-8-sig")
    undo(folder)
    plan = plan_prune(folder, PruneOptions(utf8=True))
    assert len(plan.changes) == 4 and "another encoding" in plan.examples()[0]
    plan.apply()
    assert texts(folder) == {**dict.fromkeys("abcd", "猫\r\n".encode()), "e": "café".encode()}
    undo(folder)
    assert texts(folder) == now


def test_brackets_weights_escapes_and_ways_of_separating_are_kept(tmp_path: Path) -> None:
    folder = dataset(
        tmp_path / "set", a=r"(blue hair, red eyes:1.2), ((hat)), a \(b\), oh\, my, x", b="a\nx\nc d\n", c="a,x,c d,",
        d="(x:1.3), [y], {z}", e="x",
    )  # fmt: skip
    plan_prune(folder, PruneOptions(remove=("x",))).apply()
    assert texts(folder) == {
        "a": rb"(blue hair, red eyes:1.2), ((hat)), a \(b\), oh\, my", "b": b"a\nc d\n", "c": b"a,c d",
        "d": b"[y], {z}", "e": b"",
    }  # fmt: skip
    plan_prune(folder, PruneOptions(replace=(r"oh\, my=oh",))).apply()
    assert texts(folder)["a"] == rb"(blue hair, red eyes:1.2), ((hat)), a \(b\), oh"


def test_a_plan_without_changes_is_no_act(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", a="hat")
    assert plan_prune(folder, PruneOptions(remove=("x",))).apply().act is None and history(folder) == []


@pytest.mark.parametrize(
    "options",
    [
        PruneOptions(),
        PruneOptions(replace=("a",)),
        PruneOptions(replace=("a=",)),
        PruneOptions(replace=("=a",)),
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
        ("blue hair", "hair"), ("red_eyes", "eyes"), ("animal ears", "body"), ("black gloves", "clothes"),
        ("hat", "clothes/accessory"),
    ]  # fmt: skip
    assert character_tags(TagIndex(folder)) == []


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("very_long_hair", "hair"), ("hair ornament", "clothes"), ("Hair Between Eyes", "hair"), ("armchair", None),
        ("tears", None), ("looking at viewer", None), ("simple background", None), ("hand in own hair", None),
        ("dark-skinned female", "body"), ("bow (weapon)", None), ("2girls", None), ("upper body", None),
        ("cowboy shot", None), ("no hat", None), ("wet hair", None), ("fox tail", "body"),
    ],
)  # fmt: skip
def test_kinds_go_by_whole_words(tag: str, kind: str | None) -> None:
    assert kind_of(tag) == kind
