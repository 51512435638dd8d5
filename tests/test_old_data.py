"""What the tools before this one wrote opens here, and what is written here opens there.

The old files are made here by hand, in the layouts that those tools have; the rules of their readers are written out.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lib_dsm.dataset.acts import Change
from lib_dsm.dataset.captions import read_caption
from lib_dsm.dataset.history import apply
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.files import sha256
from lib_dsm.host.templates import with_host_template
from lib_dsm.networks import embedding, hypernetwork
from lib_dsm.networks.embedding import Embedding, load_embedding
from lib_dsm.networks.hypernetwork import Hypernetwork, load_hypernetwork
from lib_dsm.networks.hypernetwork_modules import Pairs
from lib_dsm.networks.webui_optimizer import (
    checksum,
    moments_beside,
    read_hypernetwork_moments,
    save_hypernetwork_moments,
)
from lib_dsm.pruning.metadata import export_metadata, import_metadata
from lib_dsm.pruning.prune import PruneOptions, plan_prune
from lib_dsm.training.config import RunConfig
from lib_dsm.training.templates import template_lines

WIDTH = 8


def picture(folder: Path, name: str, caption: bytes | None) -> Path:
    path = folder / f"{name}.png"
    Image.new("RGB", (16, 16)).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption)
    return path


# --- captions -------------------------------------------------------------------------------------------------------

OLD_CAPTIONS = {
    # BooruDatasetTagManager on Windows: a byte order mark in some versions, no line end, brackets escaped or not.
    "manager": (b"\xef\xbb\xbf1girl, solo, long hair, hatsune miku \\(append\\)",
                ["1girl", "solo", "long hair", "hatsune miku \\(append\\)"]),
    # The WD1.4 tagger extension: underscores if so set, brackets escaped, weights where asked for.
    "tagger": (b"1girl, long_hair, (blue_eyes:0.98), saber_\\(fate\\), :d, ^_^",
               ["1girl", "long_hair", "(blue_eyes:0.98)", "saber_\\(fate\\)", ":d", "^_^"]),
    # The WebUI's own preprocessing: one line, from deepdanbooru and BLIP together.
    "webui": (b"a woman with blue hair, 1girl, aqua hair, :o", ["a woman with blue hair", "1girl", "aqua hair", ":o"]),
    # kohya's scripts: a line end at the end, tags with no space after the comma.
    "kohya": (b"1girl,solo,long hair\n", ["1girl", "solo", "long hair"]),
}  # fmt: skip


@pytest.mark.parametrize("tool", OLD_CAPTIONS)
def test_captions_are_read_pruned_and_put_back_to_the_byte(tmp_path, tool):
    raw, tags = OLD_CAPTIONS[tool]
    path = picture(tmp_path, "a", raw)
    caption = read_caption(path)
    assert caption.tags == tags
    assert caption.note == ""
    assert caption.bytes_with(tags) == raw
    shorter = caption.bytes_with(tags[1:])
    outcome = apply(tmp_path, "prune", [Change("a.txt", raw, shorter)])
    assert [changed.name for changed in outcome.changed] == ["a.txt"]
    # The old tools split at commas and strip.
    text = path.with_suffix(".txt").read_text(encoding="utf-8-sig")
    assert [part.strip() for part in text.split(",")] == tags[1:]


def test_tags_of_several_tools_are_the_same_tags_to_a_prune(tmp_path):
    picture(tmp_path, "a", b"1girl, long_hair")
    picture(tmp_path, "b", b"1girl, long hair, smile")
    made = plan_prune(tmp_path, PruneOptions(remove=("long hair",)), TagIndex.read(tmp_path))
    assert {change.name: change.after for change in made.changes} == {"a.png": ["1girl"], "b.png": ["1girl", "smile"]}


# --- embeddings -----------------------------------------------------------------------------------------------------

VECTORS = torch.linspace(-0.2, 0.2, 4 * WIDTH).reshape(4, WIDTH)


def webui_embedding(path: Path, torch_1: bool) -> None:
    """As `Embedding.save` of the WebUI 1.x leaves it when its vectors are a module's parameters."""
    terms = torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS.clone())})
    if torch_1:
        terms.__dict__.pop("_keys")  # torch before 1.12 kept no list of its own
    content = {"string_to_token": {"*": 265}, "string_to_param": terms, "name": "miku", "step": 1500,
               "sd_checkpoint": "4bdfc29c", "sd_checkpoint_name": "SD1.5"}  # fmt: skip
    torch.save(content, path, _use_new_zipfile_serialization=not torch_1)


@pytest.mark.parametrize("torch_1", [True, False])
def test_an_embedding_of_the_webui_with_its_optimizer_goes_on(tmp_path, torch_1):
    path = tmp_path / "miku.pt"
    webui_embedding(path, torch_1)
    found = load_embedding(path)
    assert torch.equal(found.vectors, VECTORS)
    assert (found.step, found.checkpoint_name, found.checkpoint_hash) == (1500, "SD1.5", "4bdfc29c")

    parameter = torch.nn.Parameter(VECTORS.clone())
    optimizer = torch.optim.AdamW([parameter], lr=0.005, weight_decay=0.0)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.save({"hash": checksum(VECTORS), "optimizer_state_dict": optimizer.state_dict()}, f"{path}.optim")
    moments, told = moments_beside(path, found.vectors)
    assert moments is not None, told
    assert torch.equal(moments["exp_avg"], optimizer.state[parameter]["exp_avg"])


def test_what_is_written_is_an_embedding_to_the_webui(tmp_path):
    """Its reader: `string_to_param` with one tensor, or one tensor in a dict; a PNG with its text chunk."""
    written = Embedding("miku", VECTORS, 500, "SD1.5", "4bdfc29c" * 8)
    embedding.save_pt(written, tmp_path / "miku.pt")
    content = torch.load(tmp_path / "miku.pt", weights_only=True)
    terms = content["string_to_param"]
    assert len(terms) == 1
    assert next(iter(terms.values())).shape == (4, WIDTH)
    kinds = {"name": str, "step": int, "sd_checkpoint": str, "sd_checkpoint_name": str, "string_to_token": dict}
    assert {key: type(content[key]) for key in kinds} == kinds
    assert next(iter(content["string_to_token"].values())) == 265


# --- hypernetworks --------------------------------------------------------------------------------------------------


def webui_half(seed: int, second: int = 2) -> OrderedDict[str, torch.Tensor]:
    """`second` is the number of the second linear layer: an activation between the two is one of the modules."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"linear.0.weight": (2 * WIDTH, WIDTH), "linear.0.bias": (2 * WIDTH,),
              f"linear.{second}.weight": (WIDTH, 2 * WIDTH), f"linear.{second}.bias": (WIDTH,)}  # fmt: skip
    return OrderedDict((name, torch.randn(shape, generator=generator) * 0.01) for name, shape in shapes.items())


def webui_hypernetwork(**more: Any) -> dict[Any, Any]:
    return {
        WIDTH: (webui_half(1), webui_half(2)), "step": 2000, "name": "style",
        "layer_structure": [1, 2, 1], "activation_func": "relu", "is_layer_norm": False,
        "weight_initialization": "Normal", "use_dropout": False, "sd_checkpoint": "4bdfc29c",
        "sd_checkpoint_name": "SD1.5", "activate_output": True, "last_layer_dropout": False,
        "dropout_structure": [0, 0, 0], "optional_info": None, **more,
    }  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hypernetwork_of_the_webui_with_its_optimizer_goes_on(tmp_path, zipped):
    path = tmp_path / "style.pt"
    torch.save(webui_hypernetwork(), path, _use_new_zipfile_serialization=zipped)
    found = load_hypernetwork(path)
    assert (found.name, found.step, found.structure.activation) == ("style", 2000, "relu")
    pairs = found.pairs()
    parameters = [tensor for half in (webui_half(1), webui_half(2)) for tensor in half.values()]
    shapes = [tensor.shape for tensor in parameters]
    assert isinstance(pairs, Pairs)
    weights = [torch.nn.Parameter(tensor) for tensor in parameters]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    state = {"hash": sha256(path)[:10], "optimizer_name": "AdamW", "optimizer_state_dict": optimizer.state_dict()}
    torch.save(state, f"{path}.optim")
    moments = read_hypernetwork_moments(Path(f"{path}.optim"), path, shapes)
    assert torch.equal(moments[0]["exp_avg"], optimizer.state[weights[0]]["exp_avg"])

    # And back: the WebUI loads the state into an optimizer of its own.
    save_hypernetwork_moments(tmp_path / "ours.optim", path, moments, 1e-5)
    ours = torch.load(tmp_path / "ours.optim", weights_only=True)
    assert (ours["optimizer_name"], ours["hash"]) == ("AdamW", sha256(path)[:10])
    other = torch.optim.AdamW([torch.nn.Parameter(tensor.clone()) for tensor in parameters], lr=1e-5)
    other.load_state_dict(ours["optimizer_state_dict"])
    first = other.param_groups[0]["params"][0]
    assert torch.equal(other.state[first]["exp_avg_sq"], moments[0]["exp_avg_sq"])


def test_keys_of_train_gamma_are_understood_and_kept(tmp_path):
    path = tmp_path / "gamma.pt"
    more = {"skip_connection": True, "upsample_linear": "Linear", "some_later_key": [1, "x"]}
    torch.save(webui_hypernetwork(**more, dropout_structure=[0, 0.3, 0], use_dropout=True), path)
    found = load_hypernetwork(path)
    assert found.structure.skip
    assert found.structure.dropout == (0.0, 0.3, 0.0)
    hypernetwork.save_pt(found, tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    original = torch.load(path, weights_only=True)
    assert {key: again[key] for key in original if isinstance(key, str)} == {
        key: original[key] for key in original if isinstance(key, str)
    }
    assert all(torch.equal(again[WIDTH][0][name], tensor) for name, tensor in original[WIDTH][0].items())


def test_the_oldest_hypernetworks_have_fewer_keys(tmp_path):
    """Those of October 2022 hold widths, `step`, `name`, and a short hash, and nothing of their structure."""
    path = tmp_path / "first.pt"
    torch.save(
        {WIDTH: (webui_half(3, 1), webui_half(4, 1)), "step": 100, "name": "first", "sd_checkpoint": "7460a6fa"}, path
    )
    found = load_hypernetwork(path)
    assert found.structure.layers == (1, 2, 1)
    assert found.structure.activation == "linear"
    assert found.pairs() is not None


def test_what_is_written_is_a_hypernetwork_to_the_webui(tmp_path):
    """Its reader takes integer keys for widths, and of the other keys these types."""
    structure = Hypernetwork({WIDTH: (webui_half(1), webui_half(2))}, {"layer_structure": [1, 2, 1]}).structure
    facts = hypernetwork.facts_of(structure, "style", 10, "Normal", "SD1.5", "4bdfc29c" * 8)
    hypernetwork.save_pt(Hypernetwork({WIDTH: (webui_half(1), webui_half(2))}, facts), tmp_path / "style.pt")
    content = torch.load(tmp_path / "style.pt", weights_only=True)
    assert [key for key in content if isinstance(key, int)] == [WIDTH]
    keys, values = content[WIDTH]
    assert list(keys) == list(values) == list(webui_half(1))
    kinds = {"step": int, "name": str, "layer_structure": list, "activation_func": str, "is_layer_norm": bool,
             "weight_initialization": str, "sd_checkpoint": str, "sd_checkpoint_name": str, "activate_output": bool,
             "use_dropout": bool, "dropout_structure": list, "last_layer_dropout": bool}  # fmt: skip
    assert {key: type(content[key]) for key in kinds} == kinds
    assert content["optional_info"] is None


# --- templates, metadata --------------------------------------------------------------------------------------------


def test_templates_of_the_webui_are_used_by_name_and_by_path(tmp_path, studio):
    templates = studio.folders.templates
    templates.mkdir(parents=True, exist_ok=True)
    (templates / "subject_filewords.txt").write_bytes(
        b"a photo of a [name], [filewords]\r\na rendering of a [name], [filewords]\r\n\r\n"
    )
    lines = template_lines("file", str(templates / "subject_filewords.txt"))
    assert lines == ("a photo of a [name], [filewords]", "a rendering of a [name], [filewords]")
    config = RunConfig(
        name="x", checkpoint="m", dataset="d", template_source="file", template_file="subject_filewords.txt"
    )
    assert with_host_template(studio, config).template == lines


def test_kohyas_metadata_goes_in_and_out(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    picture(folder, "001", b"old")
    picture(folder, "002", None)
    source = tmp_path / "meta_lat.json"
    old = {
        "C:\\train\\10_miku\\001.png": {
            "tags": "1girl, long hair",
            "caption": "a girl",
            "train_resolution": [512, 768],
        },
        "C:\\train\\10_miku\\002": {"caption": "a girl with a hat"},
    }
    source.write_text(json.dumps(old), encoding="utf-8")
    brought = import_metadata(folder, source)
    brought.apply()
    assert (folder / "001.txt").read_bytes() == b"1girl, long hair"
    assert (folder / "002.txt").read_bytes() == b"a girl with a hat"
    export_metadata(folder, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    # kohya's scripts want whole paths as keys and a text for "tags".
    assert all(Path(key).is_file() and isinstance(entry["tags"], str) for key, entry in content.items())
    assert len(content) == 2
