"""Proposed frames: what they hold, on pictures of which it is known where things are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from lib_dsm.cropping.boxes import Box, Size
from lib_dsm.cropping.plan import CropItem, CropOptions
from lib_dsm.cropping.propose import Proposer, around, plan_crops, propose_frames
from lib_dsm.cropping.scene import Scene, look_at
from lib_dsm.errors import ModelError

SQUARE = {"width": 64, "height": 64}


def figure(picture: Image.Image, box: Box, color: str = "navy") -> Image.Image:
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=color)
    return picture


def noise(size: Size, level: int = 90, seed: int = 0) -> Image.Image:
    """A ground of fine and coarse texture."""
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 90 + level, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def frames(tmp_path: Path, picture: Image.Image, mode: str, **more: object) -> list[CropItem]:
    path = tmp_path / "a.png"
    picture.save(path)
    options = CropOptions(**{**SQUARE, "mode": mode, **more})  # type: ignore[arg-type]
    return Proposer(options).propose(path, "a.png").items


def holds(item: CropItem, box: Box) -> bool:
    return item.box[0] <= box[0] and item.box[1] <= box[1] and item.box[2] >= box[2] and item.box[3] >= box[3]


def test_the_figure_on_a_plain_ground(tmp_path: Path) -> None:
    where = (300, 60, 380, 180)
    picture = figure(Image.new("RGB", (400, 200), "white"), where)
    (item,) = frames(tmp_path, picture, "subject")
    assert holds(item, where) and item.box[2] - item.box[0] == item.box[3] - item.box[1] < 160
    assert (item.width, item.height) == (64, 64) and item.box[2] <= 400 and "figure" in item.why
    speck = figure(picture, (20, 20, 26, 26))
    assert frames(tmp_path, speck, "subject")[0].box == item.box


@pytest.mark.parametrize("where", [(230, 70, 300, 140), (40, 20, 110, 90), (300, 110, 370, 180)])
def test_what_catches_the_eye(tmp_path: Path, where: Box) -> None:
    (item,) = frames(tmp_path, figure(noise((400, 200)), where, "red"), "subject")
    inner = (where[0] + 10, where[1] + 10, where[2] - 10, where[3] - 10)
    assert holds(item, inner) and item.box[2] - item.box[0] < 120 and "eye" in item.why
    assert item.box[0] >= 0 and item.box[1] >= 0 and item.box[2] <= 400 and item.box[3] <= 200


def test_where_nothing_stands_out_the_middle_is_taken(tmp_path: Path) -> None:
    (item,) = frames(tmp_path, Image.new("RGB", (400, 200), "teal"), "subject")
    assert item.box == (100, 0, 300, 200) and "the middle" in item.why


def test_one_frame_for_each_person(tmp_path: Path) -> None:
    where = [(30, 40, 90, 180), (170, 30, 230, 180), (310, 50, 370, 180)]
    picture = Image.new("RGB", (400, 200), "white")
    for box in where:
        figure(picture, box)
    (tmp_path / "a.txt").write_text("3girls, smile, full body", "utf-8")
    items = frames(tmp_path, picture, "people")
    assert [item.part for item in items] == ["person-1", "person-2", "person-3"]
    assert all(holds(item, box) for item, box in zip(items, where, strict=True))
    assert {item.drop for item in items} == {("3girls",)}
    assert [item.part for item in frames(tmp_path, picture, "auto")] == ["person-1", "person-2", "person-3"]


def test_portrait_and_full_body(tmp_path: Path) -> None:
    where = (170, 20, 230, 380)
    (tmp_path / "a.txt").write_text("1girl, full body, shoes, smile, hat", "utf-8")
    picture = figure(Image.new("RGB", (400, 400), "white"), where)
    portrait, body = frames(tmp_path, picture, "portrait")
    assert (portrait.part, body.part) == ("portrait", "body") and holds(body, where)
    assert portrait.box[1] <= 20 and portrait.box[3] < 220 and portrait.box[0] < 170 and portrait.box[2] > 230
    assert portrait.drop == ("full body", "shoes") and body.drop == ()
    wide = figure(Image.new("RGB", (400, 400), "white"), (20, 150, 380, 250))
    assert [item.part for item in frames(tmp_path, wide, "portrait")] == [""]


def test_automatic_as_the_guides_have_it(tmp_path: Path) -> None:
    plain = figure(Image.new("RGB", (300, 200), "teal"), (50, 50, 250, 150))
    (padded,) = frames(tmp_path, plain, "auto")
    assert padded.mode == "pad" and padded.box == (0, -50, 300, 250) and "plain border" in padded.why
    assert [item.part for item in frames(tmp_path, noise((400, 200)), "auto")] == ["left", "right"]
    (square,) = frames(tmp_path, noise((200, 200)), "auto")
    assert square.mode == "center" and square.box == (0, 0, 200, 200)
    (bucket,) = frames(tmp_path, noise((260, 130)), "bucket", width=128, height=128)
    # Twice as long as high, as the picture is: 192 × 64 has more pixels, but would cut a third of it away.
    assert (bucket.mode, bucket.width, bucket.height, bucket.box) == ("bucket", 128, 64, (0, 0, 260, 130))


def test_a_proposal_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise((90, 60)).save(tmp_path / "in" / "a.png")
    before = sorted(tmp_path.rglob("*"))
    assert plan_crops(tmp_path / "in", CropOptions(mode="auto")).items
    assert sorted(tmp_path.rglob("*")) == before


HEAD = st.tuples(st.floats(0, 0.8), st.floats(0, 0.8), st.floats(0.05, 0.2), st.floats(0.05, 0.2))


@given(
    st.tuples(st.integers(40, 3000), st.integers(40, 3000)),
    st.lists(HEAD, max_size=4),
    st.sampled_from(["auto", "subject", "portrait", "people"]),
    st.tuples(st.sampled_from([256, 512]), st.sampled_from([256, 512, 768])),
)
def test_frames_are_of_the_shape_and_in_the_picture(
    size: Size, heads: list[tuple[float, float, float, float]], mode: str, shape: Size
) -> None:
    boxes = sorted(
        (int(x * size[0]), int(y * size[1]), max(int((x + w) * size[0]), int(x * size[0]) + 1),
         max(int((y + h) * size[1]), int(y * size[1]) + 1)) for x, y, w, h in heads
    )  # fmt: skip
    scene = Scene(size, (False, False), tuple(boxes), (), "saliency")
    options = CropOptions(mode=mode, width=shape[0], height=shape[1])
    items = propose_frames(scene, "a.png", options)
    assert items and len({item.part for item in items}) == len(items)
    for item in items:
        left, top, right, bottom = item.box
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        wide = (bottom - top) * shape[0] / shape[1]
        assert abs(right - left - wide) <= 1 + shape[0] / shape[1]
        assert item.width <= right - left and item.height <= bottom - top


@given(st.tuples(st.integers(64, 900), st.integers(64, 900)), st.data())
def test_a_frame_around_something_holds_it_where_it_can(size: Size, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, size[0] - 2)), data.draw(st.integers(0, size[1] - 2))
    right, bottom = data.draw(st.integers(left + 1, size[0])), data.draw(st.integers(top + 1, size[1]))
    box = around((left, top, right, bottom), size, (64, 64), padded=True)
    assert box[0] <= left and box[1] <= top and box[2] >= right and box[3] >= bottom
    inner = around((left, top, right, bottom), size, (64, 64), padded=False)
    assert inner[0] >= 0 and inner[1] >= 0 and inner[2] <= size[0] and inner[3] <= size[1]


# ---- detectors: models of the known layouts, made here, whose answers are known ----


def yolo(path: Path, side: int | str = 64) -> Path:
    """A detector in YOLOv8's layout that finds two heads in pictures of 64 × 64, whatever they show."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    # centre x, y, width, height, score of four cells: two heads, one of them twice, and one that is not sure
    known = [(16, 20, 8, 8, 0.9), (16.5, 20, 8, 8, 0.8), (48, 20, 8, 8, 0.7), (40, 50, 6, 6, 0.1)]
    table = np.zeros((5, 8), np.float32)
    table[:, :4] = np.array(known).T
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["table", "nothing"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "yolo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 5, 8])],
        [numpy_helper.from_array(table[None], "table"), numpy_helper.from_array(np.float32(0), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def yunet(path: Path, found: tuple[float, float, float, float]) -> Path:
    """A detector in YuNet's layout for pictures of 64 × 64: one face, in the cell of stride 8 that holds its centre."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x, y, width, height = found
    constants, nodes, outputs = [], [], []
    for stride in (8, 16, 32):
        cells = (64 // stride) ** 2
        values = {
            part: np.zeros((1, cells, count), np.float32) for part, count in (("cls", 1), ("obj", 1), ("bbox", 4))
        }
        if stride == 8:
            column, row = int(x // 8), int(y // 8)
            cell = row * 8 + column
            values["cls"][0, cell], values["obj"][0, cell] = 0.9, 0.8
            values["bbox"][0, cell] = (x / 8 - column, y / 8 - row, np.log(width / 8), np.log(height / 8))
        for part, value in values.items():
            name = f"{part}_{stride}"
            constants.append(numpy_helper.from_array(value, f"known_{name}"))
            nodes.append(helper.make_node("Add", [f"known_{name}", "nothing"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape)))
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        *nodes,
    ]
    constants.append(numpy_helper.from_array(np.float32(0), "zero"))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])]
    graph = helper.make_graph(nodes, "yunet", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def detector(path: Path):  # type: ignore[no-untyped-def]
    pytest.importorskip("onnxruntime")
    from lib_dsm.cropping.detect import Detector

    return Detector(path)


def test_heads_by_a_yolo_detector(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    found = detector(yolo(tmp_path / "heads.onnx"))
    assert found.kind == "yolo"
    scene = look_at(noise((640, 640)), (1280, 1280), found)
    # 8 of 64 pixels wide around (16, 20) and (48, 20): the doubled one and the unsure one are not there
    assert scene.heads == ((240, 320, 400, 480), (880, 320, 1040, 480))
    wide = look_at(noise((640, 320)), (640, 320), found)  # half of the input is padding there
    assert wide.heads == ((120, 160, 200, 240), (440, 160, 520, 240))
    options = CropOptions(mode="people", width=256, height=256)
    left, right = propose_frames(scene, "a.png", options)
    assert left.box[0] <= 240 and left.box[2] >= 400 and left.box[2] < 1040
    assert right.box[2] >= 1040 and right.box[0] > 240 and right.box[1] <= 320
    options = CropOptions(mode="portrait", width=256, height=256)
    one = Scene(scene.size, (False, False), scene.heads[:1], (), "saliency")
    portrait, body = propose_frames(one, "a.png", options)
    assert portrait.box[2] - portrait.box[0] == 384 and body.box[3] - body.box[1] > 1000


def test_faces_by_yunet(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    found = detector(yunet(tmp_path / "face.onnx", (40, 24, 16, 20)))
    (head,) = look_at(noise((64, 64)), (640, 640), found).heads
    assert found.kind == "yunet" and head == pytest.approx((320, 140, 480, 340), abs=1)


def test_a_detector_is_used_by_a_plan_and_a_bad_one_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (tmp_path / "in").mkdir()
    noise((640, 640)).save(tmp_path / "in" / "a.png")
    options = CropOptions(mode="people", width=64, height=64, detector=str(yolo(tmp_path / "heads.onnx")))
    assert [item.part for item in plan_crops(tmp_path / "in", options).items] == ["person-1", "person-2"]
    (tmp_path / "bad.onnx").write_text("no model")
    for name, said in (("bad.onnx", "no ONNX model"), ("gone.onnx", "There is no detector")):
        with pytest.raises(ModelError, match=said):
            plan_crops(tmp_path / "in", CropOptions(mode="people", detector=str(tmp_path / name)))
