"""The LoRA tab: two checkpoints are looked at, extracted and drawn; a run's button leads here."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

from lib_dsm.host.studio import MICRO
from lib_dsm.networks.inspect import describe
from tests.browser.helpers import choose, ended, fill, forget_ended, tab


@pytest.fixture
def tuned(studio_data):
    """A checkpoint of the studio's whose cross-attention is another than the micro one's."""
    path = studio_data / "checkpoints" / "tuned.safetensors"
    path.parent.mkdir(exist_ok=True)
    tensors = load_file(MICRO)
    for key, tensor in tensors.items():
        if "attn2.to_v.weight" in key:
            tensors[key] = tensor.roll(1, 0)
    save_file(tensors, path)
    yield path
    path.unlink()  # the studio is that of all tests


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1920)])
def test_two_checkpoints_are_looked_at_extracted_and_drawn(open_page, tuned, shots, theme, width):
    page = open_page(width, theme)
    tab(page, "LoRA")
    page.click("#dsm_lora_refresh")
    page.locator("#dsm_lora_kind label").filter(has_text="Two checkpoints").click()
    page.wait_for_selector("#dsm_lora_base", state="visible")
    assert not page.locator("#dsm_lora_embedding").is_visible()
    page.click("#dsm_lora_look")
    page.wait_for_selector("#dsm_lora_panel :text('One of the checkpoints is not chosen')")
    choose(page, "dsm_lora_base", MICRO.name)
    choose(page, "dsm_lora_tuned", tuned.name)
    page.click("#dsm_lora_look")
    page.wait_for_selector("#dsm_lora_shown .dsm-point-chosen")
    assert page.locator("#dsm_lora_shown .dsm-point").count() >= 4
    page.locator("#dsm_lora_shown .dsm-point").nth(1).click()
    page.wait_for_function("document.querySelector('#dsm_lora_rank input').value === '8'")
    name = f"made-{theme}"
    fill(page, "dsm_lora_extract_name", name)
    forget_ended(page)
    page.click("#dsm_lora_extract")
    assert ended(page, "dsm_lora_panel") == "done"
    page.wait_for_selector(f"#dsm_lora_shown code:text('<lora:{name}:1>')")
    assert page.locator("#dsm_lora_shown .dsm-layer").count() > 5
    made = tuned.parents[1] / "lora" / f"{name}.safetensors"
    assert describe(made)["ranks"] == [8]
    page.fill("#dsm_lora_prompts", "solo, red hair, smile")
    for field, value in (("count", 2), ("steps", 1), ("cfg", 1)):
        page.fill(f"#dsm_lora_{field}", str(value))
    page.click("#dsm_lora_draw")
    page.wait_for_selector("#dsm_lora_draw[disabled]")
    # Another job takes the panel; the end of this one is told all the same.
    page.wait_for_selector("#dsm_lora_panel .dsm-job-panel[data-state=running] :text('Pictures of')")
    page.evaluate("""async () => {
        const {jobs} = await DSM.get("jobs", {tab: "lora"});
        const made = jobs.filter((job) => job.state === "done").pop();
        document.querySelector("#dsm_lora_panel [data-dsm=job]").dataset.job = made.id;
    }""")
    page.wait_for_selector("#dsm_lora_pictures .dsm-picture")
    page.wait_for_selector("#dsm_lora_draw:not([disabled])")
    assert page.locator("#dsm_lora_pictures .dsm-picture").count() == 6
    page.screenshot(path=shots / f"lora-{theme}-{width}.png", full_page=True)
    # A reload finds the result and its pictures again, and the new file is in the lists.
    page.reload()
    tab(page, "LoRA")
    page.wait_for_selector(f"#dsm_lora_shown code:text('<lora:{name}:1>')")
    page.wait_for_selector("#dsm_lora_pictures .dsm-picture")
    assert page.locator("#dsm_lora_pictures .dsm-picture").count() == 6
    page.locator("#dsm_lora_kind label").filter(has_text="Any file").click()
    choose(page, "dsm_lora_file", str(made))
    page.click("#dsm_lora_inspect")
    page.wait_for_selector("#dsm_lora_facts :text('a LoRA of')")
