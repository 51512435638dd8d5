"""Pictures that taggers get wrong: transparent, turned, very long, tiny, large, grey, with palettes."""

import random
from pathlib import Path

from PIL import Image

from lib_dsm.demo import world

_ORIENTATION = 0x0112


def draw(folder: Path) -> list[Path]:
    """Write them and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    made: list[Path] = []

    def picture(width: int, height: int) -> Image.Image:
        # Drawn as large as the micro tagger knows them and then enlarged, so that it is as sure of them as of its own.
        drawn = (96, 64) if width > height else (64, 96) if height > width else (64, 64)
        image = world.render(world.sample_seen(rng), *drawn, rng)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def save(name: str, image: Image.Image, **how: object) -> None:
        image.save(folder / name, **how)  # type: ignore[arg-type]
        made.append(folder / name)

    for turn in range(1, 9):
        exif = Image.Exif()
        exif[_ORIENTATION] = turn
        save(f"turned-{turn}.jpg", picture(900, 600), quality=92, exif=exif)
    large = picture(2600, 1900)
    save("large.jpg", large, quality=92)
    save("large.webp", large, quality=92)
    save("large.png", large)
    fading = picture(700, 500).convert("RGBA")
    fading.putalpha(Image.linear_gradient("L").resize(fading.size))
    save("alpha.png", fading)
    clear = picture(400, 400).convert("RGBA")
    clear.putalpha(clear.convert("L").point(lambda value: 0 if value > 240 else 255))
    save("cut-out.png", clear)
    save("palette.png", picture(500, 500).quantize(64))
    save("grey.jpg", picture(800, 500).convert("L"), quality=92)
    long = Image.new("RGB", (4000, 400), "white")
    for number in range(10):
        long.paste(picture(400, 400), (400 * number, 0))
    save("wide.jpg", long, quality=92)
    save("tall.png", long.transpose(Image.Transpose.ROTATE_90))
    save("line.png", long.resize((4000, 10)))
    save("tiny.png", picture(400, 400).resize((30, 24)))
    return made
