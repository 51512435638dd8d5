"""The tabs as a whole, and what their handlers say."""

from __future__ import annotations

import html
import json
import re
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.errors import DsmError, InputError
from lib_dsm.extraction.lora_content import read_lora
from lib_dsm.extraction.options import EditOptions, ExtractionOptions, HypernetworkOptions
from lib_dsm.host.studio import MICRO
from lib_dsm.networks import embedding as embeddings
from lib_dsm.networks.hypernetwork import Hypernetwork, facts_of, save_pt
from lib_dsm.networks.hypernetwork_modules import Pairs, initialise
from lib_dsm.networks.hypernetwork_structure import Structure
from lib_dsm.tagging.options import TagOptions

pytest.importorskip("gradio")
from lib_dsm.ui import lora_checkpoints, messages, tabs
from lib_dsm.ui.lora_lists import weighted
from lib_dsm.ui.studio import is_loopback, serve

INTERACTIVE = {"Textbox", "Number", "Slider", "Checkbox", "Dropdown", "Radio", "Button", "File"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def page(studio):
    return tabs.build(Service(studio), 'to"ken', "/a <project>")


def widgets(page):
    return [block for block in page.blocks.values() if type(block).__name__ in INTERACTIVE]


def test_every_widget_has_an_id_of_its_own(page):
    ids = [block.elem_id for block in widgets(page)]
    assert all(name and name.startswith("dsm_") for name in ids), [b.label for b in widgets(page) if not b.elem_id]
    assert len(ids) == len(set(ids))


def test_labels_differ_where_the_webui_saves_by_them(page):
    saved = [block for block in widgets(page) if not getattr(block, "do_not_save_to_config", False)]
    labels = [block.value if type(block).__name__ == "Button" else block.label for block in saved]
    assert len(labels) == len(set(labels)), sorted(label for label in labels if labels.count(label) > 1)


def test_every_option_can_be_set(page):
    ids = {block.elem_id for block in widgets(page)}
    assert {f"dsm_tag_{name}" for name in options.specs(TagOptions)} <= ids  # those of Train: test_train_tab.py
    assert {f"dsm_lora_{name}" for name in options.specs(ExtractionOptions)} <= ids
    left_out = {"overwrite", "energy"}  # a result has a name of its own; its size is said by rank or megabytes
    assert {f"dsm_lora_hyper_{name}" for name in options.specs(HypernetworkOptions).keys() - left_out} <= ids
    assert {f"dsm_lora_result_{name}" for name in options.specs(EditOptions).keys() - left_out} <= ids


def test_a_checkpoint_that_is_gone_is_a_sentence(page):
    ids = [block.elem_id for block in page.blocks.values()]
    assert "dsm_train_output" not in ids  # where a program may write is not for the page to say
    handler = next(fn for fn in page.fns.values() if [block.elem_id for block in fn.inputs][:1] == ["dsm_lora_base"])
    values = [getattr(block, "value", None) for block in handler.inputs]
    said = handler.fn("gone.safetensors", "micro.safetensors", "new", *values[3:])
    assert "There is no checkpoint" in said and "KeyError" not in said


def wait_for(found):
    end = time.monotonic() + 30
    while not found() and time.monotonic() < end:
        time.sleep(0.02)


def test_a_lora_is_as_small_as_what_was_decided_by(page, monkeypatch):
    """Numbers that belong to another way to decide are passed over."""
    seen = []
    monkeypatch.setattr("lib_dsm.extraction.survey.survey", lambda base, tuned, chosen, job: seen.append(chosen))
    after = ["dsm_lora_tuned", "dsm_lora_way"]
    look = next(fn for fn in page.fns.values() if [block.elem_id for block in fn.inputs][1:3] == after)
    values = [getattr(block, "value", None) for block in look.inputs][3:]
    for way in lora_checkpoints.WAYS:
        look.fn("micro.safetensors", "micro.safetensors", way, *values)
    wait_for(lambda: len(seen) == 3)
    assert [(item.rank, item.energy, item.size) for item in seen] == [(64, 0, 0), (64, 0.95, 0), (64, 0, 100)]


def handler_of(page, first):
    return next(fn for fn in page.fns.values() if [block.elem_id for block in fn.inputs][:1] == [first])


@pytest.mark.parametrize("what", ["hypernetwork", "files"])
def test_embeddings_are_bundled_in_the_same_file(page, studio, what):
    embeddings.save_pt(embeddings.Embedding("asuka", torch.ones(2, 80)), studio.folders.embeddings / "asuka.pt")
    structure = Structure(widths=(80,), layers=(1.0, 2.0, 1.0))
    pairs = Pairs.empty(structure)
    initialise(pairs, "Normal", 0.1, 1)
    save_pt(Hypernetwork(pairs.tensors(), facts_of(structure, "h", 1, "Normal")), studio.folders.hypernetworks / "h.pt")
    module = "lora_unet_mid_block_attentions_0_proj_in"
    lora = {f"{module}.lora_up.weight": torch.ones(4, 1), f"{module}.lora_down.weight": torch.ones(1, 4)}
    studio.folders.lora.mkdir(exist_ok=True)
    safetensors.torch.save_file(lora, studio.folders.lora / "l.safetensors")
    first, given, chosen = {
        "hypernetwork": (
            "dsm_lora_hypernetwork",
            ["h.pt", "micro.safetensors", "new", ""],
            "dsm_lora_hyper_embeddings",
        ),
        "files": ("dsm_lora_sources", ["l", "new"], "dsm_lora_edit_embeddings"),
    }[what]
    handler = handler_of(page, first)
    ids = [block.elem_id for block in handler.inputs]
    assert ids[len(given)] == chosen and ("dsm_lora_hyper_clip_skip" in ids) == (what == "hypernetwork")
    rest = [getattr(block, "value", None) for block in handler.inputs][len(given) + 1 :]
    assert "no embedding" in handler.fn(*given, ["gone.pt"], *rest)
    handler.fn(*given, ["asuka.pt"], *rest)
    wait_for(lambda: all(job.state != "running" for job in studio.jobs.all()))
    job = studio.jobs.all()[-1]
    assert job.state == "done", job.error
    assert read_lora(studio.folders.lora / "new.safetensors").embeddings.keys() == {"asuka"}
    assert "Bundled embeddings: asuka" in job.data["summary"] and job.data["lora"]["words"] == ["asuka"]


def test_the_page_looks_into_no_file_elsewhere(page, studio, tmp_path):
    secret, own = tmp_path / "secret.safetensors", studio.folders.lora / "own.safetensors"
    own.parent.mkdir(parents=True, exist_ok=True)
    module = "lora_unet_mid_block_attentions_0_proj_in"
    for path in (secret, own):
        tensors = {f"{module}.lora_up.weight": torch.ones(4, 1), f"{module}.lora_down.weight": torch.ones(1, 4)}
        safetensors.torch.save_file(tensors, path)
    service = Service(studio)
    inspect, compare = (
        fn for fn in page.fns.values() if [block.elem_id for block in fn.inputs][:1] == ["dsm_lora_file"]
    )
    assert "outside of the opened folders" in inspect.fn(str(secret)) and "a LoRA of" in inspect.fn(str(own))
    assert "a LoRA of" not in inspect.fn(str(secret)) and "checkpoint" in inspect.fn(str(MICRO))
    assert "outside of the opened folders" in compare.fn(str(secret), "own.safetensors")
    assert "distance 0.000" in compare.fn(str(own), "own.safetensors")
    for line in (f"{secret}=0.5", "../../secret"):
        with pytest.raises(DsmError, match="outside"):
            weighted(service, line)
    assert weighted(service, "own=0.5") == (own.resolve(), 0.5) and weighted(service, str(own)) == (own, 1.0)
    with pytest.raises(InputError, match="no weight"):
        weighted(service, "own=nan")


def test_a_hypernetworks_own_checkpoint_is_found(page, studio):
    from lib_dsm.ui.lora_lists import AUTOMATIC, base_of

    service, path = Service(studio), studio.folders.hypernetworks / "h.pt"
    structure = Structure(widths=(80,), layers=(1.0, 2.0, 1.0))
    pairs = Pairs.empty(structure)
    initialise(pairs, "Normal", 0.1, 1)
    for named in ("micro", "gone"):
        facts = facts_of(structure, "h", 1, "Normal", checkpoint_name=named)
        save_pt(Hypernetwork(pairs.tensors(), facts), path)
        if named == "micro":
            assert base_of(service, path, AUTOMATIC) == MICRO
        else:
            with pytest.raises(InputError, match='"gone"'):
                base_of(service, path, None)
            assert base_of(service, path, "micro.safetensors") == MICRO


def test_the_token_and_paths_are_escaped(page):
    root = next(block.value for block in page.blocks.values() if 'data-dsm="root"' in str(getattr(block, "value", "")))
    assert html.unescape(re.search('data-token="(.*?)"', root)[1]) == 'to"ken'
    assert "<project>" not in root


def test_what_a_handler_raises_becomes_a_line_and_leaves_the_rest():
    def fails(*_):
        raise InputError("This <b>is</b> wrong.", "Do that.")

    said, rest = messages.guarded("tag", 2, fails)("x")
    assert "&lt;b&gt;" in said and "<b>" not in said
    assert 'data-tab="tag"' in said and "Do that." in said
    assert "value" not in rest


def test_a_surprise_becomes_a_line_too():
    said = messages.guarded("tag", 1, lambda: 1 / 0)()
    assert "ZeroDivisionError" in said and "Traceback" not in said


def test_the_scripts_know_every_place(page):
    places = set(re.findall(r'data-dsm="(\w+)"', " ".join(str(getattr(b, "value", "")) for b in page.blocks.values())))
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "javascript").glob("*.js"))
    assert places == set(re.findall(r"widgets\.(\w+) = ", scripts))


def test_the_scripts_and_the_style_name_no_foreign_address():
    for path in [*(ROOT / "javascript").glob("*.js"), ROOT / "style.css"]:
        found = set(re.findall(r"https?://[^\s\"']+", path.read_text(encoding="utf-8")))
        assert found <= {"http://www.w3.org/2000/svg"}, path


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.5", False), ("example.org", False)],
)  # fmt: skip
def test_which_addresses_are_this_machines_own(address, own):
    assert is_loopback(address) is own


def test_others_are_let_in_only_with_a_password(studio):
    with pytest.raises(InputError, match="--password"):
        serve(studio, "0.0.0.0", 0)


def test_a_taken_port_is_a_sentence(studio):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="--port"):
        serve(studio, port=taken.getsockname()[1])


def test_a_tampered_host_name_is_refused(studio):
    from starlette.testclient import TestClient

    from lib_dsm.ui.studio import make_app

    app = make_app(studio)
    assert TestClient(app, base_url="http://127.0.0.1").get("/").status_code == 200
    assert TestClient(app, base_url="http://evil.example").get("/").status_code == 400
    locked = TestClient(make_app(studio, password="open", local=False), base_url="http://10.0.0.1")
    assert "data-token" not in locked.get("/").text
    assert "data-token" not in json.dumps(locked.get("/config").json())
    assert locked.get("/dsm/v1/status").status_code == 403
    assert locked.get("/dsm/v1/status", auth=("dsm", "open")).status_code == 200


def test_what_belongs_to_the_webui_alone_is_not_in_the_studio():
    from lib_dsm.ui import assets

    assert "sendToTxt2img" in (ROOT / "javascript" / "dsm_webui.js").read_text(encoding="utf-8")
    assert "async function sendToTxt2img" not in assets.head()
    assert "window.DSM =" in assets.head()


def test_what_the_host_decides_is_not_kept_as_a_default(page):
    found = {block.elem_id: getattr(block, "do_not_save_to_config", False) for block in widgets(page)}
    assert found["dsm_train_clip_skip"] and found["dsm_train_checkpoint"] and found["dsm_train_template_file"]
    assert not found["dsm_train_batch_size"]
