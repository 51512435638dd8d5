"""LoRA files in the WebUI's own pictures: one that was written anew, and one that was made of a tuned checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.options import ExtractionOptions
from tests.webui.running import REFORGE
from tests.webui.test_lora import RANK, tuned_like

PROMPT = "solo, red hair, smile"


@pytest.fixture
def lora(webui):
    """Where a LoRA is to be written, and the prompt that names it; it goes again."""
    path = webui.checkpoint.parent.parent / "Lora" / "written.safetensors"
    yield path, f"{PROMPT} <lora:written:1>"
    path.unlink(missing_ok=True)
    webui.inside("networks_changed")
    webui.txt2img()  # takes it off the weights


def test_a_file_that_was_written_anew_is_used_as_it_is_now(webui, lora):
    path, prompt = lora
    tensors = load_file(path.with_name("strong.safetensors"))
    save_file(tensors, path)
    webui.inside("networks_changed")
    first = webui.txt2img(prompt=prompt)
    assert first == webui.txt2img(prompt=f"{PROMPT} <lora:strong:1>") != webui.txt2img(prompt=PROMPT)
    save_file({key: -tensor for key, tensor in tensors.items()}, path)
    webui.inside("networks_changed")
    assert webui.txt2img(prompt=prompt) not in (first, webui.txt2img(prompt=PROMPT))
    save_file(tensors, path)
    webui.inside("networks_changed")
    assert webui.txt2img(prompt=prompt) == first


@pytest.mark.hosts(REFORGE, why="test_lora.py looks deeper into the loader of AUTOMATIC1111's WebUI")
def test_a_picture_with_an_extracted_lora_is_that_of_the_tuned_checkpoint(webui, lora, tmp_path):
    path, prompt = lora
    tuned = webui.checkpoint.with_name("tuned.safetensors")
    save_file({key: tensor.half() for key, tensor in tuned_like(load_file(webui.checkpoint)).items()}, tuned)
    tuned.with_suffix(".yaml").write_bytes(webui.checkpoint.with_suffix(".yaml").read_bytes())
    try:
        options = ExtractionOptions(rank=3 * RANK, conv_rank=RANK, precision="fp32")
        extract_checkpoint(webui.checkpoint, tuned, path, options)
        webui.inside("networks_changed")
        webui.call("/sdapi/v1/refresh-checkpoints", {})
        without, with_lora = webui.picture(prompt=PROMPT), webui.picture(prompt=prompt)
        webui.set_options(sd_model_checkpoint=tuned.name)
        target = webui.picture(prompt=PROMPT)
    finally:
        webui.set_options(sd_model_checkpoint=webui.checkpoint.name)
        for file in (tuned, tuned.with_suffix(".yaml")):
            file.unlink()
        webui.call("/sdapi/v1/refresh-checkpoints", {})
    apart, left = (float(np.abs(np.asarray(one, float) - np.asarray(target)).mean()) for one in (without, with_lora))
    print(f"levels of 255 from the tuned checkpoint's picture: {apart:.2f} without, {left:.3f} with the LoRA")
    assert apart > 3 and left < apart / 8  # the tuned file is in half precision, the base is not
