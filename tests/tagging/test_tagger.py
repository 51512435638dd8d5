from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_dsm.errors import InputError, ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.preprocess import prepare
from lib_dsm.tagging.registry import MODELS, TaggerModel, find_model
from lib_dsm.tagging.session import Tagger
from tests.tagging.reference import reference
from tests.tagging.tiny_tagger import SIDE, TAGS, write_tagger


def test_preparing_pads_with_white_in_the_middle_as_bgr() -> None:
    pixels = prepare(Image.new("RGB", (400, 200), (200, 100, 50)), 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.float32 and pixels.flags["C_CONTIGUOUS"]
    assert (abs(pixels[5:11] - [50, 100, 200]) < 8).all()
    assert (pixels[:3] == 255).all() and (pixels[13:] == 255).all()


@pytest.mark.parametrize("size", [(10_000, 10), (3, 4000), (1, 1), (7, 5), (1801, 1203), (16, 16), (673, 1345)])
@pytest.mark.parametrize("side", [16, 448])
def test_any_shape_is_prepared_as_the_reference_does(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    rng = np.random.default_rng(size[0])
    rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    path = tmp_path / "a.png"
    rough.resize(size).save(path)
    with Image.open(path) as image:
        pixels = prepare(image, side)
    difference = np.abs(pixels - reference(path, side))
    assert pixels.shape == (side, side, 3) and difference.mean() < 0.5 and difference.max() < 64


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_white_picture_stays_white_in_every_shape(width: int, height: int) -> None:
    assert (prepare(Image.new("RGB", (width, height), "white"), 64) == 255).all()


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_scores_are_those_of_the_pictures(make_tagger: Callable[..., Path], batch: int | str) -> None:
    tagger = Tagger(make_tagger(batch=batch))
    assert tagger.side == SIDE and tagger.batch == (None if batch == "N" else batch) and tagger.device == "CPU"
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 20, 30)]
    scores = tagger.scores(np.stack([prepare(Image.new("RGB", (20, 20), color), SIDE) for color in colors]))
    names = [name for name, _, _ in TAGS]
    measured = scores[:, [names.index(name) for name in ("red_tint", "green_tint", "blue_tint")]]
    assert np.allclose(measured * 255, colors, atol=0.01)


def test_files_that_do_not_belong_together(make_tagger: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"13 scores, but .* lists 12 tags"):
        Tagger(make_tagger(tags=TAGS[:-1]))


def test_a_model_that_is_none(tagger_folder: Path) -> None:
    (tagger_folder / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Tagger(tagger_folder)


def test_another_layout_is_refused(tmp_path: Path) -> None:
    import onnx

    folder = write_tagger(tmp_path)
    model = onnx.load(str(folder / "model.onnx"))
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[1].dim_value, sizes[3].dim_value = 3, SIDE
    onnx.save(model, str(folder / "model.onnx"))
    with pytest.raises(ModelError):
        Tagger(folder)


def test_finding_models(tagger_folder: Path, tmp_path: Path) -> None:
    assert find_model(str(tagger_folder)) == tagger_folder
    for name in ("wd14-convnext", "wd14-convnext-v2", "SmilingWolf/wd-v1-4-convnext-tagger-v2"):
        assert find_model(name) is MODELS[0]
    eva = find_model("wd-eva02-large-tagger-v3")
    assert isinstance(eva, TaggerModel) and (eva.threshold, eva.name) == (0.5296, "wd-eva02-large-v3")
    pinned = find_model("wd-vit-v3@v2.0")
    assert isinstance(pinned, TaggerModel) and (pinned.revision, pinned.name) == ("v2.0", "wd-vit-v3")
    assert len({model.name for model in MODELS}) == len({model.repository for model in MODELS}) == len(MODELS)
    for name in ("wd15", "", str(tmp_path / "no")):
        with pytest.raises(InputError, match="wd-swinv2-v3"):
            find_model(name)
    (tagger_folder / "selected_tags.csv").unlink()
    with pytest.raises(InputError, match=r"lacks selected_tags\.csv"):
        find_model(str(tagger_folder))


def test_a_gpu_that_only_seems_to_be_there_is_said_in_one_line(
    tagger_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where onnxruntime was built for CUDA and its libraries are not there: it says so and goes on with the CPU."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built for CUDA")
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    job = Job("tag")
    tagger = Tagger(tagger_folder, job)
    lines = job.snapshot()["lines"]
    assert tagger.device == "CPU" and len(lines) == 1 and "GPU cannot be used" in lines[0] and "CPU" in lines[0]
    assert tagger.scores(tagger.prepare(Image.new("RGB", (20, 20)))[np.newaxis]).shape == (1, len(TAGS))


def test_where_there_is_no_gpu_one_line_says_so(tagger_folder: Path) -> None:
    job = Job("tag")
    Tagger(tagger_folder, job)
    assert len(job.snapshot()["lines"]) == 1


def test_the_batch_is_what_was_asked_for_or_what_the_network_demands(make_tagger: Callable[..., Path]) -> None:
    free, fixed = Tagger(make_tagger()), Tagger(make_tagger(batch=3))
    assert (free.good_batch(7), fixed.good_batch(7), fixed.good_batch()) == (7, 3, 3) and free.good_batch() >= 1
