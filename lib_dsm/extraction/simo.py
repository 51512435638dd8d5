"""LoRA files of cloneofsimo's `lora` package and of the DreamBooth extension that used it: numbers instead of names.

A `.pt` is a bare list [up 0, down 0, up 1, …] in the order in which the model's modules are gone through; the text
encoder lies in a second such file. The safetensors variant calls them `unet:0:up`, `text_encoder:0:down`, and keeps
embeddings under their token, which the metadata flag as `<embed>`. All are applied at strength 1.

The U-Net's order is that of diffusers at the time: down blocks, up blocks, middle block; in a block attentions before
ResNets; in a transformer block self-attention first. After it came GEGLU and then cross-attention until about April
2023, and the other way round since; GEGLU is told by its 8-fold width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lib_dsm.errors import ModelError
from lib_dsm.files import is_file
from lib_dsm.networks.pickles import load_pickle
from lib_dsm.networks.safetensors_files import open_safetensors, read_header
from lib_dsm.networks.tensor_files import file_kind

Pair = tuple[torch.Tensor, torch.Tensor]
Modules = dict[str, tuple[torch.Tensor, torch.Tensor, float]]

_NUMBERED = re.compile(r"^(unet|text_encoder):(\d+):(up|down)$")
_EMBED = "<embed>"
_ATTENTION = ("to_q", "to_k", "to_v", "to_out_0")
_TEXT = ("k_proj", "v_proj", "q_proj", "out_proj")
_TRANSFORMER = 9  # pairs of a transformer block: two attentions of four, and GEGLU
_BLOCKS = 16  # transformer blocks of a U-Net
_GEGLU = 8  # its width in those of the block
_RESNETS = 22 * 3 + 14


def is_simo(path: Path) -> bool:
    """Whether a file has this layout.

    Raises:
        InputError: there is no such file.
        ModelError: it is damaged.
    """
    kind = file_kind(path)
    if kind == "a safetensors file":
        return any(_NUMBERED.match(name) for name in read_header(path).shapes)
    return kind in ("a pickle", "a zip archive") and _is_list(load_pickle(path))


def simo_modules(path: Path, text_encoder: Path | None = None) -> Modules:
    """Module name → up, down, scale of a file and, for the `.pt`, of the text encoder's.

    A `.pt` of the text encoder alone is told by its shapes. A file `NAME_txt.pt` or `NAME.text_encoder.pt` beside the
    first is taken without being named.

    Raises:
        ModelError: the list does not fit a U-Net or a text encoder of Stable Diffusion; the pair at fault is named.
    """
    if file_kind(path) == "a safetensors file":
        return _safetensors(path)
    pairs = _pairs(path)
    if _is_text(pairs):
        return _text(pairs, path)
    found = _unet(pairs, path)
    beside = [path.with_name(f"{path.stem}_txt{path.suffix}"), path.with_name(f"{path.stem}.text_encoder{path.suffix}")]
    second = text_encoder or next((file for file in beside if is_file(file)), None)
    if second is not None:
        texts = _pairs(second)
        if not _is_text(texts):
            raise ModelError(f"{second} is not the list of a text encoder.", "Choose the file that ends in _txt.pt.")
        found |= _text(texts, second)
    return found


def simo_embeddings(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Embeddings in the safetensors variant, as the WebUI's bundles have them."""
    if file_kind(path) != "a safetensors file":
        return {}
    with open_safetensors(path) as file:
        names = [name for name in file.shapes if file.metadata.get(name) == _EMBED]
        vectors = {name: file.read(name).float().reshape(-1, file.shapes[name][-1]) for name in names}
    return {name.replace(".", "_"): {"string_to_param.*": tensor} for name, tensor in vectors.items()}


def _is_list(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and all(torch.is_tensor(item) for item in content)


def _pairs(path: Path) -> list[Pair]:
    content = load_pickle(path)
    if not _is_list(content) or len(content) % 2:
        raise ModelError(f"{path} is no list of pairs of tensors.", "Choose a .pt of the DreamBooth extension.")
    return _checked(list(zip(content[::2], content[1::2], strict=True)), path)


def _checked(pairs: list[Pair], path: Path) -> list[Pair]:
    for index, (up, down) in enumerate(pairs):
        if up.dim() < 2 or down.dim() < 2 or up.shape[1] != down.shape[0]:
            raise ModelError(
                f"Pair {index} of {path} is {_size(up)} by {_size(down)}, which cannot be multiplied.",
                "Choose a LoRA of the DreamBooth extension.",
            )
    return pairs


def _safetensors(path: Path) -> Modules:
    with open_safetensors(path) as file:
        found: dict[str, dict[int, dict[str, torch.Tensor]]] = {"unet": {}, "text_encoder": {}}
        for name in file.shapes:
            match = _NUMBERED.match(name)
            if match:
                found[match[1]].setdefault(int(match[2]), {})[match[3]] = file.read(name)
    modules: Modules = {}
    for part, name_them in (("unet", _unet), ("text_encoder", _text)):
        numbered = found[part]
        if not numbered:
            continue
        if sorted(numbered) != list(range(len(numbered))) or any(len(pair) != 2 for pair in numbered.values()):
            raise ModelError(f"{path} lacks some of the pairs of its {part}.", "Get the file again.")
        pairs = [(numbered[index]["up"], numbered[index]["down"]) for index in range(len(numbered))]
        modules |= name_them(_checked(pairs, path), path)
    return modules


def _is_text(pairs: Sequence[Pair]) -> bool:
    """A text encoder has one width throughout."""
    return len(pairs) % len(_TEXT) == 0 and len({(up.shape[0], down.shape[1]) for up, down in pairs}) == 1


def _text(pairs: Sequence[Pair], path: Path) -> Modules:
    if not _is_text(pairs):
        raise ModelError(f"{path} has {len(pairs)} pairs for a text encoder, not four a layer.", "Get the file again.")
    names = (
        f"lora_te_text_model_encoder_layers_{index // len(_TEXT)}_self_attn_{_TEXT[index % len(_TEXT)]}"
        for index in range(len(pairs))
    )
    return {name: (up, down, 1.0) for name, (up, down) in zip(names, pairs, strict=True)}


def _unet(pairs: Sequence[Pair], path: Path) -> Modules:
    known = {
        _BLOCKS * _TRANSFORMER: (True, False),
        _BLOCKS * (_TRANSFORMER - 1): (False, False),
        _BLOCKS * _TRANSFORMER + _RESNETS: (True, True),
        _BLOCKS * (_TRANSFORMER - 1) + _RESNETS: (False, True),
    }
    if len(pairs) not in known:
        raise ModelError(
            f"{path} has {len(pairs)} pairs; a U-Net of Stable Diffusion 1 or 2 has {_BLOCKS * _TRANSFORMER}, "
            f"with ResNets {_BLOCKS * _TRANSFORMER + _RESNETS}.",
            "Choose a LoRA of the DreamBooth extension for one of these.",
        )
    geglu, resnets = known[len(pairs)]
    width = pairs[0][0].shape[0]
    early = geglu and pairs[4][0].shape[0] == _GEGLU * width
    context = pairs[(6 if early else 5)][1].shape[1]
    modules: Modules = {}
    places = _places(width, context, geglu, early, resnets)
    for index, ((name, rows, columns), (up, down)) in enumerate(zip(places, pairs, strict=True)):
        if up.shape[0] != rows or (columns and down.shape[1] != columns):
            raise ModelError(
                f"Pair {index} of {path} is {up.shape[0]}×{down.shape[1]}, where {name} has {rows}×{columns or '…'}.",
                "Its order is none of those that are known.",
            )
        modules[f"lora_unet_{name}"] = (up, down, 1.0)
    return modules


def _places(width: int, context: int, geglu: bool, early: bool, resnets: bool) -> Iterator[tuple[str, int, int | None]]:
    """Names with rows and columns of the weight, columns None where they are not looked at."""
    widths = [width, 2 * width, 4 * width, 4 * width]
    blocks = [(f"down_blocks_{level}", widths[level], 2, level < 3) for level in range(4)]
    blocks += [(f"up_blocks_{step}", widths[3 - step], 3, step > 0) for step in range(4)]
    blocks.append(("mid_block", widths[3], 1, True))
    for block, own, count, attention in blocks:
        for index in range(count if attention else 0):
            yield from _transformer(f"{block}_attentions_{index}_transformer_blocks_0", own, context, geglu, early)
        for index in range((count + (block == "mid_block")) if resnets else 0):
            name = f"{block}_resnets_{index}"
            yield f"{name}_conv1", own, None
            yield f"{name}_time_emb_proj", own, None
            yield f"{name}_conv2", own, own
            if block.startswith("up") or (block in ("down_blocks_1", "down_blocks_2") and index == 0):
                yield f"{name}_conv_shortcut", own, None


def _transformer(name: str, own: int, context: int, geglu: bool, early: bool) -> Iterator[tuple[str, int, int | None]]:
    first = [(f"{name}_attn1_{part}", own, own) for part in _ATTENTION]
    second = [(f"{name}_attn2_{part}", own, context if part in ("to_k", "to_v") else own) for part in _ATTENTION]
    between = [(f"{name}_ff_net_0_proj", _GEGLU * own, own)] if geglu else []
    yield from (*first, *between, *second) if early else (*first, *second, *between)


def _size(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape))
