"""What tagging costs beside the network: against a plain loop, against the network alone, in memory, and once more.

Run: `OMP_NUM_THREADS=1 python -m tests.benchmarks.tagging [--pictures 1000] [--network-pictures 24]`. The pictures are
JPEGs of 2 to 12 megapixels, drawn and grained so that they weigh what photographs do. All ratios are of two things
measured in one run:

* the plain loop (open, composite, pad, resize, run, write, one picture after the other) over tagging the folder, with a
  network that costs next to nothing
* the peak memory of a process that tags all of the pictures, over that of one that tags a quarter of them
* tagging with a network of a real one's size, over that network alone on pictures that are ready
* a new threshold for all pictures, by the captions it would write and in the page's counts, over the first time
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lib_dsm.tagging.live import Live
from lib_dsm.tagging.members import Members
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.run import tag_folder
from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.session import Tagger
from lib_dsm.tagging.store import score_store
from tests.tagging.reference import reference

SIDE = 448
DRAWN = 16  # different pictures; the others differ in a few bytes only, which makes them others all the same
TAGS = 1000
BLOCKS = 100  # 46 billion multiplications a picture, between the smallest and the middle ones of the WD1.4 taggers
MODEL = "model.onnx"


def draw(folder: Path, count: int) -> None:
    """JPEGs of 2 to 12 megapixels in the proportions of cameras and drawings."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(min(DRAWN, count)):
        pixels = (2 + 10 * number / (DRAWN - 1)) * 1e6
        shape = [4 / 3, 3 / 4, 3 / 2, 1.0][number % 4]
        size = round((pixels * shape) ** 0.5), round((pixels / shape) ** 0.5)
        rough = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        image = Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (size[1], size[0], 1)).astype(np.float32)
        image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
        image.save(folder / "drawn.jpg", quality=90)
        drawn.append((folder / "drawn.jpg").read_bytes())
    (folder / "drawn.jpg").unlink()
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(drawn[number % len(drawn)] + number.to_bytes(4, "big"))


def write_network(folder: Path, blocks: int) -> Path:
    """A tagger in the WD1.4 layout: a matrix of the mean colour, or of what so many wide convolutions make of it."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    lines = ["tag_id,name,category,count", *(f"{number},tag_{number},0,1" for number in range(TAGS))]
    (folder / "selected_tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    initial, nodes = [], [helper.make_node("Transpose", ["x"], ["y0"], perm=[0, 3, 1, 2])]
    width = 3
    if blocks:
        initial.append(numpy_helper.from_array(rng.normal(0, 0.02, (256, 3, 16, 16)).astype(np.float32), "stem"))
        nodes.append(helper.make_node("Conv", ["y0", "stem"], ["z0"], strides=[16, 16]))
        nodes.append(helper.make_node("Tanh", ["z0"], ["y1"]))
        width = 256
        for number in range(1, blocks + 1):
            kernel = rng.normal(0, 0.02, (256, 256, 3, 3)).astype(np.float32)
            initial.append(numpy_helper.from_array(kernel, f"w{number}"))
            nodes.append(helper.make_node("Conv", [f"y{number}", f"w{number}"], [f"z{number}"], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("Tanh", [f"z{number}"], [f"y{number + 1}"]))
    last = nodes[-1].output[0]
    weights = rng.normal(0, 0.02 if blocks else 1e-3, (width, TAGS)).astype(np.float32)
    initial += [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.full(TAGS, -1.5, np.float32), "b")]
    nodes += [
        helper.make_node("ReduceMean", [last], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["mean", "w", "b"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
    ]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
              for name, shape in (("x", ["N", SIDE, SIDE, 3]), ("scores", ["N", TAGS]))]  # fmt: skip
    graph = helper.make_graph(nodes, "tagger", shapes[:1], shapes[1:], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(folder / MODEL))
    return folder


def plain_loop(pictures: list[Path], tagger: Tagger, out: Path) -> None:
    """What a script does: one picture after the other, everything at full size."""
    out.mkdir()
    for path in pictures:
        scores = tagger.scores(reference(path, SIDE)[np.newaxis])[0]
        tags = [tagger.labels.names[place] for place in np.argsort(-scores) if scores[place] >= 0.35]
        (out / path.with_suffix(".txt").name).write_text(", ".join(tags).replace("_", " "), encoding="utf-8")


def peak(folder: Path, model: Path, cache: Path, limit: int) -> int:
    """Megabytes that a process of its own needs at most to tag the first `limit` pictures."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.tagging",
        "--child",
        str(folder),
        str(model),
        str(cache),
        str(limit),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


def child(folder: Path, model: Path, cache: Path, limit: int) -> None:
    some = cache / "some"
    some.mkdir(parents=True)
    for path in sorted(folder.glob("*.jpg"))[:limit]:
        (some / path.name).hardlink_to(path)
    tag_folder(some, TagOptions(model=str(model)), cache)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def network_alone(pictures: list[Path], tagger: Tagger) -> float:
    """Seconds that the network takes for these pictures when they are ready."""
    ready = np.stack([reference(path, SIDE).astype(np.uint8) for path in pictures])
    size = tagger.good_batch()
    began = time.perf_counter()
    for start in range(0, len(ready), size):
        tagger.scores(ready[start : start + size])
    return time.perf_counter() - began


def live(root: Path, count: int) -> tuple[float, float]:
    """Seconds to take up the scores of so many pictures, and for the counts of one new threshold among them.

    As many scores of at least 0.01 a picture as the WD1.4 taggers give, about 150, of 10,861 tags.
    """
    rng = np.random.default_rng(2)
    folder, model = root / "many", root / "wide"
    folder.mkdir()
    write_network(model, 0)
    names = [f"tag_{number}" for number in range(10_861)]
    (model / "selected_tags.csv").write_text(
        "\n".join(["tag_id,name,category,count", *(f"{place},{name},0,1" for place, name in enumerate(names))]), "utf-8"
    )
    options = TagOptions(model=str(model))
    with score_store(root / "cache-many") as store:
        member = Members(options, root, store).all[0]
        store.note(member.content, {"side": SIDE, "layout": "wd"})
        common = rng.zipf(1.3, (count, 150)) % len(names)
        rows = []
        for number in range(count):
            path = folder / f"{number:05d}.png"
            path.write_bytes(number.to_bytes(4, "big"))
            places = np.unique(common[number]).astype(np.uint32)
            levels = (rng.beta(0.5, 1.5, len(places)) * 64_000 + 700).astype(np.uint16)
            rows.append((store.digest(path), Scores(places, levels)))
        store.put(member.key, rows)
    began = time.perf_counter()
    taken = Live.read(folder, options, root / "cache-many")
    read = time.perf_counter() - began
    assert len(taken.pictures) == count
    taken.counts(options)
    began = time.perf_counter()
    for step in range(10):
        taken.counts(dataclasses.replace(options, threshold=0.2 + 0.05 * step))
    return read, (time.perf_counter() - began) / 10


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--plain", type=int, default=100, help="pictures for the plain loop, which takes long")
    parser.add_argument("--network-pictures", type=int, default=24)
    parser.add_argument("--many", type=int, default=5000, help="pictures whose counts are made live")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, model, cache = map(Path, options.child[:3])
        child(folder, model, cache, int(options.child[3]))
        return
    with tempfile.TemporaryDirectory(prefix="dsm-tagging-") as name:
        root = Path(name)
        draw(root / "pictures", options.pictures)
        pictures = sorted((root / "pictures").glob("*.jpg"))
        small = write_network(root / "small", 0)
        few = pictures[: options.plain]
        began = time.perf_counter()
        plain_loop(few, Tagger(small), root / "plain")
        plain = (time.perf_counter() - began) / len(few)
        chosen = TagOptions(model=str(small))
        began = time.perf_counter()
        report = tag_folder(root / "pictures", chosen, root / "cache")
        first = time.perf_counter() - began
        assert len(report.written) == len(pictures)
        ours = first / len(pictures)
        print(f"plain loop {1000 * plain:.1f} ms a picture ({len(few)}), tagging the folder {1000 * ours:.1f} ms "
              f"({len(pictures)}): ratio {plain / ours:.2f}")  # fmt: skip

        again = TagOptions(model=str(small), threshold=0.3, on_existing="replace")
        began = time.perf_counter()
        tag_folder(root / "pictures", again, root / "cache", dry_run=True)
        second = time.perf_counter() - began
        print(f"all {len(pictures)} captions for a new threshold {second:.2f} s: ratio {second / first:.4f}")

        read, counted = live(root, options.many)
        print(
            f"{options.many} pictures' scores taken up in {read:.2f} s, counted for a new threshold in "
            f"{1000 * counted:.0f} ms: ratio {counted / (ours * options.many):.6f} of looking at them"
        )

        many, quarter = (peak(root / "pictures", small, root / f"cache-{count}", count)
                         for count in (len(pictures), len(pictures) // 4))  # fmt: skip
        print(f"peak memory {many} MB for {len(pictures)}, {quarter} MB for a quarter: ratio {many / quarter:.3f}")

        large = write_network(root / "large", BLOCKS)
        (root / "few").mkdir()
        for path in pictures[: options.network_pictures]:
            (root / "few" / path.name).hardlink_to(path)
        alone = network_alone(pictures[: options.network_pictures], Tagger(large))
        tagger_started = time.perf_counter()
        Tagger(large)
        loading = time.perf_counter() - tagger_started
        began = time.perf_counter()
        tag_folder(root / "few", TagOptions(model=str(large)), root / "cache-large")
        together = time.perf_counter() - began - loading
        each = alone / options.network_pictures
        print(f"network alone {each:.2f} s a picture, tagging {together / options.network_pictures:.2f} s: "
              f"ratio {together / alone:.3f}, loading left out")  # fmt: skip


if __name__ == "__main__":
    main()
