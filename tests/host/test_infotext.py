"""What previews say of how they were made."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.host.infotext import KEY, infotext, read_infotext, with_network
from lib_dsm.host.run import train
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.run_folder import RunFolder

REQUEST = PreviewRequest(
    prompt="solo, zorgle\nsmile", negative="hat", seed=3, steps=9, cfg=4.5, width=64, height=96, sampler="DPM++ 2M",
    scheduler="Karras",
)  # fmt: skip


def test_the_layout_is_the_webuis():
    assert infotext(REQUEST, 2, "folder/a, b.safetensors", "0123456789abcdef") == (
        "solo, zorgle\nsmile\nNegative prompt: hat\n"
        "Steps: 9, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4.5, Seed: 3, Size: 64x96, "
        'Model hash: 0123456789, Model: "a, b", Clip skip: 2'
    )
    plain = infotext(PreviewRequest(prompt="solo"), 1, "a.ckpt", "")
    assert plain == "solo\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: a"


def test_a_network_that_the_prompt_does_not_name_is_put_into_it():
    text = infotext(REQUEST, 1, "a.ckpt", "")
    named = with_network(text, REQUEST.prompt, "<hypernet:h:0.5>")
    assert named == text.replace("smile\n", "smile <hypernet:h:0.5>\n", 1)
    assert with_network(named, f"{REQUEST.prompt} <hypernet:h:0.5>", "<hypernet:h:0.5>") == named
    assert with_network(text, REQUEST.prompt, "") == text
    assert with_network("\nSteps: 1", "", "<hypernet:h:1>") == "<hypernet:h:1>\nSteps: 1"


@pytest.mark.parametrize("kind", ["embedding", "hypernetwork"])
def test_a_runs_previews_hold_it_beside_the_network(studio, run_config, kind):
    hypernetwork = {"kind": kind, "learning_rate": "0.00001", "preview_strength": 0.5}
    more = hypernetwork if kind == "hypernetwork" else {}
    request = PreviewRequest(prompt="solo, [name]", negative="ねこ, [name]", width=64, height=64, steps=2)
    config = run_config(
        previews=(request,), preview_every=2, save_every=0, max_steps=2, width=64, height=64, clip_skip=2, **more
    )
    result = train(studio, config, Job("test"))
    (preview,) = RunFolder(result.folder).previews()
    path = Path(preview["path"])
    usage = " <hypernet:zorgle:0.5>" if kind == "hypernetwork" else ""
    text = read_infotext(path)
    assert text.startswith(f"solo, zorgle{usage}\nNegative prompt: ねこ, zorgle\nSteps: 2, Sampler: Euler a, CFG scale")
    assert text.endswith("Clip skip: 2")
    if kind == "embedding":
        assert load_embedding(path).step == 2


def test_what_holds_nothing_gives_nothing(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    assert KEY == "parameters"
    for name in ("plain.png", "text.png", "missing.png"):
        assert read_infotext(tmp_path / name) == ""
