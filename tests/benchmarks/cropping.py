"""Cropping: opening a large picture, and many crops of large JPEGs against a plain loop in the same run, with memory.

Run: `python -m tests.benchmarks.cropping [--crops 1000] [--sources 20]`. The plain loop opens each file, turns it
upright, crops, scales by Lanczos and saves a PNG, one after the other, which is what a short script does. Both write
the same crops; how far they differ is told. Memory is what the process holds at the most, above what it held before.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lib_dsm.cropping.plan import CropItem, CropOptions, CropPlan
from lib_dsm.cropping.write import write_plan
from lib_dsm.dataset.pictures import thumbnail_bytes

STAGE = 1400  # pixels of the longer side that the page asks for
LARGE, USUAL = (6000, 4000), (4000, 3000)
BOX = (500, 0, 3500, 3000)
SIDE = 512


def photograph(size: tuple[int, int], seed: int) -> Image.Image:
    """Something with about a photograph's detail: soft shapes, and grain of half the pixels' fineness."""
    random = np.random.default_rng(seed)
    layers = []
    for scale in (12, size[0] // 2):
        pixels = random.integers(0, 256, (max(2, size[1] * scale // size[0]), scale, 3), np.uint8)
        layers.append(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return Image.blend(layers[0], layers[1], 0.15)


class Memory:
    """The most memory that the process holds while this is open, above what it held before, in MB."""

    def __enter__(self) -> Memory:
        self._stop = threading.Event()
        self._before = self.most = self._now()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.most -= self._before

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6


def plain(sources: list[Path], out: Path) -> None:
    """The loop that a script would have."""
    for path in sources:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.crop(BOX).resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(out / f"{path.stem}.png")


def opening(folder: Path) -> None:
    """How long the page waits for a picture of 24 megapixels that was never seen before."""
    image = photograph(LARGE, 0)
    for name, how in (
        ("a.jpg", {"quality": 92}),
        ("progressive.jpg", {"quality": 92, "progressive": True}),
        ("a.png", {}),
    ):
        path = folder / name
        image.save(path, **how)
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            thumbnail_bytes(path, STAGE)
            times.append(time.perf_counter() - begin)
        print(f"open {name:16} {LARGE[0]}×{LARGE[1]}: {statistics.median(times):.3f} s  (best {min(times):.3f})")


def crops(folder: Path, count: int, distinct: int) -> None:
    """Crops against the plain loop."""
    found, source = folder / "found", folder / "in"
    found.mkdir()
    source.mkdir()
    for number in range(min(distinct, count)):
        photograph(USUAL, number).save(found / f"{number}.jpg", quality=92)
    sources = []
    for number in range(count):
        path = source / f"{number:05d}.jpg"
        path.hardlink_to(found / f"{number % min(distinct, count)}.jpg")
        sources.append(path)
    options = CropOptions(width=SIDE, height=SIDE)
    plan = CropPlan(
        items=tuple(CropItem(source=path.name, mode="free", box=BOX, width=SIDE, height=SIDE) for path in sources)
    )
    (folder / "plain").mkdir()
    times: dict[str, float] = {}
    memory: dict[str, float] = {}
    for name in ("plain", "ours"):
        begin = time.perf_counter()
        with Memory() as used:
            if name == "plain":
                plain(sources, folder / "plain")
            else:
                report = write_plan(plan, source, folder / "ours", options)
                assert len(report.written) == count
        times[name], memory[name] = time.perf_counter() - begin, used.most
        print(f"{name:5} {count} crops: {times[name]:7.2f} s, {1000 * times[name] / count:6.1f} ms each, "
              f"{memory[name]:5.0f} MB more")  # fmt: skip
    print(f"ratio {times['plain'] / times['ours']:.2f}")
    far = []
    for path in sources[: min(distinct, count)]:
        with (
            Image.open(folder / "plain" / f"{path.stem}.png") as one,
            Image.open(folder / "ours" / f"{path.stem}.png") as two,
        ):
            far.append(np.abs(np.asarray(one).astype(int) - np.asarray(two)).mean())
    print(f"mean difference {max(far):.2f} levels of 255")
    again = time.perf_counter()
    report = write_plan(plan, source, folder / "ours", options)
    assert len(report.skipped) == count
    print(f"once more, all there: {time.perf_counter() - again:.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--sources", type=int, default=20, help="different pictures; the rest are links to them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        opening(Path(name))
        crops(Path(name), arguments.crops, arguments.sources)


if __name__ == "__main__":
    main()
