"""Plans with states: what is confirmed is written, what it no longer has is moved aside, all can be undone."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_dsm.cropping.aside import take_back
from lib_dsm.cropping.draft import Decision, Draft, left_unreviewed
from lib_dsm.cropping.plan import CropItem, CropOptions, CropPlan, PlanPicture, plan_picture
from lib_dsm.cropping.propose import plan_crops
from lib_dsm.cropping.write import CropReport, write_plan
from lib_dsm.dataset import history
from lib_dsm.errors import InputError
from lib_dsm.files import sha256
from tests.cropping.test_crop_folder import names, pixels, save, snapshot, stripes

OPTIONS = CropOptions(width=32, height=32)


def item(source: str, box: tuple[int, int, int, int] = (0, 0, 50, 50), **more: object) -> CropItem:
    return CropItem(source=source, mode="free", box=box, width=32, height=32, **more)  # type: ignore[arg-type]


def write(folder: Path, plan: CropPlan, options: CropOptions = OPTIONS) -> CropReport:
    return write_plan(plan, folder / "in", folder / "out", options, tidy=True)


def confirmed(*items: CropItem) -> CropPlan:
    sources = dict.fromkeys(one.source for one in items)
    return CropPlan(items=items, pictures=tuple(PlanPicture(source, "confirmed") for source in sources))


def test_only_what_is_confirmed_is_written(tmp_path: Path) -> None:
    for name in "abcd":
        save(tmp_path / "in", f"{name}.png")
    draft = Draft(tmp_path / ".dsm" / "plan.json")
    states = {"a.png": "confirmed", "b.png": "proposed", "c.png": "skipped", "d.png": "untouched"}
    for source, state in states.items():
        draft.change([PlanPicture(source, state)], {source: [item(source), item(source, (50, 0, 100, 50), part="2")]})
    plan = Draft(draft.path).load()
    assert {picture.source: picture.state for picture in plan.pictures} == states and left_unreviewed(plan) == 2
    assert names(write(tmp_path, plan).written) == ["a.png", "a-2.png"]
    assert names(write(tmp_path, plan.confirmed()).written) == ["b.png", "b-2.png", "d.png", "d-2.png"]
    draft.change([PlanPicture("a.png", "skipped")], {"a.png": []})
    assert Draft(draft.path).states()["a.png"] == Decision(PlanPicture("a.png", "skipped"))
    with pytest.raises(InputError, match="is not a box"):
        draft.change([PlanPicture("b.png")], {"b.png": [item("b.png", (5, 5, 5, 5))]})
    with pytest.raises(InputError, match=r"A frame of 'c\.png'"):
        draft.change([PlanPicture("b.png")], {"b.png": [item("c.png")]})
    assert len(Draft(draft.path).states()["b.png"].items) == 2


def test_what_another_window_decided_is_not_overwritten(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "plan.json")
    seen = draft.change([PlanPicture("a.png", "proposed")], {"a.png": [item("a.png")]}, {"a.png": ""}).marks
    draft.change([PlanPicture("a.png", "confirmed")], {"a.png": [item("a.png", (50, 0, 100, 50))]}, seen)
    late = draft.change(
        [PlanPicture("a.png", "proposed"), PlanPicture("b.png", "skipped")],
        {"a.png": [item("a.png")]},
        {**seen, "b.png": ""},
    )
    assert list(late.left) == ["a.png"] and late.left["a.png"].picture.state == "confirmed"
    saved = Draft(draft.path).states()
    assert saved["a.png"] == late.left["a.png"] and saved["a.png"].items[0].box == (50, 0, 100, 50)
    assert saved["b.png"].picture.state == "skipped" and late.marks == {"b.png": saved["b.png"].mark}
    assert draft.change([PlanPicture("a.png", "skipped")], {}).plan.due() == ()  # who names no mark insists


def test_what_is_saved_already_is_no_conflict(tmp_path: Path) -> None:
    """A page that was taken away did not hear of its own save, and saves once more what it had decided."""
    draft = Draft(tmp_path / "plan.json")
    frames = {"a.png": [item("a.png")]}
    first = draft.change([PlanPicture("a.png", "confirmed")], frames, {"a.png": ""})
    again = draft.change([PlanPicture("a.png", "confirmed")], frames, {"a.png": ""})
    assert not again.left and again.marks == first.marks
    other = draft.change([PlanPicture("a.png", "skipped")], {}, {"a.png": ""})
    assert other.left["a.png"].picture.state == "confirmed"


def test_a_damaged_plan_is_kept(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "plan.json")
    draft.path.write_text('{"items": [', "utf-8")
    assert draft.load() == CropPlan() and "plan.json.old-1" in draft.note
    assert (tmp_path / "plan.json.old-1").read_text("utf-8") == '{"items": ['


def test_what_the_plan_no_longer_has_is_moved_aside_and_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png", caption="one, full body")
    save(tmp_path / "in", "b.png")
    originals = {path: sha256(path) for path in (tmp_path / "in").iterdir()}
    out = tmp_path / "out"
    first = confirmed(item("a.png"), item("a.png", (50, 0, 100, 50), part="2"), item("b.png"))
    assert names(write(tmp_path, first).written) == ["a.png", "a-2.png", "b.png"]
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    (out / "a.txt").write_text("one, tagged", "utf-8")

    moved = confirmed(item("a.png", (10, 0, 60, 50)), item("b.png"))
    report = write(tmp_path, moved)
    assert sorted(names(report.aside)) == ["a-2.png", "a.png"]
    assert names(report.written) == ["a.png"] and names(report.skipped) == ["b.png"]
    assert (out / "a.txt").read_text("utf-8") == "one, tagged"  # what was worked on goes with the part
    assert (out / "a.png").read_bytes() != before["a.png"] and not (out / "a-2.png").exists()
    assert (out / ".dsm/removed/a-2.png").read_bytes() == before["a-2.png"]
    assert names(write(tmp_path, moved).skipped) == ["a.png", "b.png"]

    outcome = take_back(out)
    assert {path.name for path in outcome.moved if ".dsm" not in path.parts} == {"a.png", "a.txt", "a-2.png", "a-2.txt"}
    assert (out / "a.png").read_bytes() == before["a.png"] and (out / "a-2.png").read_bytes() == before["a-2.png"]
    assert take_back(out) and not list(out.glob("*.png"))
    with pytest.raises(InputError, match="no crops to take back"):
        take_back(out)
    history.undo(out)
    assert sorted(path.name for path in out.glob("*.png")) == ["a-2.png", "a.png", "b.png"]
    assert {path: sha256(path) for path in (tmp_path / "in").iterdir()} == originals


def test_a_record_of_a_name_that_no_file_can_have_brings_nothing_back(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png")
    write(tmp_path, confirmed(item("a.png")))
    record = tmp_path / "out" / ".dsm" / "crops.jsonl"
    with record.open("a") as file:
        file.write(
            '{"run": 1, "aside": [["%s.png", ".dsm/removed/b.png"], ["b.png", "%s.png"]]}\n' % (("x" * 300,) * 2)
        )
    assert names(take_back(tmp_path / "out").moved) == ["a.png"]


def test_what_somebody_changed_or_another_plan_wrote_stays(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / "in", f"{name}.png")
    write(tmp_path, confirmed(item("a.png"), item("b.png"), item("c.png")))
    Image.new("RGB", (8, 8)).save(tmp_path / "out" / "a.png")
    (tmp_path / "in" / "c.png").unlink()
    plan = CropPlan(pictures=(PlanPicture("a.png", "untouched"),))
    assert not write(tmp_path, plan).aside
    broken = replace(confirmed(item("c.png", (1, 1, 9, 9))), pictures=(PlanPicture("c.png", "confirmed"),))
    report = write(tmp_path, broken)
    assert not report.aside and "does not exist" in report.failed[0][1]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png", "c.png"]


def test_captions_lose_what_cannot_be_in_the_crop_and_follow_the_plan(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png", caption="1girl,full body,smile")
    write(tmp_path, confirmed(item("a.png", drop=("full body",))))
    caption = tmp_path / "out" / "a.txt"
    assert caption.read_text("utf-8") == "1girl,smile"
    report = write(tmp_path, confirmed(item("a.png")))
    assert names(report.skipped) == ["a.png"] and caption.read_text("utf-8") == "1girl,full body,smile"
    caption.write_text("mine", "utf-8")
    write(tmp_path, confirmed(item("a.png", drop=("full body",))))
    assert caption.read_text("utf-8") == "mine"


def test_mirrored_copies_and_their_refusal(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png", (64, 64), "1girl")
    save(tmp_path / "in", "odd.png", (64, 64), "1girl, Heterochromia")
    save(tmp_path / "in", "text.png", (64, 64), "english_text")
    options = CropOptions(width=32, height=32, flip=True)
    plan = plan_crops(tmp_path / "in", options)
    said = [note.text for note in plan.notes]
    assert len(said) == 2 and "heterochromia" in said[0] and "english text" in said[1]
    report = write_plan(plan, tmp_path / "in", tmp_path / "out", options)
    assert names(report.written) == ["a.png", "a-flipped.png", "odd.png", "text.png"]
    assert np.array_equal(pixels(tmp_path / "out/a-flipped.png"), pixels(tmp_path / "out/a.png")[:, ::-1])
    assert (tmp_path / "out/a-flipped.txt").read_text("utf-8") == "1girl"
    forced = CropPlan(items=(item("odd.png", flip=True, part="flipped"),))
    assert "is not mirrored" in write_plan(forced, tmp_path / "in", tmp_path / "out", options).failed[0][1]


def test_a_kept_picture_is_mirrored_without_loss(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png", (32, 32))
    options = CropOptions(width=32, height=32, flip=True)
    report = write_plan(plan_crops(tmp_path / "in", options), tmp_path / "in", tmp_path / "out", options)
    assert (tmp_path / "out/a.png").read_bytes() == (tmp_path / "in/a.png").read_bytes()
    assert np.array_equal(pixels(report.written[1]), np.asarray(stripes(32, 32))[:, ::-1])


def test_padding_by_blur_and_transparency(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (100, 50), (200, 10, 10)).save(tmp_path / "in" / "a.png")
    blur = CropOptions(width=32, height=32, mode="pad", color="blur")
    image = pixels(write_plan(plan_crops(tmp_path / "in", blur), tmp_path / "in", tmp_path / "blur", blur).written[0])
    assert image.shape == (32, 32, 3) and np.abs(image - (200, 10, 10)).max() <= 2
    clear = replace(blur, color="transparent")
    plan = plan_crops(tmp_path / "in", clear)
    image = pixels(write_plan(plan, tmp_path / "in", tmp_path / "clear", clear).written[0])
    assert (image[:8, :, 3] == 0).all() and (image[8:24] == (200, 10, 10, 255)).all() and (image[24:, :, 3] == 0).all()
    report = write_plan(plan, tmp_path / "in", tmp_path / "jpeg", replace(clear, format="jpeg"))
    assert "JPEG knows no transparency" in report.failed[0][1] and not report.written


@pytest.mark.parametrize("turned", [False, True])
def test_reading_small_changes_nothing_that_is_seen(tmp_path: Path, turned: bool) -> None:
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    stripes(1600, 1200).save(tmp_path / "in" / "a.jpg", quality=95, exif=exif)
    with Image.open(tmp_path / "in" / "a.jpg") as image:
        upright = image.transpose(Image.Transpose.ROTATE_270) if turned else image.copy()
    box = (100, 200, 900, 1000)
    exact = upright.crop(box).resize((64, 64), Image.Resampling.LANCZOS)
    small = CropItem(source="a.jpg", mode="free", box=box, width=64, height=64)
    whole = CropItem(source="a.jpg", mode="free", box=(0, 0, 40, 40), width=40, height=40, part="whole")
    plan = CropPlan(items=(small,))
    report = write_plan(plan, tmp_path / "in", tmp_path / "one", OPTIONS)
    assert np.abs(pixels(report.written[0]) - np.asarray(exact).astype(int)).max() <= 3
    report = write_plan(CropPlan(items=(small, whole)), tmp_path / "in", tmp_path / "two", OPTIONS)
    assert np.array_equal(pixels(report.written[1]), np.asarray(upright.crop((0, 0, 40, 40))))


@pytest.mark.parametrize(("kind", "suffix"), [("jpeg", ".jpg"), ("webp", ".webp"), ("png", ".png")])
def test_formats_and_quality(tmp_path: Path, kind: str, suffix: str) -> None:
    save(tmp_path / "in", "a.png", (300, 200))
    sizes = []
    for quality in (30, 95):
        options = CropOptions(width=96, height=64, format=kind, quality=quality)
        plan = CropPlan(items=tuple(plan_picture("a.png", (300, 200), options)))
        path = write_plan(plan, tmp_path / "in", tmp_path / f"{quality}", options).written[0]
        with Image.open(path) as image:
            assert image.format == kind.upper() and image.size == (96, 64) and path.suffix == suffix
        sizes.append(path.stat().st_size)
    assert (sizes[0] == sizes[1]) == (kind == "png")


def test_a_record_from_before_is_understood(tmp_path: Path) -> None:
    """Crops of an earlier version are known by their key, and are never moved aside."""
    save(tmp_path / "in", "a.png")
    write(tmp_path, confirmed(item("a.png")))
    record = tmp_path / "out/.dsm/crops.jsonl"
    entry = json.loads(record.read_bytes().split(b"\n")[1])
    record.write_text(json.dumps({"key": entry["key"], "name": entry["name"]}) + "\n", "utf-8")
    before = snapshot(tmp_path / "out")
    assert names(write(tmp_path, confirmed(item("a.png"))).skipped) == ["a.png"]
    assert not write(tmp_path, CropPlan(pictures=(PlanPicture("a.png"),))).aside
    assert snapshot(tmp_path / "out") == before


def test_a_run_that_only_moved_aside_is_taken_back(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "in", name)
    plan = confirmed(item("a.png"), item("b.png"))
    write(tmp_path, plan)
    before = snapshot_of_crops(tmp_path)
    skipped = replace(plan, pictures=(PlanPicture("a.png", "confirmed"), PlanPicture("b.png", "skipped")))
    report = write(tmp_path, skipped)
    assert names(report.aside) == ["b.png"] and not report.written
    assert names(take_back(tmp_path / "out").moved) == ["b.png"]
    assert snapshot_of_crops(tmp_path) == before
    assert len(take_back(tmp_path / "out").moved) == 2 and not snapshot_of_crops(tmp_path)


def test_a_run_number_is_used_once(tmp_path: Path) -> None:
    """A run that only moved something aside has a number of its own, also where the next one writes."""
    for name in ("a.png", "b.png"):
        save(tmp_path / "in", name)
    plan = confirmed(item("a.png"), item("b.png"))
    write(tmp_path, plan)
    write(tmp_path, replace(plan, pictures=(PlanPicture("a.png", "confirmed"), PlanPicture("b.png", "skipped"))))
    write(tmp_path, confirmed(item("a.png"), item("a.png", (50, 0, 100, 50), part="2")))
    assert names(take_back(tmp_path / "out").moved) == ["a-2.png"] and len(snapshot_of_crops(tmp_path)) == 1
    assert names(take_back(tmp_path / "out").moved) == ["b.png"] and len(snapshot_of_crops(tmp_path)) == 2


@pytest.mark.parametrize("killed", ["between moving aside and writing", "between the halves of taking back"])
def test_what_was_moved_aside_comes_back_after_a_kill(tmp_path: Path, monkeypatch, killed: str) -> None:  # type: ignore[no-untyped-def]
    save(tmp_path / "in", "a.png")
    write(tmp_path, confirmed(item("a.png")))
    before = snapshot_of_crops(tmp_path)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        if killed == "between moving aside and writing":
            patched.setattr("lib_dsm.cropping.write.writing_in", kill)
        write(tmp_path, confirmed(item("a.png", (10, 0, 60, 50))))
        patched.setattr("lib_dsm.cropping.aside.writing_in", kill)
        take_back(tmp_path / "out")
    assert snapshot_of_crops(tmp_path) == {}
    take_back(tmp_path / "out")
    assert snapshot_of_crops(tmp_path) == before


def test_taking_back_after_a_kill_takes_back_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run whose crops were moved when the program was killed is completed; the one before stays."""
    save(tmp_path / "in", "a.png")
    save(tmp_path / "in", "b.png")
    write(tmp_path, confirmed(item("a.png")))
    write(tmp_path, confirmed(item("a.png"), item("b.png")))

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("lib_dsm.cropping.aside.writing_in", kill)
        take_back(tmp_path / "out")
    take_back(tmp_path / "out")
    assert list(snapshot_of_crops(tmp_path)) == ["a.png"]
    take_back(tmp_path / "out")
    assert snapshot_of_crops(tmp_path) == {}


def test_a_name_is_no_proof_of_the_pixels(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png")

    def crop_as(mode: str) -> CropReport:
        options = replace(OPTIONS, mode=mode)
        return write_plan(plan_crops(tmp_path / "in", options), tmp_path / "in", tmp_path / "out", options)

    crop_as("center")
    take_back(tmp_path / "out")
    padded = pixels(crop_as("pad").written[0])
    report = crop_as("center")
    assert names(report.written) == ["a-2.png"] and not report.skipped
    assert np.array_equal(pixels(tmp_path / "out/a.png"), padded)
    assert names(crop_as("pad").skipped) == ["a.png"] and names(crop_as("center").skipped) == ["a-2.png"]


def test_what_came_back_counts_as_what_it_is(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png")
    first, second = confirmed(item("a.png")), confirmed(item("a.png", (10, 0, 60, 50)))
    write(tmp_path, first)
    write(tmp_path, second)
    take_back(tmp_path / "out")
    assert names(write(tmp_path, first).skipped) == ["a.png"]


def snapshot_of_crops(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir() if path.is_file()}


def test_a_picture_exchanged_after_it_was_confirmed_is_not_cut(tmp_path: Path) -> None:
    stamps = {}
    for name in ("a.png", "b.png"):
        stamps[name] = str(save(tmp_path / "in", name).stat().st_mtime_ns)
    pictures = tuple(PlanPicture(name, "confirmed", stamp) for name, stamp in stamps.items())
    plan = CropPlan(items=(item("a.png"), item("b.png")), pictures=pictures)
    assert len(write(tmp_path, plan).written) == 2
    later = int(stamps["a.png"]) + 5_000_000_000
    os.utime(save(tmp_path / "in", "a.png", (200, 90)), ns=(later, later))
    report = write(tmp_path, plan)
    ((path, said),) = report.failed
    assert path.name == "a.png" and "has changed since its frames were confirmed. Look at it again" in said
    assert names(report.skipped) == ["b.png"] and not report.written and not report.aside
