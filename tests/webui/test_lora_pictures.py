"""A LoRA is made of two checkpoints by clicking, and drawn beside them as txt2img draws."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.browser.helpers import ended, fill
from tests.webui.pages import choose, tab

NAME, TUNED = "lookalike", "lookalike-tuned.safetensors"
SETTINGS = {"seed": 5, "steps": 3, "cfg_scale": 3, "sampler_name": "Euler a", "width": 64, "height": 64}
PROMPT = "solo, red hair, smile"


@pytest.fixture
def tuned(webui):
    """A checkpoint in the WebUI's list that differs from the first by a low rank; and the same picture as before."""
    tensors = load_file(webui.checkpoint)
    generator = torch.Generator().manual_seed(3)
    for key, tensor in tensors.items():
        if key.endswith(("attn2.to_v.weight", "attn2.to_k.weight")):
            change = torch.randn(len(tensor), 2, generator=generator) @ torch.randn(2, tensor.shape[1])
            tensors[key] = tensor + 0.3 * tensor.std() * change
    path = webui.checkpoint.with_name(TUNED)
    save_file(tensors, path)
    path.with_suffix(".yaml").write_bytes(webui.checkpoint.with_suffix(".yaml").read_bytes())
    webui.call("/sdapi/v1/refresh-checkpoints", {})
    before = webui.txt2img()
    yield path
    assert webui.txt2img() == before
    for left in (path, path.with_suffix(".yaml"), *(webui.data / "models" / "Lora").glob(f"{NAME}*")):
        left.unlink()
    webui.call("/sdapi/v1/refresh-checkpoints", {})
    webui.call("/sdapi/v1/refresh-loras", {})


def test_pictures_side_by_side_are_those_of_txt2img(page, webui, tuned, shots):
    tab(page, "LoRA")
    page.click("#dsm_lora_kind label:has-text('Two checkpoints')")
    page.click("#dsm_lora_refresh")
    choose(page, "dsm_lora_base", webui.checkpoint.name)
    choose(page, "dsm_lora_tuned", TUNED)
    fill(page, "dsm_lora_extract_name", NAME)
    page.click("#dsm_lora_extract")
    assert ended(page, "dsm_lora_panel") == "done", page.inner_text("#dsm_lora_panel")
    for name, value in (("count", 1), ("seed", 5), ("steps", 3), ("cfg", 3), ("side", 64)):
        page.fill(f"#dsm_lora_{name}", str(value))
    page.fill("#dsm_lora_prompts", PROMPT)
    page.click("#dsm_lora_draw")
    page.wait_for_selector("#dsm_lora_pictures .dsm-picture")
    page.screenshot(path=shots / "webui-lora-pictures.png", full_page=True)
    assert page.locator("#dsm_lora_pictures .dsm-picture").count() == 3

    with Image.open(webui.data / "models" / "Lora" / f"{NAME}-compared.png") as sheet:
        boxes = page.evaluate(
            """async () => {
                const {jobs} = await DSM.get("jobs", {tab: "lora"});
                const all = await Promise.all(jobs.map((job) => DSM.get(`jobs/${job.id}`)));
                return all.find((job) => job.data.compared).data.compared.boxes[0];
            }"""
        )
        shown = []
        for left, top, width, height in boxes:
            cut = sheet.convert("RGB").crop((left, top, left + width, top + height))
            shown.append(cut.resize((64, 64), Image.Resampling.NEAREST).tobytes())
    base = webui.txt2img(prompt=PROMPT, **SETTINGS)
    original = webui.txt2img(prompt=PROMPT, **SETTINGS, override_settings={"sd_model_checkpoint": TUNED})
    with_lora = webui.txt2img(prompt=f"{PROMPT} <lora:{NAME}:1>", **SETTINGS)
    assert shown == [base, original, with_lora]
    assert len({base, original, with_lora}) == 3


def test_what_the_webui_does_not_list_is_not_drawn(webui, tmp_path):
    lora = next((webui.data / "models" / "Lora").glob("*.safetensors"))
    base = str(webui.checkpoint)
    assert webui.inside("drawable", base=base, lora=str(lora)) == ""
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(lora.read_bytes())
    said = webui.inside("drawable", base=base, lora=str(elsewhere))
    assert str(elsewhere) in said and "list of LoRA files" in said
    said = webui.inside("drawable", base=str(elsewhere), lora=str(lora))
    assert str(elsewhere) in said and "list of checkpoints" in said
