"""The options that decide what is written, on folders of pictures."""

from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.dataset.captions import Caption
from lib_dsm.dataset.history import history, undo
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job
from lib_dsm.tagging import run
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.run import tag_folder
from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.writing import CaptionChange


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, color in (("a.png", "red"), ("b.jpg", "blue")):
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), color).save(tmp_path / "set" / name)
    (tmp_path / "set" / "a.txt").write_text("old, red_tint", "utf-8")
    return tmp_path / "set"


def options(model: Path, **how: object) -> TagOptions:
    return TagOptions(model=str(model), only=("* tint", "^_^"), **how)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    return {
        path.name: path.read_text("utf-8") for path in sorted(folder.iterdir()) if path.suffix in (".txt", ".caption")
    }


def test_a_dry_run_says_what_would_become_of_each_caption(pictures: Path, tagger_folder: Path, tmp_path: Path) -> None:
    chosen = options(tagger_folder, on_existing="append")
    before = contents(pictures)
    report = tag_folder(pictures, chosen, tmp_path / "cache", dry_run=True)
    assert contents(pictures) == before and not (pictures / ".dsm" / "history").exists()
    assert report.written == [] and report.act is None
    told = {change.picture.name: (change.added, change.removed, change.exists) for change in report.changes}
    assert told == {"a.png": (["^_^"], [], True), "b.jpg": (["blue tint", "^_^"], [], False)}
    tag_folder(pictures, chosen, tmp_path / "cache")
    assert [contents(pictures)[name] for name in ("a.txt", "b.txt")] == [
        ", ".join(change.after) for change in report.changes
    ]


def test_a_dry_run_of_replacing_says_what_goes(pictures: Path, tagger_folder: Path, tmp_path: Path) -> None:
    report = tag_folder(pictures, options(tagger_folder, on_existing="replace"), tmp_path, dry_run=True)
    assert report.changes[0].removed == ["old", "red_tint"] and report.changes[0].added == ["red tint", "^_^"]


def test_one_undo_for_all_with_names_of_their_own(pictures: Path, tagger_folder: Path, tmp_path: Path) -> None:
    before = contents(pictures)
    report = tag_folder(pictures, options(tagger_folder, file_name="[name].[extension].caption"), tmp_path / "cache")
    assert [path.name for path in report.written] == ["a.png", "b.jpg"]
    assert contents(pictures) == {**before, "a.png.caption": "red tint, ^_^", "b.jpg.caption": "blue tint, ^_^"}
    tag_folder(pictures, options(tagger_folder, file_name="[name].[extension].caption"), tmp_path / "cache")
    assert len(history(pictures)) == 1  # they have captions of that name now
    undo(pictures)
    assert contents(pictures) == before


def test_two_pictures_of_one_caption_by_the_pattern(pictures: Path, tagger_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(pictures / "b.png")
    assert tag_folder(pictures, options(tagger_folder), tmp_path).failed[0][0].name == "b.png"
    assert not tag_folder(pictures, options(tagger_folder, file_name="[name]_[extension].txt"), tmp_path).failed


def test_a_bad_pattern_or_replacement_writes_nothing(pictures: Path, tagger_folder: Path, tmp_path: Path) -> None:
    before = contents(pictures)
    for how in ({"file_name": "../[name].txt"}, {"replace": ("hair",)}, {"kinds": ("nothing",)}):
        with pytest.raises(InputError):
            tag_folder(pictures, options(tagger_folder, on_existing="replace", **how), tmp_path)
    assert contents(pictures) == before


def test_an_unknown_balanced_threshold_is_said(pictures: Path, tagger_folder: Path, tmp_path: Path) -> None:
    job = Job("tag")
    tag_folder(pictures, options(tagger_folder, balanced=True), tmp_path, job)
    assert any("balanced threshold" in line and "0.35" in line for line in job.snapshot()["lines"])


def test_a_caption_changed_meanwhile_is_left(
    pictures: Path, tagger_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program writes a caption in the moment between its reading and its writing."""

    class Overtaken(run.Captioner):
        def change(self, picture: Path, scores: Scores) -> tuple[Caption, CaptionChange]:
            found = super().change(picture, scores)
            if picture.name == "a.png":
                picture.with_suffix(".txt").write_text("theirs", "utf-8")
            return found

    monkeypatch.setattr(run, "Captioner", Overtaken)
    report = tag_folder(pictures, options(tagger_folder, on_existing="replace"), tmp_path)
    assert (pictures / "a.txt").read_text("utf-8") == "theirs"
    assert [path.name for path in report.written] == ["b.jpg"] and report.failed[0][0].name == "a.txt"
