"""Every family's layout against a network that undoes what its own description says of its input."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_dsm.tagging.layouts import LAYOUTS
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.registry import MODELS, TaggerModel, find_model
from lib_dsm.tagging.run import tag_picture
from lib_dsm.tagging.session import Tagger, sigmoid
from tests.tagging.tiny_tagger import FAMILIES, SIDE, TAGS

NAMES = [name for name, _, _ in TAGS]


def save(path: Path, size: tuple[int, int]) -> Path:
    """A picture with another colour in each corner."""
    image = Image.new("RGB", size, (200, 100, 50))
    image.paste((10, 20, 30), (0, 0, size[0] // 2, size[1]))
    image.save(path)
    return path


def test_each_family_has_its_layout() -> None:
    assert {layout.name for layout in LAYOUTS} == FAMILIES.keys()
    assert {model.layout for model in MODELS} == FAMILIES.keys() - {"deepdanbooru"}  # it is not on the hub as ONNX
    assert all(model.licence and model.revision and model.note != model.name for model in MODELS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_square_picture_is_the_same_to_all(make_tagger: Callable[..., Path], tmp_path: Path, family: str) -> None:
    tagger = Tagger(make_tagger(family=family))
    assert (tagger.layout.name, tagger.side) == (family, SIDE)
    with Image.open(save(tmp_path / "a.png", (64, 64))) as image:
        scores = tagger.scores(np.stack([tagger.prepare(image)]))[0]
    found = dict(zip(NAMES, scores.tolist(), strict=True))
    assert found["red_tint"] == pytest.approx((200 + 10) / 2 / 255, abs=0.02)
    assert found["blue_tint"] == pytest.approx((50 + 30) / 2 / 255, abs=0.02)
    assert found["quiet"] == pytest.approx(0.3, abs=1e-4)


GROUND = {"camie": 124 / 255, "pixai": 10 / 255, "deepdanbooru": 10 / 255}


@pytest.mark.parametrize("family", FAMILIES)
def test_how_a_wide_picture_becomes_square(make_tagger: Callable[..., Path], tmp_path: Path, family: str) -> None:
    tagger = Tagger(make_tagger(family=family))
    with Image.open(save(tmp_path / "a.png", (64, 16))) as image:
        pixels = tagger.prepare(image)
    red = pixels[0, 0, 2 if tagger.layout.bgr else 0] / 255
    assert red == pytest.approx(GROUND.get(family, 1.0), abs=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_of_each_family(make_tagger: Callable[..., Path], tmp_path: Path, family: str) -> None:
    folder = make_tagger(family=family)
    found = tag_picture(save(tmp_path / "a.png", (32, 32)), TagOptions(model=str(folder), rating=True), tmp_path)
    assert found.tags[-1] == "rating:sensitive"
    assert set(found.tags) == {
        "red tint",
        "red middle",
        "miku \\(vocaloid\\)",
        "^_^",
        "hat \\(felt\\)",
        found.tags[-1],
    } | ({"by an artist"} if family == "deepdanbooru" else set()) | ({"by an artist"} if family == "joytag" else set())
    assert found.character or family == "joytag"


def test_a_folder_by_the_name_of_a_known_tagger_has_its_thresholds(tagger_folder: Path, tmp_path: Path) -> None:
    from lib_dsm.tagging.members import Members
    from lib_dsm.tagging.store import ScoreStore

    known = shutil.copytree(tagger_folder, tmp_path / "wd-vit-tagger-v3")
    with ScoreStore(None) as store:
        assert Members(TagOptions(model=str(known)), tmp_path, store).balanced == (0.2614, None)
        assert Members(TagOptions(model=str(tagger_folder)), tmp_path, store).balanced == (None, None)


def test_files_of_the_known_ones() -> None:
    cl = find_model("cl-tagger")
    assert isinstance(cl, TaggerModel)
    assert cl.files == ("cl_tagger_1_02/tag_mapping.json", "cl_tagger_1_02/model.onnx")
    camie = find_model("Camais03/camie-tagger-v2")
    assert isinstance(camie, TaggerModel) and camie.licence == "GPL-3.0"
    assert camie.files == ("camie-tagger-v2-metadata.json", "camie-tagger-v2.onnx")


def test_sigmoid_does_not_overflow() -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        values = sigmoid(np.array([-90.0, 0.0, 90.0], np.float32))
    assert values.tolist() == pytest.approx([0, 0.5, 1], abs=1e-6)
