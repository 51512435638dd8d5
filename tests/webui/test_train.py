"""The main job through the WebUI: from pictures to an embedding in its prompts, over the routes the page uses."""

from __future__ import annotations

import pytest
from PIL import Image

WORD = "zorgle"


@pytest.fixture
def run(webui, character):
    """The settings of a small run, as RUN.json; the folder is opened as a project, and the embedding is removed."""
    webui.call("/dsm/v1/project/open", {"path": str(character)})
    yield {
        "name": WORD, "checkpoint": webui.checkpoint.name, "dataset": str(character), "vectors": 2, "init_text": "solo",
        "learning_rate": "0.01", "max_steps": 4, "batch_size": 2, "gradient_accumulation": 1, "width": 96, "height": 64,
        "size_step": 8, "save_every": 2, "preview_every": 2, "clip_skip": 2, "overwrite": True,
        "previews": [{"prompt": "solo, [name]", "width": 64, "height": 64, "steps": 4, "seed": 1}],
    }  # fmt: skip
    for path in (webui.data / "embeddings").glob(f"{WORD}*"):
        path.unlink()
    webui.call("/sdapi/v1/refresh-embeddings", {})


def test_from_pictures_to_an_embedding_in_a_prompt(webui, run, external_vae):
    before, without = webui.inside("snapshot"), webui.txt2img()
    job = webui.wait_for_job(webui.call("/dsm/v1/train/start", {"config": run})["job"])
    assert (job["state"], job["done"], job["total"]) == ("done", 4, 4), job["error"]
    assert any(finding["id"] == "vae-loaded" for finding in job["data"]["findings"])
    assert len(job["data"]["losses"]) == 4
    assert [preview["step"] for preview in job["data"]["previews"]] == [2, 4]
    assert WORD in webui.call("/sdapi/v1/embeddings")["loaded"]

    webui.set_options(sd_vae="None")
    settings = {"CLIP_stop_at_last_layers": 2}
    drawn = webui.txt2img(prompt=f"solo, {WORD}", cfg_scale=7.0, override_settings=settings)
    assert drawn == Image.open(job["data"]["previews"][-1]["path"]).convert("RGB").tobytes()
    webui.set_options(sd_vae=external_vae)

    assert webui.txt2img() == without
    assert webui.inside("snapshot") == {**before, "embeddings": [*before["embeddings"], WORD]}


def test_stopped_by_the_webuis_interrupt_and_resumed_gives_the_same_bits(webui, run):
    def finish(**changes):
        return webui.wait_for_job(webui.call("/dsm/v1/train/start", changes)["job"])

    long = webui.call("/dsm/v1/train/start", {"config": {**run, "max_steps": 400, "preview_every": 0}})["job"]
    while webui.call(f"/dsm/v1/jobs/{long}")["done"] < 1:
        pass
    webui.call("/sdapi/v1/interrupt", {})
    stopped = webui.wait_for_job(long)
    assert stopped["state"] == "cancelled", stopped["error"]
    assert 0 < stopped["done"] < 400

    config = {**run, "max_steps": stopped["done"] + 2, "preview_every": 0}
    file = webui.data / "embeddings" / f"{WORD}.safetensors"
    half_done = file.read_bytes()
    assert finish(config=config, resume=True)["state"] == "done"
    resumed = file.read_bytes()
    assert finish(config=config)["state"] == "done"
    assert file.read_bytes() == resumed != half_done
