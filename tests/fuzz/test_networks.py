"""Spoiled safetensors files, PyTorch pickles and PNGs with embeddings, through every reader of network files."""

from __future__ import annotations

import base64
import io
import json
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_dsm.errors import ModelError
from lib_dsm.extraction.lora_content import read_lora
from lib_dsm.networks import hypernetwork
from lib_dsm.networks.embedding import PNG_KEY, Embedding, load_embedding, png_bytes, save_pt
from lib_dsm.networks.hypernetwork import Hypernetwork, load_hypernetwork
from lib_dsm.networks.inspect import describe, describe_text
from lib_dsm.networks.pickles import load_pickle
from lib_dsm.networks.safetensors_files import open_safetensors, save_tensors
from lib_dsm.networks.tensor_files import open_tensors
from lib_dsm.networks.webui_optimizer import read_hypernetwork_moments, read_moments
from tests.fuzz.mangled import deep, examples, odd_json, odd_text, refused_or_fine, spoiled

VECTORS = torch.linspace(-1, 1, 16).reshape(2, 8)


def through_every_reader(path: Path) -> None:
    """Whatever a file is, each reader takes it or refuses it."""
    found = refused_or_fine(lambda: describe(path))
    if found is not None:
        json.dumps(found, default=str)
        describe_text(found)
    for streamed in (False, True):
        refused_or_fine(lambda streamed=streamed: read_all(path, streamed))
    refused_or_fine(lambda: load_embedding(path))
    loaded = refused_or_fine(lambda: load_hypernetwork(path))
    if loaded is not None:
        refused_or_fine(lambda: loaded.structure)
        refused_or_fine(lambda: loaded.pairs())
        assert loaded.step is None or isinstance(loaded.step, int)
    refused_or_fine(lambda: read_lora(path))
    refused_or_fine(lambda: read_moments(path, VECTORS))
    refused_or_fine(lambda: read_hypernetwork_moments(path, path, [torch.Size((2, 2))]))


def spoiled_through_every_reader(path: Path, good: list[bytes], count: int) -> None:
    """`count` spoiled copies of these files, one after the other in `path`, through every reader."""

    @examples(count)
    @given(spoiled(good))
    def check(content):
        path.write_bytes(content)
        through_every_reader(path)

    check()


def read_all(path: Path, streamed: bool) -> dict[str, torch.Tensor]:
    with open_tensors(path, streamed) as file:
        return {name: file.read(name) for name in file.shapes}


# --- good files -----------------------------------------------------------------------------------------------------


def saved(content: Any, zipped: bool = True) -> bytes:
    target = io.BytesIO()
    torch.save(content, target, _use_new_zipfile_serialization=zipped)
    return target.getvalue()


def embedding_content() -> dict[str, Any]:
    return {
        "string_to_token": {"*": 265},
        "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS.clone())}),
        "name": "word",
        "step": 500,
        "sd_checkpoint": None,
    }


def hypernetwork_content() -> dict[Any, Any]:
    half = OrderedDict({"linear.0.weight": torch.ones(16, 8), "linear.0.bias": torch.zeros(16),
                        "linear.1.weight": torch.ones(8, 16), "linear.1.bias": torch.zeros(8)})  # fmt: skip
    return {8: (half, half), "step": 3, "name": "net", "layer_structure": [1, 2, 1], "activation_func": "linear"}


def good_pickles() -> list[bytes]:
    moments = {"step": torch.tensor(4.0), "exp_avg": VECTORS, "exp_avg_sq": VECTORS**2}
    contents: list[Any] = [
        embedding_content(),
        hypernetwork_content(),
        {"state_dict": {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 4, 3, 3)}, "global_step": 7},
        {"hash": "0", "optimizer_state_dict": {"state": {0: moments}, "param_groups": [{"params": [0]}]}},
        [torch.ones(4, 2), torch.ones(2, 4)] * 4,
    ]
    return [saved(content, zipped) for content in contents for zipped in (True, False)]


def good_safetensors(folder: Path) -> list[bytes]:
    path = folder / "made.safetensors"
    made: list[tuple[dict[str, torch.Tensor], dict[str, str]]] = [
        ({"emb_params": VECTORS}, {"name": "word"}),
        ({"clip_l": VECTORS, "clip_g": VECTORS}, {}),
        ({"lora_unet_a.lora_up.weight": torch.ones(4, 2), "lora_unet_a.lora_down.weight": torch.ones(2, 4).half(),
          "lora_unet_a.alpha": torch.tensor(2.0), "bundle_emb.word.string_to_param.*": VECTORS},
         {"ss_output_name": "x", "ss_tag_frequency": "{}"}),
        ({"unet.a.lora_A.weight": torch.ones(2, 4), "unet.a.lora_B.weight": torch.ones(4, 2)},
         {"lora_adapter_metadata": '{"unet.lora_alpha": 2, "unet.r": 2}'}),
        ({"unet:0:up": torch.ones(4, 2), "unet:0:down": torch.ones(2, 4), "<w>": torch.ones(8)}, {"<w>": "<embed>"}),
    ]  # fmt: skip
    contents = []
    for tensors, metadata in made:
        save_tensors(path, tensors, metadata)
        contents.append(path.read_bytes())
    pair = ({"linear.0.weight": torch.ones(8, 8)}, {"linear.0.weight": torch.ones(8, 8)})
    hypernetwork.save_safetensors(Hypernetwork({8: pair}, {"layer_structure": [1, 1], "step": 2}), path)
    return [*contents, path.read_bytes()]


# --- safetensors ----------------------------------------------------------------------------------------------------


def test_spoiled_safetensors(place):
    spoiled_through_every_reader(place / "spoiled.safetensors", good_safetensors(place), 150)


def framed(header: str | bytes, data: bytes = bytes(64), length: int | None = None) -> bytes:
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.one_of(st.sampled_from(["F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F64"]), odd_json()),
        "shape": st.one_of(
            st.lists(st.integers(-2, 2**40), max_size=3), st.lists(st.integers(0, 4), max_size=3), odd_json()
        ),
        "data_offsets": st.one_of(
            st.tuples(st.integers(0, 70), st.integers(0, 70)).map(list),
            st.lists(st.integers(-(2**66), 2**66), min_size=2, max_size=2),
            odd_json(),
        ),
    }
)
_NAMES = st.one_of(
    st.sampled_from(
        ["emb_params", "768.k.linear.0.weight", "lora_unet_a.lora_up.weight", "lora_unet_a.lora_down.weight",
         "lora_unet_a.alpha", "clip_l", "clip_g", "unet:0:up", "unet:0:down", "bundle_emb.x.y", "__metadata__",
         "model.diffusion_model.input_blocks.0.0.weight", "unet.a.lora_A.weight", "lora_unet_a.lora_mid.weight"]
    ),
    odd_text(12),
)  # fmt: skip


@examples(200)
@given(st.one_of(st.dictionaries(_NAMES, st.one_of(_ENTRY, odd_json()), max_size=5), odd_json()))
def test_odd_safetensors_headers(place, header):
    path = place / "odd.safetensors"
    path.write_bytes(framed(json.dumps(header)))
    through_every_reader(path)


@examples(60)
@given(
    st.lists(st.tuples(_NAMES, st.lists(st.integers(0, 5), max_size=4), st.sampled_from(["F32", "F16", "U8", "I64"])),
             max_size=4),
    st.dictionaries(st.sampled_from(["hypernetwork", "lora_adapter_metadata", "step", "ss_base_model_version"]),
                    st.one_of(odd_json().map(json.dumps), odd_text())),
)  # fmt: skip
def test_whole_safetensors_files_of_any_names_shapes_and_metadata(place, tensors, metadata):
    header: dict[str, Any] = {"__metadata__": metadata}
    widths = {"F32": 4, "F16": 2, "U8": 1, "I64": 8}
    data = b""
    for name, shape, dtype in tensors:
        count = widths[dtype]
        for length in shape:
            count *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + count]}
        data += bytes(range(256)) * (count // 256) + bytes(count % 256)
    path = place / "whole.safetensors"
    path.write_bytes(framed(json.dumps(header), data))
    through_every_reader(path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2 << 30, 2**31 - 1, 100, 0])
def test_a_header_of_an_announced_length_is_refused(place, length):
    path = place / "long.safetensors"
    path.write_bytes(framed("{}", length=length))
    with pytest.raises(ModelError), open_safetensors(path):
        pass
    through_every_reader(path)


@pytest.mark.parametrize(
    "header", [deep("[", "]"), deep('{"a":', "}").replace(":}", ":1}", 1), '{"a":' + "9" * 5000 + "}"]
)
def test_a_header_nested_too_deep_or_with_endless_numbers_is_refused(place, header):
    path = place / "deep.safetensors"
    path.write_bytes(framed(header))
    with pytest.raises(ModelError), open_safetensors(path):
        pass


def test_overlapping_tensors_are_refused_or_harmless(place):
    entry = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
    path = place / "overlapping.safetensors"
    path.write_bytes(framed(json.dumps({f"t{number}": entry for number in range(2000)})))
    through_every_reader(path)


# --- pickles --------------------------------------------------------------------------------------------------------


def test_spoiled_pickles(place):
    spoiled_through_every_reader(place / "spoiled.pt", good_pickles(), 220)


def zipped(structure: bytes, **records: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", structure)
        for name, content in {"0": bytes(64), **records}.items():
            archive.writestr(f"archive/data/{name}", content)
    return target.getvalue()


def legacy(structure: bytes) -> bytes:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    return magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + structure + pickle.dumps([], 2)


def test_spoiled_structures_of_valid_archives(place):
    """The archive is whole, so that the pickle in it is really run."""
    structures = []
    for content in good_pickles()[::2]:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            structures.append(archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl"))))
    path = place / "structure.pt"

    @examples(250)
    @given(spoiled(structures), st.booleans())
    def check(structure, new):
        path.write_bytes(zipped(structure) if new else legacy(structure))
        through_every_reader(path)

    check()


_OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
_PIECES = st.one_of(
    st.sampled_from(_OPCODES),
    st.sampled_from([b"}", b"]", b")", b"(", b"K\x01", b"X\x01\0\0\0*", b"\x85", b"\x86", b"R", b"b", b"s", b"u"]),
    st.sampled_from([
        b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
        b"ctorch.nn.modules.container\nParameterDict\n", b"cbuiltins\nset\n", b"ctorch\nSize\n",
        b"ctorch._utils\n_rebuild_parameter\n", b"cos\nsystem\n", b"cbuiltins\neval\n",
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQ",
    ]),
    st.tuples(st.sampled_from([b"r", b"j", b"\x8d", b"\x8e", b"\x96", b"\x95", b"\x8b", b"T", b"B", b"X"]),
              st.integers(0, 2**64 - 1)).map(lambda pair: pair[0] + pair[1].to_bytes(8, "little")),
    st.binary(max_size=6),
)  # fmt: skip


@examples(250)
@given(st.lists(_PIECES, max_size=30), st.booleans())
def test_pickles_of_any_instructions(place, pieces, new):
    structure = b"\x80\x02" + b"".join(pieces) + b"."
    path = place / "instructions.pt"
    path.write_bytes(zipped(structure) if new else legacy(structure))
    through_every_reader(path)


class _Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def named(module: str, name: str, canary: str, protocol: int) -> bytes:
    """A call of whatever those names are found to be, by GLOBAL or, from protocol 4 on, by STACK_GLOBAL."""
    if protocol < 4:
        called = f"c{module}\n{name}\n".encode("utf-8", "surrogatepass")
    else:
        called = (
            b"".join(
                b"X" + struct.pack("<I", len(text)) + text
                for text in (part.encode("utf-8", "surrogatepass") for part in (module, name))
            )
            + b"\x93"
        )
    argument = canary.encode()
    return b"\x80" + bytes([protocol]) + called + b"X" + struct.pack("<I", len(argument)) + argument + b"\x85R."


CALLS = (
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "call"), ("subprocess", "Popen"),
    ("builtins", "eval"), ("builtins", "exec"), ("__builtin__", "eval"), ("builtins", "getattr"),
    ("builtins", "__import__"), ("collections", "OrderedDict.fromkeys"), ("torch._utils", "torch.os.system"),
    ("torch", "load"), ("torch.hub", "load"), ("torch.serialization", "load"), ("pickle", "loads"), ("", ""),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("torch", "Size.__class__"), ("runpy", "run_path"),
    ("ｏｓ", "system"), ("os\0", "system"), ("collections", "OrderedDict\ud800"), ("webbrowser", "open"),
    ("lib_dsm.networks.pickles", "load_pickle"), ("torch", "FloatStorage.from_file"), ("pathlib", "Path"),
)  # fmt: skip


@pytest.mark.parametrize(("module", "name"), CALLS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_with_code_is_refused_by_name_and_runs_nothing(place, module, name, protocol):
    canary = place / "canary"
    structure = named(module, name, f"touch {canary}", protocol)
    for content in (zipped(structure), legacy(structure), structure):
        path = place / "code.pt"
        path.write_bytes(content)
        with pytest.raises(ModelError):
            load_pickle(path)
        through_every_reader(path)
        assert not canary.exists()


@examples(60)
@given(st.sampled_from(CALLS), st.integers(0, 4), st.integers(0, 5), st.booleans())
def test_code_that_is_hidden_deep_in_a_good_file_runs_nothing(place, names, where, protocol, new):
    canary = place / "canary"
    command = f"touch {canary}"
    bad: Any = (
        _Calls(eval, f"open({str(canary)!r}, 'w')") if names[1] == "eval" else _Calls(__import__("os").system, command)
    )
    nested = [{"key": (1, bad)}, {8: (bad, {})}, OrderedDict(a=bad), _Calls(OrderedDict, [("a", bad)]), {bad: 1}][where]
    structure = pickle.dumps({**{"string_to_param": {"*": nested}}, "state_dict": nested}, min(protocol, 5))
    path = place / "hidden.pt"
    path.write_bytes(zipped(structure) if new else legacy(structure))
    through_every_reader(path)
    assert not canary.exists()


# --- embeddings in pictures -----------------------------------------------------------------------------------------


def png_with(text: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text(PNG_KEY, text)
    target = io.BytesIO()
    Image.new("RGB", (8, 8)).save(target, "PNG", pnginfo=chunks)
    return target.getvalue()


@examples(150)
@given(st.one_of(
    odd_json(),
    st.fixed_dictionaries({"string_to_param": st.fixed_dictionaries({"*": st.fixed_dictionaries({
        "TORCHTENSOR": st.one_of(odd_json(), st.lists(st.lists(st.floats(width=32), max_size=3), max_size=3))})}),
        "name": odd_json(), "step": odd_json(), "clip_skip": odd_json()}),
))  # fmt: skip
def test_odd_contents_in_a_picture(place, content):
    path = place / "word.png"
    path.write_bytes(png_with(base64.b64encode(json.dumps(content).encode()).decode()))
    through_every_reader(path)


def test_spoiled_pictures_with_embeddings(place):
    good = [png_bytes(Embedding("word", VECTORS, 5), Image.new("RGB", (16, 16)))]
    spoiled_through_every_reader(place / "spoiled.png", good, 100)


@examples(40)
@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_text_in_the_chunk(place, text):
    path = place / "text.png"
    path.write_bytes(png_with(text))
    through_every_reader(path)


def test_nesting_in_the_chunk_is_refused(place):
    path = place / "deep.png"
    path.write_bytes(png_with(base64.b64encode(deep("[", "]").encode()).decode()))
    with pytest.raises(ModelError):
        load_embedding(path)
    save_pt(Embedding("word", VECTORS), place / "fine.pt")
    assert load_embedding(place / "fine.pt").vectors.shape == (2, 8)
