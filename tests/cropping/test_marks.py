"""A mark that pictures share is found on those that bear it, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from lib_dsm.cropping.cleaning import MARKED, CleanOptions, find_flaws
from lib_dsm.dataset.listing import list_pictures
from tests.cropping.test_cleaning import drawing

SIZE = (640, 480)


def marked(image: Image.Image, place: tuple[int, int], strength: int) -> Image.Image:
    """The picture with half-transparent writing."""
    layer = Image.new("RGBA", image.size, (255, 255, 255, 0))
    ImageDraw.Draw(layer).text(place, "example.net", (255, 255, 255, strength), ImageFont.load_default(34))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def photograph(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    layers = [
        Image.fromarray(random.integers(0, 256, (side * 3 // 4, side, 3), np.uint8)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        for side in (8, 40, 320)
    ]
    return Image.blend(Image.blend(layers[0], layers[1], 0.4), layers[2], 0.25)


def found(folder: Path) -> dict[str, str]:
    flaws = find_flaws(list_pictures(folder)[0], CleanOptions(small=16)).flaws
    return {flaw.path.name: flaw.text for flaw in flaws if flaw.kind == MARKED}


@pytest.mark.parametrize("make", [photograph, lambda seed: drawing(seed, SIZE)], ids=["photographs", "drawings"])
def test_a_shared_mark_is_found_on_those_that_bear_it(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    for number in range(16):
        picture = make(number)
        if number < 11:
            picture = marked(picture, (430, 420), 150)
        picture.save(tmp_path / f"{number:02d}.jpg", quality=90)
    told = found(tmp_path)
    assert set(told) == {f"{number:02d}.jpg" for number in range(11)}
    assert told["00.jpg"] == "11 of the 16 pictures of its size have the same mark, bottom right."


def test_what_the_pictures_are_about_is_no_mark(tmp_path: Path) -> None:
    """A character that stands in the middle of all pictures, and copies of one picture."""
    for number in range(12):
        picture = Image.new("RGB", SIZE, tuple(np.random.default_rng(number).integers(150, 255, 3).tolist()))
        ImageDraw.Draw(picture).ellipse((240, 120, 400, 400), fill="navy")
        ImageDraw.Draw(picture).rectangle((270, 400, 370, 480), fill="maroon")
        picture.save(tmp_path / f"{number:02d}.png")
        photograph(1).save(tmp_path / f"copy-{number:02d}.png")
    assert found(tmp_path) == {}


def sprite(seed: int, shift: int = 0, hat: str = "#301818") -> Image.Image:
    """A figure on its own ground in its own colours, with one hat and one pair of shoes."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (480, 640), colour(random, 120))
    draw = ImageDraw.Draw(image)
    x, y = random.integers(-shift, shift + 1, 2).tolist()

    def at(left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        return left + x, top + y, right + x, bottom + y

    draw.ellipse(at(200, 130, 280, 210), fill=colour(random, 180))
    for box in ((190, 210, 290, 420), (200, 420, 235, 560), (250, 420, 285, 560)):
        draw.rectangle(at(*box), fill=colour(random))
    draw.ellipse(at(170, 60, 310, 140), fill=hat)
    draw.rectangle(at(150, 120, 330, 140), fill=hat)
    for left in (180, 250):
        draw.rectangle(at(left, 560, left + 55, 590), fill="#101040")
    return image


def bust(seed: int) -> Image.Image:
    """Head and shoulders with one badge."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (480, 480), colour(random, 100))
    draw = ImageDraw.Draw(image)
    draw.ellipse((160, 60, 320, 260), fill=colour(random, 150))
    draw.rectangle((90, 280, 390, 480), fill=colour(random))
    draw.regular_polygon((335, 428, 28), 5, fill="gold", outline="black")
    draw.ellipse((326, 420, 342, 436), fill="red")
    return image


def mount(seed: int) -> Image.Image:
    image = Image.new("RGB", (SIZE[0] + 80, SIZE[1] + 80), "white")
    image.paste(photograph(seed), (40, 40))
    return image


def novel(seed: int) -> Image.Image:
    """A scene over which what is said stands in a box, with the name of who says it."""
    random = np.random.default_rng(seed)
    image = photograph(seed)
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((30, 370, 610, 465), 12, fill="#141440", outline="white", width=3)
    draw.rounded_rectangle((30, 340, 150, 368), 6, fill="#401414", outline="white", width=2)
    font = ImageFont.load_default(18)
    draw.text((45, 344), str(random.choice(["Ann", "Bob", "Cleo"])), "white", font)
    for row in range(3):
        draw.text((50, 385 + 24 * row), " ".join(random.choice(WORDS, 9)), "white", font)
    return image


WORDS = ["the", "long", "night", "was", "over", "at", "last"]


def colour(random: np.random.Generator, low: int = 0) -> tuple[int, ...]:
    return tuple(random.integers(low, 255, 3).tolist())


ABOUT = {
    "hat and shoes": sprite, "moved": lambda seed: sprite(seed, 6), "badge": bust, "mount": mount, "text box": novel,
}  # fmt: skip


@pytest.mark.parametrize("make", ABOUT.values(), ids=ABOUT)
def test_what_characters_and_their_pages_share_is_no_mark(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    for number in range(16):
        make(number).save(tmp_path / f"{number:02d}.jpg", quality=92)
    assert found(tmp_path) == {}
    for number in range(16):
        picture = make(number)
        place = (picture.width - 300, 70) if make is mount else (picture.width - 240, 8)
        marked(picture, place, 200).save(tmp_path / f"{number:02d}.jpg", quality=92)
    told = found(tmp_path)
    assert len(told) == 16 and set(told.values()) == {
        "16 of the 16 pictures of its size have the same mark, top right. It is a hint: what nearly all have may be "
        "what they show."
    }


def test_few_pictures_or_pictures_of_many_sizes_share_nothing(tmp_path: Path) -> None:
    for number in range(7):
        marked(photograph(number), (430, 420), 255).save(tmp_path / f"{number}.png")
    for number in range(8):
        photograph(number + 9).resize((500 + 20 * number, 400)).save(tmp_path / f"odd-{number}.png")
    assert found(tmp_path) == {}


def test_what_the_caption_says_counts(tmp_path: Path) -> None:
    photograph(1).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("1girl, Web_Address, smile, signature")
    photograph(2).save(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("1girl, smile")
    assert found(tmp_path) == {"a.png": "Its caption has Web_Address, signature."}
