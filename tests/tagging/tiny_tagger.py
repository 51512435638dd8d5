"""A tiny tagger whose scores are known: it measures colours and gives constants. In the layout of any family.

What a family's network wants is written down here once more, from the families' own descriptions: the network undoes it
and measures the picture behind.
"""

import json
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Family:
    """What a family's network takes, (value / 255 - mean) / std, and its files."""

    labels: str
    model: str = "model.onnx"
    first: bool = True
    bgr: bool = False
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    logits: bool = False
    outputs: list[str] = field(default_factory=lambda: ["scores"])


FAMILIES = {
    "wd": Family("selected_tags.csv", first=False, bgr=True, std=(1 / 255, 1 / 255, 1 / 255)),
    "cl": Family("tag_mapping.json", bgr=True, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), logits=True),
    "pixai": Family("selected_tags.csv", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
                    outputs=["embedding", "logits", "prediction"]),
    "joytag": Family("top_tags.txt", mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711),
                     logits=True),
    "camie": Family("camie-tagger-v2-metadata.json", "camie-tagger-v2.onnx", mean=(0.485, 0.456, 0.406),
                    std=(0.229, 0.224, 0.225), logits=True, outputs=["initial_logits", "refined_logits"]),
    "deepdanbooru": Family("tags.txt", first=False),
}  # fmt: skip
KINDS = {0: "General", 1: "Artist", 4: "Character", 9: "Rating"}


def write_labels(path: Path, tags: list[tuple[str, int, str | float]]) -> None:
    rows = [(name, kind) for name, kind, _ in tags]
    if path.suffix == ".csv":
        lines = ["tag_id,name,category,count", *(f"{place},{name},{kind},1" for place, (name, kind) in enumerate(rows))]
        text = "\n".join(lines) + "\n"
    elif path.name == "tag_mapping.json":
        text = json.dumps(
            {str(place): {"tag": name, "category": KINDS[kind]} for place, (name, kind) in enumerate(rows)}
        )
    elif path.suffix == ".json":
        mapping = {"idx_to_tag": {str(place): name for place, (name, _) in enumerate(rows)},
                   "tag_to_category": {name: KINDS[kind].lower() for name, kind in rows}}  # fmt: skip
        text = json.dumps({"dataset_info": {"tag_mapping": mapping}})
    else:
        text = "\n".join(f"rating:{name}" if kind == 9 else name for name, kind in rows)
        (path.parent / "tags-character.txt").write_text("\n".join(name for name, kind in rows if kind == 4), "utf-8")
    path.write_text(text, encoding="utf-8")


def write_tagger(
    folder: Path, batch: int | str = "N", tags: list[tuple[str, int, str | float]] = TAGS, family: str = "wd"
) -> Path:
    kind = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(folder / kind.labels, tags)

    weights, bias = np.zeros((len(FEATURES), len(TAGS)), np.float32), np.zeros(len(TAGS), np.float32)
    for place, (_, _, measure) in enumerate(TAGS):
        if isinstance(measure, str):
            weights[FEATURES.index(measure), place] = 1 / 255
        else:
            bias[place] = measure

    def constant(name: str, values: object, kind: type = np.int64) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=kind), name)

    half = SIDE // 2
    turn = slice(None, None, -1) if kind.bgr else slice(None)
    initial = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(bias, "bias"),
        constant("zero", [0, 0, 0]),
        constant("one", [1, 1, 1]),
        constant("middle", [half, half, 2]),
        constant("middle_end", [half + 1, half + 1, 3]),
        constant("axes3", [1, 2, 3]),
        constant("flat", [0, 1]),
        constant("std", [255 * value for value in kind.std[turn]], np.float32),
        constant("mean", [255 * value for value in kind.mean[turn]], np.float32),
        constant("bgr", [0, 1, 2] if kind.bgr else [2, 1, 0]),
        constant("tiny", 1e-6, np.float32),
        constant("nearly", 1 - 1e-6, np.float32),
        constant("unit", 1.0, np.float32),
    ]
    nodes = [
        helper.make_node("Transpose", ["x"], ["last"], perm=[0, 2, 3, 1] if kind.first else [0, 1, 2, 3]),
        helper.make_node("Mul", ["last", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["values"]),
        helper.make_node("Gather", ["values", "bgr"], ["seen"], axis=3),
        helper.make_node("ReduceMean", ["seen"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Slice", ["seen", "zero", "one", "axes3"], ["corner4"]),
        helper.make_node("Reshape", ["corner4", "flat"], ["corner"]),
        helper.make_node("Slice", ["seen", "middle", "middle_end", "axes3"], ["middle4"]),
        helper.make_node("Reshape", ["middle4", "flat"], ["middle_red"]),
        helper.make_node("Concat", ["means", "corner", "middle_red"], ["features"], axis=1),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["found"]),
    ]
    chosen = kind.outputs[-1]
    if kind.logits:
        nodes += [
            helper.make_node("Clip", ["found", "tiny", "nearly"], ["inside"]),
            helper.make_node("Sub", ["unit", "inside"], ["outside"]),
            helper.make_node("Div", ["inside", "outside"], ["odds"]),
            helper.make_node("Log", ["odds"], [chosen]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["found"], [chosen]))
    # Further outputs come first; of those as wide as the right one, all scores are the same.
    outputs = []
    for name in kind.outputs:
        if name == "embedding":
            nodes.append(helper.make_node("Identity", ["features"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, len(FEATURES)]))
            continue
        if name != chosen:
            nodes.append(helper.make_node("Mul", ["found", "tiny"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, len(TAGS)]))
    shape = [batch, 3, SIDE, SIDE] if kind.first else [batch, SIDE, SIDE, 3]
    graph = helper.make_graph(
        nodes, "tagger", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], outputs, initial
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / kind.model))
    return folder
