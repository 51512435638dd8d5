"""A tiny tagger in the WD1.4 layout whose scores are known: it measures colours and gives constants."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 16
# name, category, what it measures (see `FEATURES`), or a constant score
TAGS: list[tuple[str, int, str | float]] = [
    ("general", 9, 0.2),
    ("sensitive", 9, 0.7),
    ("blue_tint", 0, "mean blue"),
    ("green_tint", 0, "mean green"),
    ("red_tint", 0, "mean red"),
    ("bright_corner", 0, "corner"),
    ("red_middle", 0, "middle red"),
    ("^_^", 0, 0.5),
    ("hat_(felt)", 0, 0.45),
    ("quiet", 0, 0.3),
    ("miku_(vocaloid)", 4, 0.9),
    ("someone", 4, 0.6),
    ("by_an_artist", 1, 0.99),
]
FEATURES = ["mean blue", "mean green", "mean red", "corner", "middle red"]


def write_tagger(folder: Path, batch: int | str = "N", tags: list[tuple[str, int, str | float]] = TAGS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["tag_id,name,category,count", *(f"{place},{name},{kind},1" for place, (name, kind, _) in enumerate(tags))]
    (folder / "selected_tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    weights, bias = np.zeros((len(FEATURES), len(TAGS)), np.float32), np.zeros(len(TAGS), np.float32)
    for place, (_, _, measure) in enumerate(TAGS):
        if isinstance(measure, str):
            weights[FEATURES.index(measure), place] = 1 / 255
        else:
            bias[place] = measure

    def constant(name: str, values: object, kind: type = np.int64) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=kind), name)

    half = SIDE // 2
    initial = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(bias, "bias"),
        constant("axes", [1, 2]),
        constant("zero", [0, 0, 0]),
        constant("one", [1, 1, 1]),
        constant("middle", [half, half, 2]),
        constant("middle_end", [half + 1, half + 1, 3]),
        constant("axes3", [1, 2, 3]),
        constant("flat", [0, 1]),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Slice", ["x", "zero", "one", "axes3"], ["corner4"]),
        helper.make_node("Reshape", ["corner4", "flat"], ["corner"]),
        helper.make_node("Slice", ["x", "middle", "middle_end", "axes3"], ["middle4"]),
        helper.make_node("Reshape", ["middle4", "flat"], ["middle_red"]),
        helper.make_node("Concat", ["mean", "corner", "middle_red"], ["features"], axis=1),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, len(TAGS)])],
        initial,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    return folder
