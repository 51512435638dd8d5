import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from lib_dsm.dataset.history import history, undo
from lib_dsm.errors import Cancelled, InputError
from lib_dsm.jobs import Job
from lib_dsm.options import from_json, specs, to_json
from lib_dsm.tagging.members import Shelf
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.run import tag_folder, tag_picture
from lib_dsm.tagging.session import Tagger

CONSTANT = ["miku \\(vocaloid\\)", "^_^", "hat \\(felt\\)"]


def save(path: Path, color: str, size: tuple[int, int] = (32, 32), **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **how)  # type: ignore[arg-type]
    return path


def caption(picture: Path) -> list[str]:
    return picture.with_suffix(".txt").read_text("utf-8").split(", ")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    save(tmp_path / "set" / "red 猫.PNG", "red")
    save(tmp_path / "set" / "it's blue.jpg", "blue")
    save(tmp_path / "set" / "wide.red.png", "red", (32, 8))
    return tmp_path / "set"


def run(folder: Path, model: Path, job: Job | None = None, **how: object) -> dict[str, list[str]]:
    report = tag_folder(folder, TagOptions(model=str(model), **how), folder / "cache", job)  # type: ignore[arg-type]
    return {
        "written": [path.name for path in report.written],
        "skipped": [path.name for path in report.skipped],
        "failed": [path.name for path, _ in report.failed],
    }


def test_colours_padding_and_spelling(pictures: Path, tagger_folder: Path) -> None:
    job = Job("tag")
    report = tag_folder(pictures, TagOptions(model=str(tagger_folder)), pictures / "cache", job)
    assert len(report.written) == 3 and not report.failed and (job.done, job.total) == (3, 3)
    assert caption(pictures / "red 猫.PNG") == ["red tint", "red middle", *CONSTANT]
    assert caption(pictures / "it's blue.jpg") == ["blue tint", "bright corner", *CONSTANT]
    assert caption(pictures / "wide.red.png")[:3] == ["red tint", "bright corner", "red middle"]
    assert "blue tint" in caption(pictures / "wide.red.png")  # three quarters of the square are white


def test_a_single_picture(pictures: Path, tagger_folder: Path) -> None:
    found = tag_picture(pictures / "red 猫.PNG", TagOptions(model=str(tagger_folder)), pictures)
    assert found.tags == ["red tint", "red middle", *CONSTANT] and found.rating == "sensitive"
    assert found.scores["red_tint"] == pytest.approx(1.0, abs=1e-5)
    assert not list(pictures.glob("*.txt"))


def test_turned_and_transparent_pictures(tmp_path: Path, tagger_folder: Path) -> None:
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    image.save(tmp_path / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = Image.new("RGB", (32, 32), "black")
    halves.paste("white", (0, 16, 32, 32))  # the bottom half as stored is the left one as seen
    halves.save(tmp_path / "turned.png", exif=exif)
    options = TagOptions(model=str(tagger_folder))
    assert tag_picture(tmp_path / "clear.png", options, tmp_path).scores["green_tint"] == pytest.approx(1.0, abs=1e-5)
    assert "bright_corner" in tag_picture(tmp_path / "turned.png", options, tmp_path).scores


def test_bad_pictures_and_captions_are_reported_and_the_rest_goes_on(pictures: Path, tagger_folder: Path) -> None:
    (pictures / "text.jpg").write_text("no picture")
    whole = (pictures / "it's blue.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    save(pictures / "binary.png", "red").with_suffix(".txt").write_bytes(b"\0\1")
    save(pictures / "it's blue.png", "red")
    assert run(pictures, tagger_folder, batch=2, on_existing="replace") == {
        "written": ["it's blue.jpg", "red 猫.PNG", "wide.red.png"],
        "skipped": [],
        "failed": ["it's blue.png", "binary.png", "cut.jpg", "text.jpg"],
    }
    assert (pictures / "binary.txt").read_bytes() == b"\0\1"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("skip", "髪, red_tint\n"),
        ("append", "髪, red_tint, ^_^\n"),
        ("prepend", "^_^, 髪, red_tint\n"),
        ("replace", "red tint, ^_^\n"),
    ],
)
def test_existing_captions(tmp_path: Path, tagger_folder: Path, how: str, expected: str) -> None:
    raw = "髪, red_tint\n".encode("cp932")
    save(tmp_path / "a.png", "red").with_suffix(".txt").write_bytes(raw)
    save(tmp_path / "empty.png", "red").with_suffix(".txt").write_bytes(b"")
    run(tmp_path, tagger_folder, on_existing=how, only=("red tint", "^_^"))
    encoding = "cp932" if how == "skip" else "utf-8"
    assert (tmp_path / "a.txt").read_bytes().decode(encoding) == expected
    assert (tmp_path / "empty.txt").read_text() == "red tint, ^_^"
    undo(tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == raw and (tmp_path / "empty.txt").read_bytes() == b""


def test_a_caption_written_meanwhile_is_skipped_too(
    pictures: Path, tagger_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Tagger.scores

    def writing(tagger: Tagger, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        (pictures / "it's blue.txt").write_text("by hand", "utf-8")
        (pictures / "wide.red.txt").write_text("\n", "utf-8")
        return original(tagger, batch)

    monkeypatch.setattr(Tagger, "scores", writing)
    assert run(pictures, tagger_folder) == {
        "written": ["red 猫.PNG", "wide.red.png"],
        "skipped": ["it's blue.jpg"],
        "failed": [],
    }
    assert caption(pictures / "it's blue.jpg") == ["by hand"]


def test_a_stop_loses_nothing_and_a_second_run_goes_on(tmp_path: Path, tagger_folder: Path) -> None:
    for number in range(7):
        save(tmp_path / f"{number}.png", f"rgb(255, 0, {number})")

    def stop(job: Job) -> None:
        if job.done >= 4:
            job.cancel()

    job = Job("tag", watcher=stop)
    with pytest.raises(Cancelled):
        run(tmp_path, tagger_folder, job, batch=2)
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["0.txt", "1.txt", "2.txt", "3.txt"]
    assert history(tmp_path)[0].state == "done"
    assert run(tmp_path, tagger_folder)["written"] == ["4.png", "5.png", "6.png"]
    undo(tmp_path)
    assert len(list(tmp_path.glob("*.txt"))) == 4
    undo(tmp_path)
    assert not list(tmp_path.glob("*.txt"))


def test_nothing_left_to_do_needs_no_model(tmp_path: Path) -> None:
    save(tmp_path / "a.png", "red").with_suffix(".txt").write_text("1girl")
    report = tag_folder(tmp_path, TagOptions(model="wd14-vit"), tmp_path / "cache")
    assert report.skipped == [tmp_path / "a.png"] and report.act is None


def test_folders_inside(tmp_path: Path, tagger_folder: Path) -> None:
    deep = save(tmp_path / "set" / "set" / "a.png", "red")
    save(tmp_path / "set" / "b.png", "red")
    assert run(tmp_path / "set", tagger_folder)["written"] == ["b.png"]
    assert run(tmp_path / "set", tagger_folder, recursive=True)["written"] == ["a.png"]
    assert caption(deep)[0] == "red tint"


@pytest.mark.parametrize("batch", [1, 3])
def test_fixed_batches(tmp_path: Path, make_tagger: Callable[..., Path], batch: int) -> None:
    colors = ["red", "blue", "red", "lime", "blue"]
    for number, color in enumerate(colors):
        save(tmp_path / f"{number}.png", color)
    run(tmp_path, make_tagger(batch=batch), only=("* tint",))
    names = {"lime": "green"}
    assert [caption(tmp_path / f"{n}.png") for n in range(5)] == [[f"{names.get(c, c)} tint"] for c in colors]


def test_bad_folders_and_models(tmp_path: Path, tagger_folder: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "no", tagger_folder)
    with pytest.raises(InputError, match="holds no pictures"):
        run(tmp_path, tagger_folder)
    save(tmp_path / "a.png", "red")
    with pytest.raises(InputError, match="There is no tagger"):
        run(tmp_path, Path("wd99"))


def test_options_declare_everything() -> None:
    assert from_json(TagOptions, to_json(TagOptions(exclude=("a",)))) == TagOptions(exclude=("a",))
    assert all(spec.help for spec in specs(TagOptions).values())


def test_every_format(tmp_path: Path, tagger_folder: Path) -> None:
    red = Image.new("RGB", (64, 64), "red")
    names = ["a.png", "b.JPG", "c.webp", "d.gif", "e.bmp", "f.tiff"]
    if features.check("avif"):
        names.append("g.avif")
    for name in names:
        red.save(tmp_path / name)
    red.convert("CMYK").save(tmp_path / "cmyk.jpg")
    blue = Image.new("RGB", (64, 64), "blue")
    red.save(tmp_path / "moving.webp", save_all=True, append_images=[blue], lossless=True)
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(tmp_path / "deep.png")
    red.quantize(4).save(tmp_path / "palette.png")
    report = tag_folder(tmp_path, TagOptions(model=str(tagger_folder), only=("* tint",)), tmp_path / "cache")
    assert not report.failed
    found = {path.name: caption(path) for path in report.written}
    assert found.pop("deep.png") == ["blue tint", "green tint", "red tint"]
    assert found == {name: ["red tint"] for name in found} and len(found) == len(names) + 3


def test_scores_are_worked_out_once(pictures: Path, tagger_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new threshold, a moved picture and a copy need no network; a changed picture and another tagger do."""
    seen: list[int] = []
    original = Tagger.scores

    def counting(tagger: Tagger, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(batch))
        return original(tagger, batch)

    run(pictures, tagger_folder)
    monkeypatch.setattr(Tagger, "scores", counting)
    run(pictures, tagger_folder, on_existing="replace", threshold=0.6)
    assert seen == [] and caption(pictures / "it's blue.jpg") == ["blue tint", "bright corner", CONSTANT[0]]
    (pictures / "it's blue.jpg").rename(pictures / "moved.jpg")
    shutil.copy(pictures / "red 猫.PNG", pictures / "copy.png")
    run(pictures, tagger_folder)
    assert seen == []
    save(pictures / "moved.jpg", "lime")
    run(pictures, tagger_folder, on_existing="replace")
    assert sum(seen) == 2 and caption(pictures / "moved.jpg")[0] == "green tint"  # one, and the try when it is loaded


def test_kept_scores_give_the_same_captions(pictures: Path, tagger_folder: Path, tmp_path: Path) -> None:
    def all_captions(cache: Path, **how: object) -> list[list[str]]:
        tag_folder(pictures, TagOptions(model=str(tagger_folder), on_existing="replace", **how), cache)  # type: ignore[arg-type]
        return [caption(path) for path in sorted(pictures.iterdir()) if path.suffix.lower() in (".png", ".jpg")]

    first = all_captions(tmp_path / "one")
    assert all_captions(tmp_path / "one", mcut=True) == all_captions(tmp_path / "two", mcut=True)
    assert all_captions(tmp_path / "one") == first


def test_the_tagger_goes_or_stays(pictures: Path, tagger_folder: Path) -> None:
    shelf = Shelf()
    tag_folder(pictures, TagOptions(model=str(tagger_folder), keep_loaded=True), pictures / "cache", shelf=shelf)
    assert len(shelf) == 1
    kept = shelf.tagger(tagger_folder, None, None)
    options = TagOptions(model=str(tagger_folder), on_existing="replace", recursive=True)
    tag_folder(pictures, options, pictures / "cache", shelf=shelf)
    assert len(shelf) == 0 and kept.device == "CPU"


def test_a_run_does_not_take_the_tagger_from_another(pictures: Path, tagger_folder: Path) -> None:
    """One picture, and the person's own unloading, in the midst of a folder: nothing is loaded anew."""
    shelf, options = Shelf(), TagOptions(model=str(tagger_folder), batch=1)
    during: list[Tagger] = []

    def meanwhile(job: Job) -> None:
        if job.done and not during:
            during.append(shelf.tagger(tagger_folder, None, None))
            save(pictures / "inside" / "other.png", "lime")
            tag_picture(pictures / "inside" / "other.png", options, pictures / "other cache", shelf)
            assert shelf.clear() == 0
            assert len(shelf) == 1 and shelf.tagger(tagger_folder, None, None) is during[0]

    report = tag_folder(pictures, options, pictures / "cache", Job("tag", watcher=meanwhile), shelf=shelf)
    assert len(report.written) == 3 and during and len(shelf) == 0


def test_memory_that_does_not_do_halves_the_batch_once(tagger_folder: Path) -> None:
    """A network that takes no more than two pictures at a time, as one short of memory."""
    tagger = Tagger(tagger_folder)
    session, sizes = tagger._session, []

    class Short:
        def run(self, outputs: list[str], inputs: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
            count = len(next(iter(inputs.values())))
            sizes.append(count)
            if count > 2:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
            found: list[NDArray[np.float32]] = session.run(outputs, inputs)
            return found

    pixels = np.stack([np.full((tagger.side, tagger.side, 3), value, np.uint8) for value in range(0, 160, 20)])
    whole = tagger.scores(pixels)
    tagger._session = Short()
    assert np.allclose(tagger.scores(pixels), whole) and max(sizes) == 8
    sizes.clear()
    assert np.allclose(tagger.scores(pixels), whole) and max(sizes) == 2


TAG = """
import sys
from pathlib import Path
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.run import tag_folder
tag_folder(Path(sys.argv[1]), TagOptions(model=sys.argv[2], batch=1), Path(sys.argv[3]))
"""


def test_a_killed_process_loses_nothing(tmp_path: Path, tagger_folder: Path) -> None:
    for number in range(150):
        save(tmp_path / "set" / f"{number}.png", f"rgb(255, {number}, 0)")
    (tmp_path / "set" / "149.txt").write_text("mine", "utf-8")
    command = [sys.executable, "-c", TAG, str(tmp_path / "set"), str(tagger_folder), str(tmp_path / "set" / "cache")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    while len(list((tmp_path / "set").glob("*.txt"))) < 20 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    written = {path.name for path in (tmp_path / "set").glob("*.txt")}
    assert 20 <= len(written) < 150, "it was done before it was killed"
    assert all(caption(tmp_path / "set" / name)[0] in ("red tint", "mine") for name in written)
    found = run(tmp_path / "set", tagger_folder)
    assert len(found["written"]) + len(found["skipped"]) == 150 and not found["failed"]
    undo(tmp_path / "set")
    undo(tmp_path / "set")
    assert [path.name for path in (tmp_path / "set").glob("*.txt")] == ["149.txt"]
