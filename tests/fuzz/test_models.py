"""Taggers, detectors and what lies beside model files, spoiled or of odd shapes: read, or refused in a sentence."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from lib_dsm.cropping.detect import Detector
from lib_dsm.diffusion.sizes import read_sizes
from lib_dsm.errors import DsmError, ModelError
from lib_dsm.extraction.adapter_scales import adapter_scales
from lib_dsm.host.infotext import KEY, read_infotext
from lib_dsm.tagging.layouts import CL
from lib_dsm.tagging.session import Tagger
from tests.cropping.test_proposals import yolo, yunet
from tests.fuzz.mangled import PNG_START, changed_json, examples, odd_json, png_chunk, refused_or_fine, spoiled
from tests.fuzz.test_records import YAML
from tests.tagging.tiny_tagger import TAGS, write_tagger

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
PICTURE = Image.new("RGB", (48, 64), "white")


def test_spoiled_taggers(place):
    folder = place / "tagger"
    write_tagger(folder)
    good, labels = (folder / "model.onnx").read_bytes(), (folder / "selected_tags.csv").read_bytes()

    @examples(60)
    @given(spoiled([good]), st.one_of(st.just(labels), spoiled([labels])))
    def check(model, names):
        (folder / "model.onnx").write_bytes(model)
        (folder / "selected_tags.csv").write_bytes(names)
        tagger = refused_or_fine(lambda: Tagger(folder))
        if tagger is not None:
            scores = refused_or_fine(lambda: tagger.scores(tagger.prepare(PICTURE)[None]))
            assert scores is None or scores.shape == (1, len(tagger.labels.names))

    check()


def test_spoiled_detectors(place):
    path = place / "detector.onnx"
    good = [yolo(path).read_bytes(), yolo(path, "side").read_bytes(), yunet(path, (40, 24, 16, 20)).read_bytes()]

    @examples(60)
    @given(spoiled(good))
    def check(content):
        path.write_bytes(content)
        detector = refused_or_fine(lambda: Detector(path))
        found = refused_or_fine(lambda: detector.find(PICTURE)) if detector is not None else None
        for box in found or ():
            assert all(0 <= edge <= 1 for edge in box)

    check()


def odd_model(path: Path, taken: list[Any], given_shape: list[Any] | None, name: str = "x") -> None:
    """An ONNX model of a constant, whose input and output are of such shapes; None for one without any input."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    value = onnx.numpy_helper.from_array(np.zeros([1] * len(given_shape or ()), np.float32), "known")
    inputs = [helper.make_tensor_value_info(name, kind, taken)] if taken is not None else []
    outputs = [helper.make_tensor_value_info("scores", kind, given_shape)]
    graph = helper.make_graph([helper.make_node("Identity", ["known"], ["scores"])], "odd", inputs, outputs, [value])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


_DIMENSIONS = st.sampled_from([1, 3, 16, "n", 100_000, 2**31, len(TAGS)])
_SHAPES = st.one_of(st.none(), st.lists(_DIMENSIONS, max_size=5))


@examples(60)
@example([1, 100_000, 100_000, 3], [1, len(TAGS)], False)  # 120 GB for a white picture
@example([2**31, 16, 16, 3], [1, len(TAGS)], False)  # as many pictures at a time
@example([3], [], True)
@example(None, [1, 5, 8], False)
@example([1, 3, 100_000, 100_000], [1, 5, 8], False)
@given(_SHAPES, st.lists(_DIMENSIONS, max_size=4), st.booleans())
def test_models_of_any_shapes(place, taken, given_shape, first):
    folder = place / "odd"
    shutil.rmtree(folder, ignore_errors=True)
    write_tagger(folder)
    odd_model(folder / "model.onnx", taken, given_shape)
    refused_or_fine(lambda: Tagger(folder, layout=CL if first else None))
    detector = refused_or_fine(lambda: Detector(folder / "model.onnx"))
    if detector is not None:
        refused_or_fine(lambda: detector.find(PICTURE))


def test_a_detector_that_is_sure_of_everything_does_not_take_for_ever(place):
    """As many boxes as cells, none of which lies over another."""
    path = place / "sure.onnx"
    cells = 60_000
    table = np.zeros((1, 5, cells), np.float32)
    table[0, 0], table[0, 1] = np.arange(cells) * 4, 2
    table[0, 2:4], table[0, 4] = 2, 0.9
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["known"], ["output0"])],
        "sure",
        [helper.make_tensor_value_info("images", kind, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", kind, [1, 5, cells])],
        [onnx.numpy_helper.from_array(table, "known")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    assert len(Detector(path).find(PICTURE)) < 1000


ADAPTER = {"lora_alpha": 8, "r": 4, "use_rslora": True, "alpha_pattern": {"to_k": 2}, "use_dora": False}


@examples(150)
@example({**ADAPTER, "lora_alpha": 10**400}, 4)
@example(ADAPTER, 0)
@given(st.one_of(changed_json(ADAPTER), odd_json()), st.integers(0, 8))
def test_what_peft_writes_beside_a_lora(place, content, rank):
    path = place / "adapter_model.safetensors"
    (place / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    scales = refused_or_fine(lambda: adapter_scales(path, {}))
    if scales is not None:
        refused_or_fine(lambda: scales.scale("unet", "to_k", rank))
    inside = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in content.items()})
              if isinstance(content, dict) else json.dumps(content)}  # fmt: skip
    scales = refused_or_fine(lambda: adapter_scales(path, inside))
    if scales is not None:
        refused_or_fine(lambda: scales.scale("unet", "to_k", rank))


ENCODER = {"text_config": {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}}
WITH_ENCODER = YAML.replace(b"FrozenCLIPEmbedder", b"FrozenCLIPEmbedder, params: {version: %s}")


@examples(100)
@given(st.one_of(changed_json(ENCODER), odd_json()), st.sampled_from(["clip", "a" * 300, '"a\\0b"', "..", "/dev/null"]))
def test_the_text_encoder_that_a_description_names(place, content, version):
    (place / "clip").mkdir(exist_ok=True)
    (place / "clip" / "config.json").write_text(json.dumps(content), encoding="utf-8")
    config = place / "model.yaml"
    config.write_bytes(WITH_ENCODER % version.encode())
    refused_or_fine(lambda: read_sizes(config))


def test_such_a_description_is_read_where_all_is_well(place):
    (place / "clip").mkdir(exist_ok=True)
    (place / "clip" / "config.json").write_text(json.dumps(ENCODER), encoding="utf-8")
    (place / "model.yaml").write_bytes(WITH_ENCODER % b"clip")
    assert read_sizes(place / "model.yaml").text_layers == 2


def preview() -> bytes:
    chunks, target = PngImagePlugin.PngInfo(), io.BytesIO()
    chunks.add_text(KEY, "solo, hat\nSteps: 5")
    chunks.add_itxt("other", "x" * 100, zip=True)
    PICTURE.save(target, "PNG", pnginfo=chunks)
    return target.getvalue()


@examples(120)
@given(spoiled([preview()]))
def test_what_a_preview_was_made_with(place, content):
    path = place / "preview.png"
    path.write_bytes(content)
    assert isinstance(read_infotext(path), str)


def test_a_preview_that_announces_gigapixels_says_nothing(place):
    path = place / "preview.png"
    header = (200_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    path.write_bytes(PNG_START + png_chunk(b"IHDR", header) + png_chunk(b"tEXt", b"parameters\0hat"))
    assert isinstance(read_infotext(path), str)


def test_the_good_ones_are_good(place):
    """So that what is spoiled was something."""
    assert Tagger(write_tagger(place / "whole")).side == 16
    assert len(Detector(yolo(place / "whole.onnx")).find(PICTURE)) == 2
    (place / "preview.png").write_bytes(preview())
    assert read_infotext(place / "preview.png").startswith("solo")
    with pytest.raises(ModelError) as refused:
        Detector(write_tagger(place / "whole") / "model.onnx")
    assert isinstance(refused.value, DsmError)
