"""What a file is: embedding, hypernetwork, LoRA, checkpoint, VAE, or something else. Nothing in it is executed.

Only names and shapes are looked at, so a checkpoint of several GB takes no longer than its header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.embedding import read_png
from lib_dsm.networks.hypernetwork import TENSOR_NAME, Hypernetwork, is_width, load_hypernetwork
from lib_dsm.networks.pickles import load_pickle
from lib_dsm.networks.safetensors_files import open_safetensors
from lib_dsm.networks.tensor_files import file_kind

_UNET = "model.diffusion_model."
FAMILIES = {768: "SD1", 1024: "SD2", 2048: "SDXL"}  # by the width of the U-Net's context
_LORA_PART = re.compile(
    r"\.(lora_(up|down|mid)\.weight|lora_[AB]\.weight|alpha|dora_scale|hada_w\w+|lokr_\w+|oft_\w+|diff(_b)?)$"
)
_NUMBERED = re.compile(r"^(unet|text_encoder):\d+:(up|down)$")
_DIFFUSERS = re.compile(r"(_lora|\.lora|\.lora_linear_layer)\.(up|down)\.weight$")
_METHODS = {"hada_w1_a": "LoHa", "lokr_w1": "LoKr", "lokr_w1_a": "LoKr", "oft_blocks": "OFT", "oft_diag": "OFT"}

Shapes = Mapping[str, tuple[int, ...]]


def describe(path: Path) -> dict[str, Any]:
    """Plain data about a file: always `path`, `bytes`, `format` and `kind`, the rest by kind.

    `kind` is one of "embedding" (`vectors`, `width`, `family`), "hypernetwork" (`widths`, `parameters`, `linear`, the
    file's own keys such as `layer_structure`, and `problem` where nothing can be built so), "lora" (`ranks`, `modules`,
    `embeddings`, `methods`, `family`), "checkpoint" (`family`, `context_width`, `has_vae`, `has_text_encoder`,
    `parameters`), "vae", "picture", "unknown" (`detail`).

    Raises:
        InputError: there is no such file.
        ModelError: it is a model file that is damaged or would run code.
    """
    kind = file_kind(path)
    result: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size, "format": kind}
    if kind == "a safetensors file":
        with open_safetensors(path) as file:
            if file.shapes and all(map(TENSOR_NAME.match, file.shapes)):
                return {**result, **_hypernetwork(load_hypernetwork(path))}
            return {**result, **_describe_tensors(file.shapes, file.dtypes.values(), dict(file.metadata))}
    if kind in ("a pickle", "a zip archive"):
        return {**result, "format": "a PyTorch file", **_describe_pickle(load_pickle(path))}
    if kind == "a PNG picture":
        content = read_png(path)
        return {**result, **(_describe_pickle(content) if content is not None else {"kind": "picture"})}
    return {**result, "kind": "unknown", "detail": kind}


def describe_text(description: Mapping[str, Any]) -> str:
    """What `describe` found, as a few lines for a person."""
    facts = dict(description)
    path, size, form, kind = (facts.pop(key) for key in ("path", "bytes", "format", "kind"))
    lines = [f"{path}: {_headline(kind, facts)} ({form}, {_size(size)})"]
    metadata = facts.pop("metadata", {})
    facts.pop("detail", None)
    lines += [
        f"  {name.replace('_', ' ')}: {_plain(value)}" for name, value in facts.items() if value not in (None, "")
    ]
    lines += [f"  {name}: {_plain(value)}" for name, value in metadata.items()]
    return "\n".join(lines)


def _headline(kind: str, facts: Mapping[str, Any]) -> str:
    if kind == "embedding":
        return f"an embedding of {facts['vectors']} vectors × {facts['width']}"
    if kind == "lora":
        what = f"a LoRA of {facts['modules']} modules"
        return what + (f" with {len(facts['embeddings'])} bundled embedding(s)" if facts["embeddings"] else "")
    if kind == "checkpoint":
        return f"a checkpoint of the family {facts['family']}"
    if kind == "unknown":
        return f"nothing that is known here, {facts.get('detail', '')}".rstrip(", ")
    return {"hypernetwork": "a hypernetwork", "vae": "a VAE", "picture": "a picture without an embedding"}[kind]


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _plain(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _describe_pickle(content: Any) -> dict[str, Any]:
    if isinstance(content, list) and content and all(torch.is_tensor(item) for item in content):
        detail = f"a list of {len(content)} unnamed tensors, as the old DreamBooth extension saved a LoRA"
        return {"kind": "unknown", "detail": detail}
    if not isinstance(content, dict):
        return {"kind": "unknown", "detail": f"a {type(content).__name__}"}
    if isinstance(content.get("string_to_param"), dict):
        return _describe_embedding(content["string_to_param"], content)
    weights = {key: value for key, value in content.items() if is_width(key)}
    if weights and all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in weights.values()):
        return _hypernetwork(Hypernetwork(weights, {key: content[key] for key in content if isinstance(key, str)}))
    if isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and torch.is_tensor(value)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return _describe_tensors(shapes, (tensor.dtype for tensor in tensors.values()), {})


def _describe_embedding(terms: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    shapes = [tuple(value.shape) for value in terms.values() if torch.is_tensor(value)]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ModelError(f"This embedding holds {len(shapes)} terms.", "Only files with one term can be used.")
    facts = ("name", "step", "sd_checkpoint", "sd_checkpoint_name", "clip_skip")
    return {**_embedding(shapes[0]), **{key: content[key] for key in facts if content.get(key) is not None}}


def _hypernetwork(found: Hypernetwork) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": "hypernetwork", "widths": sorted(found.weights), **found.facts}
    tensors = [tensor for pair in found.weights.values() for half in pair for tensor in half.values()]
    facts["parameters"] = sum(tensor.numel() for tensor in tensors if torch.is_tensor(tensor))
    try:
        facts["linear"] = found.structure.linear
    except InputError as error:
        facts["problem"] = str(error)
    return facts


def _embedding(shape: tuple[int, ...]) -> dict[str, Any]:
    vectors, width = shape if len(shape) == 2 else (1, shape[0])
    return {"kind": "embedding", "vectors": vectors, "width": width, "family": FAMILIES.get(width, "unknown")}


def _describe_tensors(shapes: Shapes, dtypes: Iterable[torch.dtype], metadata: dict[str, str]) -> dict[str, Any]:
    kinds = sorted({str(dtype).removeprefix("torch.") for dtype in dtypes})
    shared = {"precision": kinds, "parameters": sum(map(_count, shapes.values())), "metadata": metadata}
    if any(name.startswith(_UNET) for name in shapes):
        return {"kind": "checkpoint", **_checkpoint(shapes), **shared}
    bundled = {name.split(".")[1] for name in shapes if name.startswith("bundle_emb.") and name.count(".") > 1}
    if bundled or any(_LORA_PART.search(name) for name in shapes):
        return {"kind": "lora", **_lora(shapes, metadata), "embeddings": sorted(bundled), **shared}
    layout, modules = _other_lora(shapes)
    if layout:
        return {"kind": "lora", "layout": layout, "modules": modules, "embeddings": [], **shared}
    if all(len(shapes.get(name, ())) == 2 for name in ("clip_l", "clip_g")):
        vectors, width = shapes["clip_l"][0], shapes["clip_l"][-1] + shapes["clip_g"][-1]
        return {"kind": "embedding", "vectors": vectors, "width": width, "family": "SDXL", "metadata": metadata}
    if len(shapes) == 1 and len(shape := next(iter(shapes.values()))) in (1, 2):
        return {**_embedding(shape), "metadata": metadata}
    if any(name.endswith("decoder.conv_in.weight") for name in shapes):
        return {"kind": "vae", **shared}
    names = ", ".join(list(shapes)[:3])
    return {"kind": "unknown", "detail": f"{len(shapes)} tensors ({names}…)", **shared}


def _other_lora(shapes: Shapes) -> tuple[str, int]:
    """The layout of a LoRA that is not kohya's, with the number of its modules; "" if it is none."""
    numbered = sum(bool(_NUMBERED.match(name)) for name in shapes)
    if numbered:
        return "cloneofsimo's, numbered; extract lora gives it names", numbered // 2
    diffusers = sum(bool(_DIFFUSERS.search(name)) for name in shapes)
    return ("diffusers'; extract lora gives it kohya's names", diffusers // 2) if diffusers else ("", 0)


def _count(shape: tuple[int, ...]) -> int:
    result = 1
    for length in shape:
        result *= length
    return result


def _checkpoint(shapes: Shapes) -> dict[str, Any]:
    context = next(
        (shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight") and len(shape) > 1), None
    )
    encoders = {
        "SDXL": "conditioner.embedders.",
        "SD2": "cond_stage_model.model.",
        "SD1": "cond_stage_model.transformer.",
    }
    found = [family for family, prefix in encoders.items() if any(name.startswith(prefix) for name in shapes)]
    first = shapes.get(f"{_UNET}input_blocks.0.0.weight", ())
    inputs = first[1] if len(first) > 1 else 4
    return {
        "family": found[0] if found else FAMILIES.get(context or 0, "unknown"),
        "purpose": {4: "", 5: "depth", 8: "editing by instruction", 9: "inpainting"}.get(inputs, f"{inputs} channels"),
        "context_width": context,
        "has_text_encoder": bool(found),
        "has_vae": any(name.startswith("first_stage_model.") for name in shapes),
    }


def _lora(shapes: Shapes, metadata: Mapping[str, str]) -> dict[str, Any]:
    downs = (".lora_down.weight", ".lora_A.weight")
    ranks = {shape[0] for name, shape in shapes.items() if name.endswith(downs) and shape}
    modules = {_LORA_PART.sub("", name) for name in shapes if _LORA_PART.search(name)}
    methods = {_METHODS[part] for part in (name.rpartition(".")[2] for name in shapes) if part in _METHODS}
    if any(name.endswith((".diff", ".diff_b")) for name in shapes):
        methods.add("full difference")
    encoder = [name for name in modules if name.startswith("lora_te")]
    return {
        "family": _lora_family(shapes, metadata),
        "ranks": sorted(ranks),
        "methods": sorted(methods | ({"LoRA"} if ranks else set())),
        "modules": len(modules),
        "unet_modules": len(modules) - len(encoder),
        "text_encoder_modules": len(encoder),
    }


def told_family(names: Iterable[str], metadata: Mapping[str, str]) -> str:
    """The family that a LoRA's metadata or the names in it tell, "" if they do not."""
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("sdxl") or any(name.startswith("lora_te2_") for name in names):
        return "SDXL"
    return f"SD{version[4]}" if version.startswith(("sd_v1", "sd_v2")) else ""


def _lora_family(shapes: Shapes, metadata: Mapping[str, str]) -> str:
    if told := told_family(shapes, metadata):
        return told
    for name, shape in shapes.items():
        if len(shape) > 1 and (name.endswith("attn2_to_k.lora_down.weight") or name.startswith("bundle_emb.")):
            return FAMILIES.get(shape[1], "unknown")
    return "unknown"
