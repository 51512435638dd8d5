import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw

from lib_dsm.cropping.plan import CropItem, CropOptions, CropPlan, plan_picture
from lib_dsm.cropping.propose import plan_crops
from lib_dsm.cropping.write import CropReport, crop_folder, write_plan
from lib_dsm.dataset.captions import read_caption
from lib_dsm.dataset.pictures import read_picture
from lib_dsm.errors import Cancelled, InputError
from lib_dsm.jobs import Job


def stripes(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 / max(1, width - 1), y * 255 / max(1, height - 1), np.full(x.shape, 99)], axis=-1)
    return Image.fromarray(np.rint(rgb).astype(np.uint8))


def save(folder: Path, name: str, size: tuple[int, int] = (100, 50), caption: str | bytes | None = None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes(*size).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption if isinstance(caption, bytes) else caption.encode())
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def crop(folder: Path, **how: object) -> CropReport:
    options = CropOptions(**{"width": 32, "height": 32, **how})  # type: ignore[arg-type]
    return crop_folder(folder / "in", folder / "out", options)


def pixels(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_center(tmp_path: Path) -> None:
    save(tmp_path / "in", "it's 猫 🦊.png", caption="髪, a".encode("cp932"))
    originals = snapshot(tmp_path / "in")
    report = crop(tmp_path)
    assert names(report.written) == ["it's 猫 🦊.png"] and not report.failed
    image = pixels(report.written[0])
    assert image.shape == (32, 32, 3)
    assert image[16, 0, 0] == pytest.approx(64, abs=4) and image[16, 31, 0] == pytest.approx(191, abs=4)
    assert report.written[0].with_suffix(".txt").read_text("utf-8") == "髪, a"
    assert snapshot(tmp_path / "in") == originals


def test_split(tmp_path: Path) -> None:
    save(tmp_path / "in", "wide.jpg", (100, 50), "tags")
    save(tmp_path / "in", "tall.png", (40, 100))
    save(tmp_path / "in", "square.png", (60, 50))
    report = crop(tmp_path, mode="split")
    assert names(report.written) == ["square.png", "tall-top.png", "tall-bottom.png", "wide-left.png", "wide-right.png"]
    left, right = pixels(tmp_path / "out/wide-left.png"), pixels(tmp_path / "out/wide-right.png")
    assert left[16, 0, 0] < 10 and left[16, 31, 0] == pytest.approx(126, abs=6)
    assert right[16, 0, 0] == pytest.approx(129, abs=6) and right[16, 31, 0] > 245
    bottom = pixels(tmp_path / "out/tall-bottom.png")
    assert bottom[31, 16, 1] > 245 and bottom[0, 16, 1] == pytest.approx(153, abs=6)
    assert (tmp_path / "out/wide-left.txt").read_text() == (tmp_path / "out/wide-right.txt").read_text() == "tags"


def test_pad_with_a_colour(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png", (100, 50))
    image = pixels(crop(tmp_path, mode="pad", color="#ff00ff").written[0])
    assert image.shape == (32, 32, 3)
    assert (image[:8] == (255, 0, 255)).all() and (image[24:] == (255, 0, 255)).all()
    assert image[16, 0, 0] < 10 and image[16, 31, 0] > 245 and (image[8:24, :, 2] == 99).all()


def test_pad_automatically(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (50, 100), (12, 34, 56)).save(tmp_path / "in" / "plain.png")
    save(tmp_path / "in", "wild.png", (50, 100))
    Image.new("RGBA", (50, 100), (200, 0, 0, 128)).save(tmp_path / "in" / "clear.png")
    report = crop(tmp_path, mode="pad")
    assert (pixels(tmp_path / "out/plain.png") == (12, 34, 56)).all()
    assert (pixels(tmp_path / "out/wild.png")[:, :8] == 255).all()
    assert ["more than one colour" in note.text for note in report.notes] == [True]
    clear = pixels(tmp_path / "out/clear.png")
    assert (clear[:, :8, 3] == 0).all() and np.abs(clear[:, 8:24] - (200, 0, 0, 128)).max() <= 1


def test_small_pictures_are_not_enlarged_and_fitting_ones_are_kept_whole(tmp_path: Path) -> None:
    save(tmp_path / "in", "small.png", (20, 10))
    kept = save(tmp_path / "in", "fits.png", (32, 32), "tags")
    save(tmp_path / "in", "smaller square.png", (8, 8))
    report = crop(tmp_path)
    assert names(report.written) == ["fits.png", "small.png", "smaller square.png"]
    assert (tmp_path / "out/fits.png").read_bytes() == kept.read_bytes()
    assert pixels(tmp_path / "out/small.png").shape == (10, 10, 3)
    assert pixels(crop(tmp_path, enlarge=True).written[-1]).shape == (32, 32, 3)


def test_without_shrinking_the_pixels_stay(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png", (100, 50))
    image = pixels(crop(tmp_path, shrink=False).written[0])
    assert np.array_equal(image, np.asarray(stripes(100, 50))[:, 25:75])


def test_turned_and_transparent(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    stripes(50, 100).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in/turned.png", exif=exif)
    Image.new("RGBA", (64, 32), (0, 0, 250, 128)).save(tmp_path / "in/clear.png")
    crop(tmp_path, mode="split")
    assert pixels(tmp_path / "out/turned-top.png")[0, 16, 1] < 10
    assert np.abs(pixels(tmp_path / "out/clear-left.png") - (0, 0, 250, 128)).max() <= 1
    report = crop_folder(tmp_path / "in", tmp_path / "jpeg", CropOptions(width=32, height=32, format="jpeg"))
    flat = pixels(tmp_path / "jpeg/clear.jpg")
    assert names(report.written) == ["clear.jpg", "turned.jpg"] and flat[5, 5] == pytest.approx([127, 127, 252], abs=3)


def test_doing_it_again_writes_only_what_is_missing(tmp_path: Path) -> None:
    save(tmp_path / "in", "a.png", caption="one")
    save(tmp_path / "in", "b.png")
    crop(tmp_path)
    (tmp_path / "out/a.txt").write_text("pruned")
    before = snapshot(tmp_path / "out")
    assert names(crop(tmp_path).skipped) == ["a.png", "b.png"] and snapshot(tmp_path / "out") == before
    (tmp_path / "out/b.png").unlink()
    report = crop(tmp_path)
    assert names(report.written) == ["b.png"] and names(report.skipped) == ["a.png"]
    other = crop(tmp_path, width=16, height=16)
    assert names(other.written) == ["a-2.png", "b-2.png"] and "taken" in other.notes[0].text
    assert (tmp_path / "out/a.png").read_bytes() == before[str(tmp_path / "out/a.png")]
    save(tmp_path / "in", "a.png", (70, 30))
    assert names(crop(tmp_path).written) == ["a-3.png"]


def test_names_never_collide(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "A.webp", "a-left.png", "x.y.z.png", "sub/a.png"):
        save(tmp_path / "in", name, caption=name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "X.y.z-LEFT.txt").write_text("somebody's")
    report = crop(tmp_path, mode="split", recursive=True)
    found = [path.relative_to(tmp_path / "out").as_posix() for path in report.written]
    assert len({path.lower() for path in found}) == len(found) == 12 and not report.failed
    assert {"a-left.png", "a-png-left.png", "A-webp-left.png", "a-left-left.png", "sub/a-left.png"} <= set(found)
    assert "x.y.z-left-2.png" in found and (tmp_path / "out" / "X.y.z-LEFT.txt").read_text() == "somebody's"
    for path in report.written:
        assert read_caption(path).text.split(".")[0].lower() in path.as_posix().lower()


def test_bad_pictures_are_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    save(tmp_path / "in", "good.png")
    (tmp_path / "in/text.jpg").write_text("no picture")
    whole = save(tmp_path / "in", "cut.jpg", (200, 200)).read_bytes()
    (tmp_path / "in/cut.jpg").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "in", "caption.png", caption=b"\0")
    report = crop(tmp_path)
    assert names(report.written) == ["caption.png", "good.png"]
    said = " ".join(text for _, text in report.failed)
    assert len(report.failed) == 2 and "text.jpg holds text" in said and "cut.jpg" in said
    assert "not text" in report.notes[0].text and not list((tmp_path / "out").glob(".dsm-*"))


def test_bad_folders_and_colours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        crop(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        crop(tmp_path)
    save(tmp_path / "in", "a.png")
    with pytest.raises(InputError, match="folder of the originals"):
        crop_folder(tmp_path / "in", tmp_path / "in" / ".", CropOptions())
    with pytest.raises(InputError, match="is not a colour"):
        crop(tmp_path, color="nocolour")
    (tmp_path / "out").write_text("file")
    with pytest.raises(InputError, match="is a file"):
        crop(tmp_path)


def test_an_output_folder_inside_is_not_cropped_again(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    options = CropOptions(width=16, height=16, recursive=True)
    for _ in range(2):
        crop_folder(tmp_path, tmp_path / "DATASET_IMGS", options)
    assert names(list((tmp_path / "DATASET_IMGS").glob("*.png"))) == ["a.png"]


def test_a_stop_keeps_what_is_written(tmp_path: Path) -> None:
    for number in range(40):
        save(tmp_path / "in", f"{number}.png")
    plan = plan_crops(tmp_path / "in", CropOptions(width=16, height=16))
    job = Job("crop", watcher=lambda job: job.cancel())
    with pytest.raises(Cancelled):
        write_plan(plan, tmp_path / "in", tmp_path / "out", CropOptions(), job)
    report = write_plan(plan, tmp_path / "in", tmp_path / "out", CropOptions())
    assert report.skipped and len(report.written) > 5 and not report.notes
    assert names(report.skipped + report.written) == [f"{number}.png" for number in range(40)]


def test_a_plan_is_saved_changed_and_written(tmp_path: Path) -> None:
    save(tmp_path / "in", "猫.png", (100, 50))
    options = CropOptions(width=32, height=32)
    plan = plan_crops(tmp_path / "in", options, hashes=True)
    plan.save(tmp_path / "plan.json")
    assert CropPlan.load(tmp_path / "plan.json") == plan
    data = json.loads((tmp_path / "plan.json").read_text("utf-8"))
    data["items"][0] |= {"mode": "free", "box": [-20, 10, 20, 50], "width": 40, "height": 40, "color": "blue"}
    (tmp_path / "plan.json").write_text(json.dumps(data))
    report = write_plan(CropPlan.load(tmp_path / "plan.json"), tmp_path / "in", tmp_path / "out", options)
    image = pixels(report.written[0])
    assert (image[:, :20] == (0, 0, 255)).all()
    assert np.array_equal(image[:, 20:], np.asarray(stripes(100, 50))[10:50, :20])
    save(tmp_path / "in", "猫.png", (100, 60))
    failed = write_plan(CropPlan.load(tmp_path / "plan.json"), tmp_path / "in", tmp_path / "out", options).failed
    assert "has changed since" in failed[0][1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "../in/b.png"}, "not a path in the source folder"),
        ({"source": "{in}/b.png"}, "not a path in the source folder"),
        ({"source": ""}, "not a path in the source folder"),
        ({"source": "b\0.png"}, "not a path in the source folder"),
        ({"source": "b\ud800.png"}, "not a path in the source folder"),
        ({"part": "/../../escaped"}, "a file name cannot have"),
        ({"part": "../escaped"}, "cannot be a file name"),
        ({"part": "a/../../escaped"}, "a file name cannot have"),
        ({"part": "a\\b"}, "a file name cannot have"),
        ({"part": "x" * 60}, "too long"),
        ({"part": "x\ud800"}, "a file name cannot have"),
        ({"box": [5, 5, 5, 9]}, "is not a box"),
        ({"box": [1]}, "is not a box"),
        ({"color": "x"}, "is not a colour"),
        ({"source": "gone.png"}, "does not exist"),
        ({"box": [200, 0, 300, 50]}, "lies outside"),
        ({"width": 30000, "height": 30000}, "megapixels"),
    ],
)
def test_bad_items_are_reported(tmp_path: Path, change: dict[str, object], said: str) -> None:
    save(tmp_path / "in", "a.png")
    save(tmp_path / "in", "b.png")
    plan_crops(tmp_path / "in", CropOptions(width=32, height=32)).save(tmp_path / "plan.json")
    data = json.loads((tmp_path / "plan.json").read_text())
    here = {"{in}/b.png": f"{tmp_path}/in/b.png"}
    data["items"][0] |= {key: here.get(str(value), value) for key, value in change.items()}
    (tmp_path / "plan.json").write_text(json.dumps(data))
    report = write_plan(CropPlan.load(tmp_path / "plan.json"), tmp_path / "in", tmp_path / "out", CropOptions())
    assert said in report.failed[0][1] and len(report.failed) == 1 and names(report.written) == ["b.png"]
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")} == {
        "in/a.png", "in/b.png", "out/b.png",
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_does_not_lead_out_of_the_output(tmp_path: Path) -> None:
    for name in ("sub/a.png", "b.png"):
        save(tmp_path / "in", name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere")
    report = crop(tmp_path, recursive=True)
    assert names(report.written) == ["b.png"] and "outside" in report.failed[0][1]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_picture_on_another_disk_is_cropped_through_its_link(tmp_path: Path) -> None:
    save(tmp_path / "disk", "a.png", caption="hat")
    before = (tmp_path / "disk/a.png").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").symlink_to(tmp_path / "disk/a.png")
    report = crop(tmp_path)
    assert names(report.written) == ["a.png"] and not report.failed
    assert not (tmp_path / "out/a.png").is_symlink() and (tmp_path / "disk/a.png").read_bytes() == before


@pytest.mark.parametrize("name", ["../elsewhere/a.png", "{tmp}/elsewhere/a.png", "a\0.png", 5])
def test_a_record_that_leads_elsewhere_is_not_believed(tmp_path: Path, name: object) -> None:
    save(tmp_path / "in", "a.png", caption="tags")
    save(tmp_path / "elsewhere", "a.png")
    crop(tmp_path)
    record = tmp_path / "out/.dsm/crops.jsonl"
    entry = json.loads(record.read_bytes().strip().split(b"\n")[0])
    record.write_text(json.dumps({**entry, "name": f"{tmp_path}/elsewhere/a.png" if "{" in str(name) else name}))
    report = crop(tmp_path)
    assert names(report.written) == ["a-2.png"] and not report.skipped
    assert names(list((tmp_path / "elsewhere").iterdir())) == ["a.png"]


def test_failures_name_their_own_files(tmp_path: Path) -> None:
    save(tmp_path / "in", "good.png")
    for name in ("one.jpg", "two.jpg"):
        (tmp_path / "in" / name).write_text("no picture")
    assert [path for path, _ in crop(tmp_path).failed] == [tmp_path / "in/one.jpg", tmp_path / "in/two.jpg"]
    plan = plan_crops(tmp_path / "in", CropOptions(width=32, height=32))
    plan.save(tmp_path / "plan.json")
    assert CropPlan.load(tmp_path / "plan.json").notes == plan.notes and plan.notes[0].source == "one.jpg"


@pytest.mark.parametrize("change", [{"extra": 1}, {"width": 0}, {"box": "all"}])
def test_bad_plans_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    save(tmp_path / "in", "a.png")
    plan_crops(tmp_path / "in", CropOptions()).save(tmp_path / "plan.json")
    data = json.loads((tmp_path / "plan.json").read_text())
    data["items"][0] |= change
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(InputError):
        CropPlan.load(tmp_path / "plan.json")


def profile(space: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


MODES = st.sampled_from(["center", "pad", "split", "keep"])
SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(SIZES, MODES, st.booleans())
def test_planned_sizes(size: tuple[int, int], mode: str, shrink: bool) -> None:
    for item in plan_picture("a.png", size, CropOptions(mode=mode, width=512, height=768, shrink=shrink)):
        box = item.box
        own = box[2] - box[0], box[3] - box[1]
        assert item.width <= own[0] and item.height <= own[1]
        if shrink and mode != "keep" and own[0] >= 512 and own[1] >= 768:
            assert (item.width, item.height) == (512, 768)
        assert item.mode == mode or (mode, item.mode) == ("split", "center")


def test_what_fits_is_kept_only_where_its_file_is_as_wanted(tmp_path: Path) -> None:
    """Each is of exactly the size that is wanted; only one is what would be written."""
    folder = tmp_path / "in"
    folder.mkdir()
    image = stripes(48, 32)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "plain.png", compress_level=1)
    image.save(folder / "named.png", icc_profile=profile("sRGB"), compress_level=1)
    image.save(folder / "other.jpg", quality=95)
    stripes(32, 48).save(folder / "turned.png", exif=turned)
    image.save(folder / "xyz.png", icc_profile=profile("XYZ"))
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    Image.fromarray(np.full((32, 48), 32896, np.uint16)).save(folder / "deep.png")
    image.save(folder / "moving.png", save_all=True, append_images=[image.rotate(180)])
    originals = {path.name: path.read_bytes() for path in folder.iterdir()}
    report = crop_folder(folder, tmp_path / "keep", CropOptions(mode="keep"))
    assert {path.name: path.read_bytes() for path in report.written} == originals
    report = crop_folder(folder, tmp_path / "center", CropOptions(width=48, height=32))
    assert not report.failed and len(report.written) == len(originals) == 8
    kept = {path.name for path in report.written if path.read_bytes() == originals.get(path.name)}
    assert kept == {"plain.png", "named.png"}
    for path in (tmp_path / "center").glob("*.png"):
        with Image.open(path) as written:
            assert (written.format, written.mode, written.size) == ("PNG", "RGB", (48, 32))
    assert (tmp_path / "center/other.png").is_file()


@pytest.mark.parametrize("name", ["cmyk.jpg", "deep.png", "moving.gif"])
def test_odd_kinds_become_plain_srgb(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    if name == "cmyk.jpg":
        Image.new("CMYK", (64, 40), (0, 255, 255, 0)).save(path)
    elif name == "deep.png":
        Image.fromarray(np.full((40, 64), 32896, np.uint16)).save(path)
    else:
        Image.new("RGB", (64, 40), "red").save(path, save_all=True, append_images=[Image.new("RGB", (64, 40))])
    report = crop(tmp_path)
    with Image.open(report.written[0]) as image:
        assert image.mode == "RGB" and image.size == (32, 32) and image.format == "PNG"
        assert image.info.get("icc_profile") is None and not getattr(image, "is_animated", False)
    assert np.abs(pixels(report.written[0])[0, 0] - np.asarray(read_picture(path).image)[0, 0]).max() <= 1


def test_small_pictures_are_padded_to_the_size_where_little_is_missing(tmp_path: Path) -> None:
    save(tmp_path / "in", "near.png", (30, 18))
    save(tmp_path / "in", "tiny.png", (8, 6))
    report = crop(tmp_path, mode="pad", color="#ff00ff")
    near = pixels(report.written[0])
    assert near.shape == (32, 32, 3) and np.array_equal(near[7:25, 1:31], np.asarray(stripes(30, 18)))
    assert (near[:7] == (255, 0, 255)).all() and (near[:, 31] == (255, 0, 255)).all()
    assert pixels(report.written[1]).shape == (8, 8, 3)
    loose = crop_folder(tmp_path / "in", tmp_path / "loose", CropOptions(width=32, height=32, mode="pad", shrink=False))
    assert pixels(loose.written[0]).shape == (30, 30, 3)


def test_a_frame_that_is_nearly_of_the_shape_is_cut_and_not_squashed(tmp_path: Path) -> None:
    """A circle stays one."""
    (tmp_path / "in").mkdir()
    image = Image.new("RGB", (1060, 1000), "white")
    ImageDraw.Draw(image).ellipse((130, 100, 930, 900), fill="black")
    image.save(tmp_path / "in" / "a.png")
    for name, box in (("inside", (0, 0, 1060, 1000)), ("padded", (-530, -450, 1590, 1550))):
        plan = CropPlan(items=(CropItem(source="a.png", mode="free", box=box, width=500, height=500, part=name),))
        report = write_plan(plan, tmp_path / "in", tmp_path / "out", CropOptions())
        dark = np.argwhere(pixels(report.written[0])[..., 0] < 128)
        high, wide = dark.max(axis=0) - dark.min(axis=0)
        assert abs(high - wide) <= 1 and high > 150
