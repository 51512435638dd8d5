"""What is found in a set whose flaws are known, and that setting aside loses nothing."""

import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from lib_dsm.cropping.cleaning import CleanOptions, find_flaws, set_aside, sharpness, text_share
from lib_dsm.dataset import history
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.dataset.pictures import Picture, read_picture
from lib_dsm.errors import InputError

OPTIONS = CleanOptions(small=100)


def drawing(seed: int, size: tuple[int, int] = (240, 200)) -> Image.Image:
    random = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(random.integers(120, 255, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        x, y = random.integers(0, size[0] - 40), random.integers(0, size[1] - 40)
        box = (int(x), int(y), int(x + random.integers(20, 90)), int(y + random.integers(20, 90)))
        draw.rectangle(box, fill=tuple(random.integers(0, 255, 3).tolist()))
    return image


def writing(size: tuple[int, int] = (300, 300)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for line in range(4, size[1], 12):
        draw.text((4, line), "Lorem ipsum dolor sit amet, consectetur elit, sed do", fill="black")
    return image


def flaws(folder: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for flaw in find_flaws(list_pictures(folder)[0], OPTIONS).flaws:
        found.setdefault(flaw.path.name, set()).add(flaw.kind)
    return found


def test_each_flaw_is_found_and_nothing_else(tmp_path: Path) -> None:
    drawing(1).save(tmp_path / "good.png")
    drawing(2).save(tmp_path / "other.png")
    drawing(1, (240, 200)).resize((120, 100)).save(tmp_path / "copy.jpg", quality=80)
    drawing(3).filter(ImageFilter.GaussianBlur(9)).save(tmp_path / "soft.png")
    drawing(4, (90, 80)).save(tmp_path / "tiny.png")
    drawing(5, (800, 200)).save(tmp_path / "banner.png")
    writing().save(tmp_path / "page.png")
    (tmp_path / "broken.png").write_text("no picture")
    assert flaws(tmp_path) == {
        "copy.jpg": {"duplicate"}, "soft.png": {"blurred"}, "tiny.png": {"small"}, "banner.png": {"long"},
        "page.png": {"text"}, "broken.png": {"broken"},
    }  # fmt: skip
    (flaw,) = [flaw for flaw in find_flaws(list_pictures(tmp_path)[0], OPTIONS).flaws if flaw.kind == "duplicate"]
    assert flaw.like == tmp_path / "good.png" and "good.png" in flaw.text


def test_of_many_copies_one_is_kept(tmp_path: Path) -> None:
    for side in (120, 240, 200, 160):
        drawing(1).resize((side, side)).save(tmp_path / f"{side}.png")
    found = {flaw.path.name: flaw.like for flaw in find_flaws(list_pictures(tmp_path)[0], OPTIONS).flaws}
    assert found == dict.fromkeys(("120.png", "160.png", "200.png"), tmp_path / "240.png")


def test_measures_order_pictures_as_the_eye_does() -> None:
    sharp = drawing(7)
    blurred = [sharpness(sharp.filter(ImageFilter.GaussianBlur(radius))) for radius in (1, 3, 9)]
    assert sharpness(sharp) > blurred[0] > blurred[1] > blurred[2]
    half = drawing(7, (300, 300))
    half.paste(writing().crop((0, 0, 300, 150)), (0, 0))
    assert text_share(writing()) > text_share(half) > text_share(drawing(7, (300, 300)))


def test_setting_aside_can_be_undone(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "b.jpg"):
        drawing(1).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("tags")
    (tmp_path / "b.txt").write_text("of both")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    set_aside(tmp_path, ["a.png", "b.png"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b.jpg", "b.txt"]
    assert (tmp_path / ".dsm/removed/a.txt").read_text() == "tags"
    history.undo(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    for bad in ("gone.png", "../x.png"):
        with pytest.raises(InputError):
            set_aside(tmp_path, [bad])


def duplicates(folder: Path) -> dict[str, tuple[str, str]]:
    """For each duplicate what it is like, and what is said."""
    found = find_flaws(list_pictures(folder)[0], OPTIONS).flaws
    return {flaw.path.name: (flaw.like.name, flaw.text) for flaw in found if flaw.like is not None}


def test_hundreds_of_copies_are_all_found(tmp_path: Path) -> None:
    for number in range(150):
        drawing(number % 2, (96, 80)).save(tmp_path / f"{number:03d}.png")
    assert len(duplicates(tmp_path)) == 148


def test_a_copy_is_one_of_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture of a row is like the next; the first and the third are not alike, and both stay."""
    edges = {"a.png": (0, 400), "b.png": (35, 435), "c.png": (70, 470)}  # 0.84 of neighbours agree, 0.7 of the ends
    known = {}
    for name, (first, last) in edges.items():
        bits = np.zeros(960, np.uint8)
        bits[first:last] = 1
        known[name] = np.packbits(bits).tobytes() + bytes(48)
        drawing(1, (96 - 16 * len(known), 80)).save(tmp_path / name)
    order = iter(sorted(edges))
    monkeypatch.setattr("lib_dsm.cropping.cleaning.look", lambda _: known[next(order)])
    monkeypatch.setattr("lib_dsm.cropping.pool.os.cpu_count", lambda: 1)
    found = duplicates(tmp_path)
    assert found == {"b.png": ("a.png", "84 % like a.png, which is kept.")}


@pytest.mark.parametrize("make", [drawing, lambda _: rocks()], ids=["drawing", "photograph"])
def test_an_enlarged_copy_loses_to_its_original(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    original = make(1)
    original.save(tmp_path / "original.png")
    twice = (2 * original.width, 2 * original.height)
    original.resize(twice, Image.Resampling.BICUBIC).save(tmp_path / "larger.png")
    original.resize(twice).filter(ImageFilter.GaussianBlur(2)).save(tmp_path / "soft.jpg", quality=90)
    original.resize((original.width // 2, original.height // 2)).save(tmp_path / "smaller.png")
    assert {name: like for name, (like, _) in duplicates(tmp_path).items()} == dict.fromkeys(
        ("larger.png", "soft.jpg", "smaller.png"), "original.png"
    )


def rocks() -> Image.Image:
    """Detail of all sizes, as photographs have it."""
    random = np.random.default_rng(4)
    levels = np.zeros((256, 256))
    for side in (4, 8, 16, 32, 64, 128, 256):
        layer = Image.fromarray(random.normal(0, 40 / side**0.5, (side, side)).astype(np.float32))
        levels += np.asarray(layer.resize((256, 256), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(128 + 2 * levels, 0, 255).astype(np.uint8)).convert("RGB")


def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        find_flaws(pictures[:count], OPTIONS)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    pictures = [tmp_path / f"{number}.jpg" for number in range(160)]
    for number, path in enumerate(pictures):
        drawing(number, (320, 240)).save(path)
    peak(2)  # what is only imported now counts for neither
    assert peak(160) - peak(60) < 100 * 10_000  # a picture of 320 pixels a side has over 70,000


def test_large_pictures_are_not_read_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(pictures):
        drawing(number, (300, 200)).save(path)
    lock, now, most = threading.Lock(), 0, 0

    def read(path: Path, **how: int) -> Picture:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        picture = read_picture(path, **how)
        with lock:
            now -= 1
        return picture

    monkeypatch.setattr("lib_dsm.cropping.cleaning.read_picture", read)
    monkeypatch.setattr("lib_dsm.cropping.cleaning.MAX_PIXELS", 130_000)
    monkeypatch.setattr("lib_dsm.cropping.pool.os.cpu_count", lambda: 8)
    assert len(find_flaws(pictures, OPTIONS).sizes) == 8
    assert most == 2


def test_pale_is_not_blurred(tmp_path: Path) -> None:
    """Each in full and in pale colours: the same is said of both."""
    for number in range(6):
        soft = drawing(number, (480, 400)).filter(ImageFilter.GaussianBlur(9))
        for name, picture, paler in (("sharp", drawing(number, (480, 400)), 16), ("soft", soft, 2)):
            picture.save(tmp_path / f"{name}-{number}.png")
            picture.point([100 + level // paler for level in range(256)] * 3).save(
                tmp_path / f"{name}-pale-{number}.png"
            )
    blurred = {name for name, kinds in flaws(tmp_path).items() if "blurred" in kinds}
    assert blurred == {f"{name}-{number}.png" for name in ("soft", "soft-pale") for number in range(6)}


def test_a_caption_of_two_stays_in_folders_inside(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "b.jpg"):
        drawing(1).save(tmp_path / "sub" / name)
    (tmp_path / "sub/b.txt").write_text("of both")
    set_aside(tmp_path, ["sub/b.png"])
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["b.jpg", "b.txt"]
