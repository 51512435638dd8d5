from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.dataset.acts import Change
from lib_dsm.dataset.history import apply, undo
from lib_dsm.dataset.pruned import fitting_tags, pruned_tags
from lib_dsm.errors import InputError
from lib_dsm.pruning.prune import PruneOptions, plan_prune

CAPTIONS = {"a": "solo, red hair, hat, smile", "b": "solo, red hair, blue eyes", "c": "solo, frown"}


@pytest.fixture
def folder(tmp_path):
    for name, caption in CAPTIONS.items():
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption, encoding="utf-8")
    return tmp_path


def prune(folder, *tags):
    plan_prune(folder, PruneOptions(remove=tags)).apply()


def test_nothing_was_pruned(folder):
    assert pruned_tags(folder) == []


def test_what_pictures_lost_is_told_with_its_share(folder):
    prune(folder, "red hair")
    prune(folder, "hat", "frown")
    assert [(tag, round(share, 2)) for tag, share in pruned_tags(folder)] == [
        ("red hair", 0.67), ("hat", 0.33), ("frown", 0.33),
    ]  # fmt: skip


def test_what_came_back_is_not_lost(folder):
    prune(folder, "red hair")
    prune(folder, "hat")
    undo(folder)
    (folder / "b.txt").write_text("solo, red hair", encoding="utf-8")  # edited elsewhere, "blue eyes" as well
    assert [tag for tag, _ in pruned_tags(folder)] == ["red hair", "blue eyes"]


def test_whole_tags_are_taken_as_long_as_they_fit():
    tags = ["long red hair", "blue eyes", "hat"]
    assert fitting_tags(tags, 9, str.split) == "long red hair blue eyes hat"
    assert fitting_tags(tags, 4, str.split) == "long red hair hat"
    assert fitting_tags(tags, 1, str.split) == "hat"
    assert fitting_tags([], 4, str.split) == ""
    with pytest.raises(InputError, match='"blue eyes", needs 2 vectors; there is 1'):
        fitting_tags(["long red hair", "blue eyes"], 1, str.split)


def edit(folder, **options):
    plan_prune(folder, PruneOptions(**options)).apply()


def test_another_spelling_is_no_loss(folder):
    (folder / "a.txt").write_text("solo, Red_Hair, hat", encoding="utf-8")
    edit(folder, replace=("red hair=red hair",))
    assert (folder / "a.txt").read_text(encoding="utf-8") == "solo, red hair, hat"
    assert pruned_tags(folder) == []
    prune(folder, "red hair")
    assert [(tag, round(share, 2)) for tag, share in pruned_tags(folder)] == [("red hair", 0.67)]


def test_what_was_replaced_is_not_pruned(folder):
    edit(folder, replace=("red hair=silver hair",))
    assert pruned_tags(folder) == []
    prune(folder, "silver hair")
    assert [tag for tag, _ in pruned_tags(folder)] == ["silver hair"]


def test_the_last_act_decides_and_one_that_was_undone_does_not_count(folder):
    edit(folder, replace=("red hair=silver hair",))
    edit(folder, replace=("silver hair=red hair",))
    edit(folder, replace=("hat=cap",))
    undo(folder)
    prune(folder, "red hair")
    (folder / "a.txt").write_text("solo, smile", encoding="utf-8")  # edited elsewhere
    assert [tag for tag, _ in pruned_tags(folder)] == ["red hair", "hat"]


def test_captions_of_other_encodings_are_read_as_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    raw = "猫, 青い髪".encode("utf-16")
    (tmp_path / "a.txt").write_bytes(raw)
    apply(tmp_path, "remove", [Change("a.txt", raw, "猫".encode("utf-16"))])
    assert pruned_tags(tmp_path) == [("青い髪", 1.0)]
