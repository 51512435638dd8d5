"""What the fuzzing has found, one small case each, so that it stays mended whatever the next run draws."""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib

import pytest
import torch

from lib_dsm import options
from lib_dsm.cropping.names import Names
from lib_dsm.cropping.plan import CropPlan
from lib_dsm.dataset import index_cache
from lib_dsm.dataset.acts import read_file, read_summary
from lib_dsm.diffusion.sizes import read_sizes
from lib_dsm.errors import DsmError, InputError, ModelError
from lib_dsm.extraction.lora_content import read_lora
from lib_dsm.files import inside, read_json
from lib_dsm.host.outputs import Outputs
from lib_dsm.host.tune import read_grid
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.networks.inspect import describe
from lib_dsm.networks.safetensors_files import save_tensors
from lib_dsm.tagging.labels import read_labels
from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.store import FILE, ScoreStore
from lib_dsm.training.config import RunConfig
from tests.fuzz.mangled import deep
from tests.fuzz.test_networks import png_with

_BODY = b"\1\0\0\0\5\0\0\0\7\0"
GOOD_SCORES = _BODY + zlib.crc32(_BODY).to_bytes(4, "little")
UP, DOWN, MID, ALPHA = (
    f"lora_unet_a.{part}" for part in ("lora_up.weight", "lora_down.weight", "lora_mid.weight", "alpha")
)


@pytest.mark.parametrize(
    "tensors",
    [
        {UP: torch.ones(2, 2), DOWN: torch.tensor(1.0)},
        {UP: torch.tensor(1.0), DOWN: torch.ones(2, 2)},
        {UP: torch.ones(2, 3), DOWN: torch.ones(2, 2)},
        {UP: torch.ones(2, 0), DOWN: torch.ones(0, 2), ALPHA: torch.tensor(1.0)},
        {UP: torch.ones(2, 2), DOWN: torch.ones(2, 2), ALPHA: torch.ones(3)},
        {UP: torch.ones(2, 2), DOWN: torch.ones(2, 2), MID: torch.tensor(1.0)},
    ],
    ids=["down", "up", "apart", "nothing", "alphas", "middle"],
)
def test_parts_of_a_lora_that_do_not_fit_together(tmp_path, tensors):
    save_tensors(tmp_path / "lora.safetensors", tensors, {})
    with pytest.raises(ModelError, match=r"lora_unet_a in .* do not fit together"):
        read_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    "names", [("clip_l", "clip_g"), (UP, DOWN), ("model.diffusion_model.input_blocks.0.0.weight",),
              ("model.diffusion_model.a.attn2.to_k.weight",), ("bundle_emb.x.y",), ("a_attn2_to_k.lora_down.weight",)]
)  # fmt: skip
def test_a_single_number_where_a_matrix_should_be_is_described(tmp_path, names):
    save_tensors(tmp_path / "x.safetensors", {name: torch.tensor(1.0) for name in names}, {})
    assert describe(tmp_path / "x.safetensors")["kind"]


@pytest.mark.parametrize("number", [10**400, [[1], [2, 3]], [["x"]], None])
def test_an_embedding_in_a_picture_of_odd_numbers(tmp_path, number):
    content = json.dumps({"string_to_param": {"*": {"TORCHTENSOR": number}}})
    (tmp_path / "a.png").write_bytes(png_with(base64.b64encode(content.encode()).decode()))
    with pytest.raises(ModelError):
        load_embedding(tmp_path / "a.png")


def test_a_step_of_several_numbers_is_unknown(tmp_path):
    torch.save({"string_to_param": {"*": torch.ones(1, 8)}, "step": torch.ones(3)}, tmp_path / "a.pt")
    assert load_embedding(tmp_path / "a.pt").step is None


def test_half_a_character_in_an_error_can_be_shown():
    error = DsmError("It is \ud800.", "Rename \udfff.")
    assert str(error).encode("utf-8") == b"It is ?. Rename ?."


@pytest.mark.parametrize("content", [deep("[", "]"), deep('{"a":', "}")])
def test_json_without_end(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError):
        read_sizes(tmp_path / "a.yaml")


def test_a_text_that_is_a_number_beyond_all_floats():
    config = options.from_json(RunConfig, {"name": "a", "checkpoint": 10**400, "dataset": "c"})
    assert config.checkpoint == "1" + 400 * "0"


def test_what_is_said_of_a_missing_key_is_a_sentence():
    with pytest.raises(InputError, match=r'The items lack "source"\. Path in the source folder\.$'):
        options.from_json(CropPlan, {"items": [{}]})


@pytest.mark.parametrize("changes", [{"problems": None}, {"trials": [1]}, {"trials": None}])
def test_a_damaged_grid(tmp_path, changes):
    config = options.to_json(RunConfig(name="a", checkpoint="b", dataset="c"))
    (tmp_path / "grid.json").write_text(json.dumps({"config": config, "trials": [], "problems": {}, **changes}))
    with pytest.raises(InputError, match="is no grid"):
        read_grid(tmp_path)


@pytest.mark.parametrize("content", ["[1]", "null", '"x"'])
def test_a_damaged_record_of_files(tmp_path, content):
    (tmp_path / "outputs.json").write_text(content)
    with pytest.raises(InputError, match="no record of files"):
        Outputs(tmp_path / "outputs.json")


@pytest.mark.parametrize("name", ["a\0.txt", "a\ud800.txt", "../a.txt"])
def test_a_history_with_a_name_that_no_file_has(tmp_path, name):
    lines = [
        {"version": 1, "title": "x", "time": "x"},
        {"path": name, "before": None, "after": None},
        {"state": "done"},
    ]
    (tmp_path / "000001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        read_file(tmp_path / "000001.jsonl")


def test_kept_scores_that_promise_more_than_there_is():
    body = (1000).to_bytes(4, "little") + bytes(6)
    with pytest.raises(InputError, match="cut short"):
        Scores.from_bytes(body + zlib.crc32(body).to_bytes(4, "little"))


def test_a_damaged_name_in_the_kept_scores_is_no_failure(tmp_path):
    """SQLite quotes it in what it says, which then is no text."""
    with ScoreStore(tmp_path / "scores") as store:
        store.put("model", [(b"picture", Scores.from_bytes(GOOD_SCORES))])
    file = tmp_path / "scores" / FILE
    kept = file.read_bytes()
    at = int(0.13685563206672668 * len(kept))
    for place in range(at, at + 12):
        file.write_bytes(kept[:place] + b"\0\0\0\x80" + kept[place:])
        with ScoreStore(tmp_path / "scores") as store:
            store.get("model", b"picture")
            assert isinstance(store.facts("model"), dict)


@pytest.mark.parametrize("facts", ["{", "[]", b"\xff", 5, "[" * 100_000])
def test_facts_and_scores_of_another_kind_are_none(tmp_path, facts):
    with ScoreStore(tmp_path / "scores") as store:
        store.put("model", [(b"picture", Scores.from_bytes(GOOD_SCORES))])
    base = sqlite3.connect(tmp_path / "scores" / FILE)
    base.execute("UPDATE models SET facts = ?", (facts,))
    base.execute("UPDATE scores SET content = ?", (10**10,))
    base.commit()
    base.close()
    with ScoreStore(tmp_path / "scores") as store:
        assert store.facts("model") == {}
        assert store.get("model", b"picture") is None


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_has_is_not_inside(tmp_path, name):
    with pytest.raises(InputError, match="is no path"):
        inside(tmp_path / name, tmp_path)


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "1e999", "NaN"])
def test_an_infinity_where_a_whole_number_should_be(tmp_path, number):
    """JSON has some here, which `int` fails on otherwise than on other values."""
    header = f'{{"a": {{"dtype": "F32", "shape": [{number}], "data_offsets": [0, 0]}}}}'.encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="damaged"):
        describe(tmp_path / "a.safetensors")
    (tmp_path / "000001.jsonl").write_text(
        f'{{"version": 1, "title": "x", "time": "", "captions": {number}}}\n{{"state": "done"}}\n', encoding="utf-8"
    )
    assert read_summary(tmp_path / "000001.jsonl").captions == 0
    (tmp_path / ".dsm").mkdir()
    (tmp_path / ".dsm" / "crops.jsonl").write_text(f'{{"key": "k", "name": "a.png", "run": {number}}}\n')
    assert not Names(tmp_path).all()
    content = f'{{"version": 1, "rows": {number}, "blocks": []}}\n'.encode()
    (tmp_path / ".dsm" / "tag-index.bin").write_bytes(content + zlib.crc32(content).to_bytes(4, "little"))
    assert index_cache.load(tmp_path, False) is None
    (tmp_path / "tags.json").write_text(
        f'{{"dataset_info": {{"tag_mapping": {{"idx_to_tag": {{"0": "a"}}, "tag_to_category": {number}}}}}}}'
    )
    with pytest.raises(DsmError):
        read_labels(tmp_path / "tags.json")
