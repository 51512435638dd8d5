"""Spoiled JSON and other records: settings, presets, plans, runs, grids, histories, caches."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from lib_dsm import options
from lib_dsm.cropping.draft import DRAFT, Draft
from lib_dsm.cropping.names import Names
from lib_dsm.cropping.plan import CropItem, CropOptions, CropPlan, PlanPicture
from lib_dsm.cropping.write import write_plan
from lib_dsm.dataset import history, index_cache
from lib_dsm.dataset.acts import Change
from lib_dsm.dataset.looks import looks
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.diffusion.sizes import read_sizes
from lib_dsm.errors import InputError
from lib_dsm.files import read_json
from lib_dsm.host.outputs import Outputs
from lib_dsm.host.past import past_run
from lib_dsm.host.tune import read_grid
from lib_dsm.pruning.metadata import import_metadata
from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.store import FILE, ScoreStore
from lib_dsm.training.config import PreviewRequest, RunConfig, read_config
from lib_dsm.training.presets import list_presets, settings_of_run
from lib_dsm.training.run_folder import RunFolder
from tests.fuzz.mangled import changed_json, deep, examples, odd_json, refused_or_fine, spoiled

CONFIG = options.to_json(
    RunConfig(name="word", checkpoint="model", dataset="/set", previews=(PreviewRequest(prompt="a"),), max_steps=5)
)
PLAN = json.loads(json.dumps(options.to_json(
    CropPlan(
        items=(CropItem("a.png", "center", (0, 0, 64, 64), 32, 32),),
        pictures=(PlanPicture("a.png", "confirmed", "1"),),
    )
)))  # fmt: skip
RECORD = {"version": 1, "begun": "2024-05-01T12:00:00+00:00", "config": CONFIG,
          "network": {"layer_structure": [1, 2, 1]}, "dataset": {"pictures": 3}, "ended": ""}  # fmt: skip
PRESET = {"version": 1, "help": "x", "kind": "embedding", "settings": {"vectors": 4, "template": ["[name]"]}}
GRID = {
    "version": 1,
    "config": CONFIG,
    "trials": [{"learning_rate": "0.1"}, {"learning_rate": "0.2"}],
    "problems": {"1": "x"},
}
METADATA = {
    "a.png": {"tags": "1girl, solo", "caption": "a girl", "train_resolution": [512, 768]},
    "/x/b": {"tags": "c"},
}


def texts(value: Any) -> st.SearchStrategy[bytes]:
    """The JSON of `value` with other values in it, or with other bytes, or any JSON, or nesting without end."""
    good = json.dumps(value).encode()
    return st.one_of(
        changed_json(value).map(lambda changed: json.dumps(changed).encode()),
        spoiled([good]),
        odd_json().map(lambda changed: json.dumps(changed).encode()),
        st.sampled_from([b"", b"\xff\xfe{\0}\0", deep("[", "]").encode(), deep('{"a":', "}").encode(), b"9" * 5000]),
    )


def with_its_checksum(content: bytes) -> bytes:
    """With the last four bytes as they are where the others are whole, so that these are really looked at."""
    return content[:-4] + zlib.crc32(content[:-4]).to_bytes(4, "little")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("a", "b"):
        Image.new("RGB", (80, 64), (90, 20, 30)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("1girl, solo", encoding="utf-8")
    return folder


@examples(250)
@given(texts(CONFIG))
def test_settings_of_a_run(place, content):
    path = place / "RUN.json"
    path.write_bytes(content)
    config = refused_or_fine(lambda: read_config(path))
    if config is not None:
        assert options.from_json(RunConfig, json.loads(json.dumps(options.to_json(config)))) == config


@examples(120)
@given(texts(PRESET))
def test_presets(place, content):
    folder = place / "presets"
    folder.mkdir(exist_ok=True)
    (folder / "mine.json").write_bytes(content)
    presets, problems = list_presets(folder)
    assert problems or presets[-1].name == "mine"
    json.dumps([preset.to_json() for preset in presets])


@examples(200)
@given(texts(PLAN))
def test_crop_plans(place, pictures, content):
    path = place / "plan.json"
    path.write_bytes(content)
    plan = refused_or_fine(lambda: CropPlan.load(path))
    if plan is None:
        return
    plan.due()
    plan.confirmed()
    small = all(0 < item.width <= 512 and 0 < item.height <= 512 for item in plan.items)
    if small and all(abs(edge) <= 4096 for item in plan.items for edge in item.box):
        out = place / "crops"
        shutil.rmtree(out, ignore_errors=True)
        report = refused_or_fine(lambda: write_plan(plan, pictures, out, CropOptions()))
        written = list(out.rglob("*.png")) if out.is_dir() else []
        assert report is None or len(written) == len(report.written)


@examples(40)
@given(texts(PLAN))
def test_a_damaged_draft_is_kept_and_begun_anew(place, content):
    folder = place / "draft"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / DRAFT).write_bytes(content)
    draft = Draft(folder / DRAFT)
    assert isinstance(draft.load(), CropPlan)
    assert any(path.read_bytes() == content for path in folder.iterdir())


@examples(120)
@given(texts(RECORD))
def test_records_of_runs(place, studio, content):
    run = studio.folders.logs / "word"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    (run / "run.json").write_bytes(content)
    refused_or_fine(lambda: settings_of_run(run))
    refused_or_fine(lambda: RunFolder(run).read_record())
    job = refused_or_fine(lambda: past_run(studio, run))
    assert job is None or job.snapshot()["state"] in ("done", "cancelled")


LOSSES = b"step,loss,rate\n1,0.5,0.001\n2,0.25,0.001\n"
PREVIEWS = b'step,file,prompt,seed,width,height\n2,step-000002-1.png,"a, b",5,64,64\n'
VALIDATIONS = b"step,draws,seconds,losses\n2,key,0.5,0.1 0.2 0.3 0.4\n"


@examples(120)
@given(spoiled([LOSSES]), spoiled([PREVIEWS]), spoiled([VALIDATIONS]))
def test_tables_of_runs(place, losses, previews, validations):
    run = place / "run"
    (run / "images").mkdir(parents=True, exist_ok=True)
    (run / "images" / "step-000002-1.png").touch()
    for name, content in (("losses", losses), ("previews", previews), ("validation", validations)):
        (run / f"{name}.csv").write_bytes(content)
    folder = RunFolder(run)
    list(folder.losses())
    folder.validations()
    assert [preview["step"] for preview in folder.previews()] == [2]


def test_spoiled_states_of_runs(place):
    run = RunFolder(place / "states")
    run.save_state(2, {"a": torch.ones(3)}, lambda folder: None)
    state = run.state_file(2, "state.safetensors")
    good = state.read_bytes()

    @examples(60)
    @given(spoiled([good]))
    def check(content):
        state.write_bytes(content)
        refused_or_fine(lambda: run.state_of(2))
        refused_or_fine(run.load_latest)

    check()


@examples(100)
@given(texts(GRID))
def test_grids(place, content):
    folder = place / "word.tune"
    folder.mkdir(exist_ok=True)
    (folder / "grid.json").write_bytes(content)
    refused_or_fine(lambda: read_grid(folder))


@examples(120)
@given(texts(METADATA))
def test_metadata_of_kohyas_scripts(place, pictures, content):
    path = place / "meta.json"
    path.write_bytes(content)
    found = refused_or_fine(lambda: import_metadata(pictures, path))
    assert found is None or all("/" not in change.path for change in found.changes)


@examples(60)
@given(texts({"/a": "0" * 64}))
def test_records_of_outputs(place, content):
    (place / "outputs.json").write_bytes(content)
    refused_or_fine(lambda: Outputs(place / "outputs.json"))


def test_histories(place):
    """Whatever its files say, nothing outside the folder is touched, and nothing of it ends the program."""
    outside = place / "outside.txt"
    outside.write_text("canary", encoding="utf-8")
    folder = place / "history"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "a.txt").write_text("old", encoding="utf-8")
    history.apply(folder, "edit", [Change("a.txt", b"old", b"new")])
    record = next((folder / ".dsm" / "history").glob("*.jsonl"))
    lines = [json.loads(line) for line in record.read_bytes().splitlines()]
    ways = ("../outside.txt", str(outside), "a/../../outside.txt", "\0.txt", "a\ud800.txt", "a" * 3000 + ".txt")
    escapes = [{"path": way, "before": None, "after": {"text": "x"}} for way in ways]
    moves = [{"move": "a.png", "to": "../b.png"}, {"move": "../outside.txt", "to": ".dsm/removed/o.txt"}]
    good = [b"".join(json.dumps(line).encode() + b"\n" for line in lines)]

    def changed(drawn: Any) -> bytes:
        value, extra, open_ended = drawn
        inner = value if isinstance(value, list) else [value]
        inner = [*inner[:-1], *extra, *([] if open_ended else inner[-1:])]
        return b"".join(json.dumps(line).encode() + b"\n" for line in inner)

    odd = st.tuples(changed_json(lines), st.lists(st.sampled_from([*escapes, *moves]), max_size=2), st.booleans())

    @examples(200)
    @given(st.one_of(odd.map(changed), spoiled(good), st.just(deep("[", "]").encode() + b"\n")))
    def check(content):
        record.write_bytes(content)
        (folder / "a.txt").write_text("new", encoding="utf-8")
        for read in (history.history, history.summaries, history.recover, history.undo, history.redo, history.stamp):
            refused_or_fine(lambda read=read: read(folder))
        assert outside.read_text(encoding="utf-8") == "canary"
        assert not (place / "b.png").exists()

    check()


CROPS = [{"key": "k", "name": "a.png", "source": "a.png", "part": "", "sha256": "0", "run": 1},
         {"name": "a.png", "caption": "0"}, {"run": 1, "aside": 2}]  # fmt: skip


@examples(80)
@given(changed_json(CROPS), st.booleans())
@example([{**CROPS[0], "name": "1" * 300}], False)  # longer than a file system takes
@example([{**CROPS[0], "name": "a\0.png"}], False)
def test_records_of_crops(place, lines, nested):
    out = place / "made"
    (out / ".dsm").mkdir(parents=True, exist_ok=True)
    content = b"\n".join(json.dumps(line).encode() for line in (lines if isinstance(lines, list) else [lines]))
    (out / ".dsm" / "crops.jsonl").write_bytes(deep("[", "]").encode() + b"\n" + content if nested else content)
    names = Names(out)
    for made in names.all():
        place_of = names.place(made)
        assert place_of is None or out in place_of.parents


def test_caches(place, pictures):
    folder = place / "cached"
    shutil.copytree(pictures, folder)
    TagIndex.read(folder, False)
    looks(sorted(folder.glob("*.png")), place / "looks.json", 60.0)
    index = TagIndex.read(folder, False)
    cache = next((folder / ".dsm").glob("tag-index*"), None)
    kept_looks = (place / "looks.json").read_bytes()
    kept_index = cache.read_bytes() if cache is not None else b'{"version": 1, "rows": 2, "blocks": [1, 2]}\n0000'

    @examples(60)
    @given(spoiled([kept_looks]), spoiled([kept_index]), st.booleans())
    def check(look, kept, checked):
        (place / "looks.json").write_bytes(look)
        assert len(looks(sorted(folder.glob("*.png")), place / "looks.json", 60.0)) == 2
        if cache is not None:
            cache.write_bytes(with_its_checksum(kept) if checked else kept)
            index_cache.load(folder, False)
            assert len(TagIndex.read(folder, False)) == len(index)

    check()


def test_kept_scores(place):
    good = Scores.from_bytes(with_its_checksum(b"\1\0\0\0\5\0\0\0\7\0" + bytes(4)))
    assert list(good.places) == [5]

    @examples(60)
    @given(spoiled([good.to_bytes()]), st.booleans())
    def check(content, checked):
        refused_or_fine(lambda: Scores.from_bytes(with_its_checksum(content) if checked else content))

    check()
    with ScoreStore(place / "scores") as store:
        store.put("model", [(b"picture", good)])
    kept = (place / "scores" / FILE).read_bytes()

    @examples(20)
    @given(spoiled([kept]))
    def check_file(content):
        shutil.rmtree(place / "scores")
        (place / "scores").mkdir()
        (place / "scores" / FILE).write_bytes(content)
        with ScoreStore(place / "scores") as store:
            store.get("model", b"picture")
            store.facts("model")

    check_file()


YAML = b"""model:
  params:
    linear_start: 0.00085
    linear_end: 0.012
    timesteps: 1000
    scale_factor: 0.18215
    unet_config:
      params: {in_channels: 4, out_channels: 4, model_channels: 320, attention_resolutions: [4, 2, 1],
               num_res_blocks: 2, channel_mult: [1, 2, 4, 4], num_heads: 8, transformer_depth: 1, context_dim: 768}
    first_stage_config: {params: {ddconfig: {ch: 128, ch_mult: [1, 2, 4, 4], num_res_blocks: 2, z_channels: 4,
                                           resolution: 256}}}
    cond_stage_config: {target: ldm.modules.encoders.modules.FrozenCLIPEmbedder}
"""
LAUGHS = (
    b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % ((ord("b") + n, ord("b") + n) + (ord("a") + n,) * 9)
        for n in range(12)
    )
    + b"model: *m\n"
)


@examples(80)
@given(
    st.one_of(spoiled([YAML]), st.sampled_from([LAUGHS, b"!!python/object/apply:os.system ['touch x']", b"[" * 5000]))
)
def test_descriptions_of_models(place, content):
    path = place / "model.yaml"
    path.write_bytes(content)
    refused_or_fine(lambda: read_sizes(path))


@pytest.mark.parametrize("content", [deep("[", "]"), deep('{"a":', "}"), "9" * 100_000, "nul", '"\\ud800'])
def test_json_that_cannot_be_read_is_refused(place, content):
    path = place / "any.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError):
        read_json(path)
