"""The Train tab: a form that keeps what was written, a check that shows, a run that is watched, and its steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_dsm.demo import world
from lib_dsm.networks.embedding import load_embedding
from tests.browser.helpers import fill, open_project, tab, train_settings, trained, unfold

REQUESTS = [
    {"prompt": "solo, [name]", "seed": 1, "steps": 2, "width": 64, "height": 64},
    {"prompt": "[name], outdoors", "seed": 2, "steps": 2, "width": 64, "height": 64},
]
SMALL = {
    "vectors": 2, "init_text": "solo", "learning_rate": "0.005", "batch_size": 1, "gradient_accumulation": 1,
    "width": 64, "height": 64, "validate_every": 0, "preview_every": 0, "save_every": 0,
}  # fmt: skip


@pytest.fixture
def project(tmp_path):
    """Tagged pictures of several shapes."""
    folder = tmp_path / "set"
    world.draw_dataset(folder / "SET", world.character_of(40), count=10, seed=5)
    return folder


@pytest.fixture
def train_page(open_page, project):
    def make(width: int = 1280, theme: str = "light"):
        page = open_page(width, theme)
        open_project(page, project)
        tab(page, "Train")
        page.wait_for_function("DSM.train.ready")
        return page

    return make


def test_what_was_written_is_there_after_a_reload(train_page):
    page = train_page()
    fill(page, "dsm_train_name", "zorgkeep")
    unfold(page, "captions", "saving")
    fill(page, "dsm_train_template", "one [name]\ntwo [name], [filewords]")
    page.locator("#dsm_train_shuffle_tags input").uncheck()
    page.fill("#dsm_request_0_prompt", "solo, [name]")
    assert page.locator("#dsm_requests_txt2img").is_hidden()  # the studio has no such tab
    page.click("#dsm_requests_add")
    page.fill("#dsm_request_1_seed", "77")
    page.press("#dsm_request_1_seed", "Tab")
    page.wait_for_function(
        "() => { const kept = JSON.parse(localStorage['dsm.train.draft'] || '{}');"
        " return kept.name === 'zorgkeep' && kept.shuffle_tags === false && (kept.previews[1] || {}).seed === 77; }"
    )
    page.wait_for_selector("#dsm_train_group_captions .dsm-group-changes:has-text('shuffle tags off')")
    page.reload()
    tab(page, "Train")
    page.wait_for_function("window.DSM && DSM.train && DSM.train.ready")
    page.wait_for_function("async () => (await DSM.train.read()).name === 'zorgkeep'")
    unfold(page, "captions", "saving")
    assert page.input_value("#dsm_train_template textarea") == "one [name]\ntwo [name], [filewords]"
    assert not page.locator("#dsm_train_shuffle_tags input").is_checked()
    assert page.input_value("#dsm_request_0_prompt") == "solo, [name]"
    assert page.input_value("#dsm_request_1_seed") == "77"
    page.click("[aria-label='Remove picture 1']")
    assert page.locator(".dsm-request").count() == 1
    assert page.input_value("#dsm_request_0_seed") == "77"


def test_tokens_are_counted_while_typing(train_page):
    page = train_page()
    fill(page, "dsm_train_vectors", 6)
    field = page.locator("#dsm_train_init_text textarea, #dsm_train_init_text input").first
    field.fill("")
    field.press_sequentially("solo, blue hair")  # the field keeps the focus
    page.wait_for_selector(".dsm-tokens-head b:text-is('4 tokens for 6 vectors')")
    assert page.locator(".dsm-piece").all_inner_texts() == ["solo", ",", "blue", "hair"]
    assert page.locator(".dsm-vectors i").count() == 6
    fill(page, "dsm_train_vectors", 3)
    page.wait_for_selector(".dsm-tokens.dsm-over :text('use 4 vectors')")
    assert page.locator(".dsm-piece.dsm-lost").all_inner_texts() == ["hair"]


def test_presets_and_files(train_page, tmp_path):
    page = train_page()
    train_settings(page, **SMALL, name="zorgfile", keep_tags=3, previews=REQUESTS)
    page.click("#dsm_preset_save")
    page.fill("#dsm_preset_name", "small ones")
    page.press("#dsm_preset_name", "Enter")
    page.wait_for_selector("#dsm_preset option[value='small ones']", state="attached")
    with page.expect_download() as download:
        page.click("#dsm_preset_file_save")
    saved = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert download.value.suggested_filename == "zorgfile.json"
    assert (saved["keep_tags"], len(saved["previews"]), saved["dataset"]) == (
        3,
        2,
        page.evaluate("DSM.state.project.train"),
    )

    page.select_option("#dsm_preset", "")
    page.click("#dsm_preset_use")
    page.wait_for_function(
        "async () => (await DSM.train.read()).keep_tags === 0 && DSM.train.requests.get().length === 1"
    )
    page.select_option("#dsm_preset", "small ones")
    page.click("#dsm_preset_use")
    page.wait_for_function(
        "async () => (await DSM.train.read()).keep_tags === 3 && DSM.train.requests.get().length === 2"
    )
    assert page.evaluate("DSM.train.values().name") == "zorgfile"  # a preset says how, not what

    (tmp_path / "other.json").write_text(json.dumps({"vectors": 9, "template": ["a [name]"]}), encoding="utf-8")
    page.set_input_files(".dsm-presets input[type=file]", tmp_path / "other.json")
    page.wait_for_function(
        "async () => (await DSM.train.read()).vectors === 9 && DSM.train.values().template === 'a [name]'"
    )
    assert page.evaluate("DSM.train.values().keep_tags") == 3

    page.click("#dsm_preset_delete")
    page.click(".dsm-dialog .dsm-primary")
    page.wait_for_selector("#dsm_preset option[value='small ones']", state="detached")


TXT2IMG = """(values) => {
    for (const [name, value] of Object.entries(values)) {
        const field = document.createElement(name.endsWith("prompt") ? "textarea" : "input");
        const place = document.createElement("div");
        if (typeof value === "number") field.type = "number";
        field.value = value;
        place.id = "txt2img_" + name;
        place.append(field);
        document.body.append(place);
    }
}"""


def test_a_preview_is_taken_from_txt2img(train_page):
    page = train_page()
    values = {
        "prompt": "a house", "neg_prompt": "bad", "steps": 33, "cfg_scale": 5.5, "width": 640, "height": 384,
        "seed": -1, "sampling": "DPM++ 2M",
    }  # fmt: skip
    page.evaluate(TXT2IMG, values)  # the fields of the WebUI's own tab
    unfold(page, "saving")
    page.click("#dsm_requests_txt2img")
    taken = page.evaluate("DSM.train.requests.get()")[-1]
    assert taken == {
        "prompt": "a house", "negative": "bad", "seed": 1, "steps": 33, "cfg": 5.5, "width": 640, "height": 384,
        "sampler": "DPM++ 2M",
    }  # fmt: skip


def test_the_check_shows_crops_and_what_blocks_can_be_overridden(train_page, shots):
    page = train_page()
    train_settings(page, **SMALL, name="solo", max_steps=2, variable_aspect=False)
    page.click("#dsm_train_check")
    page.wait_for_selector("#dsm_train_findings .dsm-line.dsm-block")
    page.wait_for_selector("#dsm_train_findings .dsm-crop-kept")
    rows = page.locator("#dsm_train_findings tbody tr")
    assert rows.count() == 1 and rows.first.inner_text().split("\t")[:2] == ["64 × 64", "10"]
    assert page.locator("#dsm_train_findings .dsm-crop-item").count() == 10
    page.locator("#dsm_train_findings").screenshot(path=shots / "train-check.png")
    page.locator(".dsm-check[data-id=name-is-a-word] input").first.check()
    page.wait_for_selector("#dsm_train_findings .dsm-line.dsm-ok")
    train_settings(page, size_step=32, variable_aspect=True)
    page.wait_for_selector("#dsm_train_findings .dsm-stale:not([hidden])")
    page.click("#dsm_train_start")
    assert trained(page, "solo") == "done", page.inner_text("#dsm_train_panel")


def test_a_training_is_watched_stopped_and_resumed(train_page, open_page, project, shots):
    page = train_page()
    train_settings(page, **SMALL | {"validate_every": 3}, name="watchzorg", max_steps=100_000, previews=REQUESTS)
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel [data-state=running] .dsm-charts-main .dsm-curve")
    page.click("#dsm_preview_now")
    page.wait_for_selector("#dsm_previews .dsm-preview >> nth=1")
    page.wait_for_selector("#dsm_train_panel .dsm-verdict .dsm-line")
    # While it is looked at again and again, nothing on the page moves.
    places = []
    for _ in range(8):
        step = page.inner_text("#dsm_train_panel .dsm-job-numbers")
        page.wait_for_function(
            "step => document.querySelector('#dsm_train_panel .dsm-job-numbers').innerText !== step", arg=step
        )
        places.append(page.evaluate(
            "['.dsm-tiles', '.dsm-charts', '.dsm-charts-row', '.dsm-timeline-box', '.dsm-step-bar'].map((name) =>"
            " document.querySelector('#dsm_train_panel ' + name).getBoundingClientRect().top + scrollY)"
        ))  # fmt: skip
    assert places.count(places[0]) == len(places), places
    page.locator("#dsm_train_panel").screenshot(path=shots / "train-watched.png")

    # Another window, and the same one loaded anew, find the running training.
    other = open_page()
    open_project(other, project)
    tab(other, "Train")
    other.wait_for_selector("#dsm_train_panel [data-state=running] .dsm-curve")
    other.wait_for_selector("#dsm_train_runs .dsm-running:has-text('watchzorg')")
    page.reload()
    tab(page, "Train")
    page.wait_for_selector("#dsm_train_panel [data-state=running] .dsm-curve")
    page.click("#dsm_save_now")
    page.wait_for_function("document.querySelector('#dsm_train_panel .dsm-log pre').textContent.includes('Saved step')")
    page.click("#dsm_cancel_train")
    page.wait_for_selector("#dsm_train_panel [data-state=cancelled]")
    other.wait_for_selector("#dsm_train_panel [data-state=cancelled]")
    assert "watchzorg is ready" in page.inner_text("#dsm_train_panel")

    done = int(page.inner_text("#dsm_train_panel .dsm-job-numbers").split("/")[0])
    page.fill("#dsm_train_until", str(done + 2))
    assert page.input_value("#dsm_train_rate") == "0.005"
    page.fill("#dsm_train_rate", "0.0007")
    page.click("#dsm_train_resume_start")
    page.wait_for_selector("#dsm_train_panel [data-state=done]")
    assert f"{done + 2} / {done + 2}" in page.inner_text("#dsm_train_panel .dsm-job-numbers")
    assert page.input_value("#dsm_train_rate") == "0.0007"
    shown = page.evaluate("DSM.get('train/run', {run: 'watchzorg'}).then((answer) => answer.job.data.curves)")
    assert shown["learning_rate"][-1] == 0.0007


def test_steps_are_compared_used_and_continued_from(train_page, studio_url, shots):
    page = train_page()
    train_settings(
        page, **SMALL | {"preview_every": 2, "save_every": 2}, name="stepzorg", max_steps=6, previews=REQUESTS
    )
    page.click("#dsm_train_start")
    assert trained(page, "stepzorg") == "done", page.inner_text("#dsm_train_panel")
    assert page.locator("#dsm_previews .dsm-timeline-step").all_inner_texts() == ["2", "4", "6"]
    assert page.locator("#dsm_previews .dsm-preview").count() == 6

    # With the keyboard alone: to a picture, into the large view, from step to step, compare, and back.
    page.focus("#dsm_previews [data-place='0/6']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.place") == "1/4"
    page.keyboard.press("Enter")
    page.wait_for_selector(".dsm-compare-prompt b:text-is('Step 4')")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".dsm-compare-prompt b:text-is('Step 2')")
    page.keyboard.press("ArrowLeft")  # there is no earlier one
    page.keyboard.press("c")
    page.wait_for_selector(".dsm-compare-prompt b:text-is('Step 2 against 6')")
    page.keyboard.press("Shift+ArrowLeft")
    page.wait_for_selector(".dsm-compare-prompt b:text-is('Step 2 against 4')")
    page.wait_for_function(
        "[...document.querySelectorAll('.dsm-compare-stage img')].every((item) => item.naturalWidth === 64)"
    )
    slider = page.locator(".dsm-compare-line")
    page.keyboard.press("a")
    assert slider.get_attribute("aria-valuenow") == "46"
    box = page.locator(".dsm-compare-stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.46, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert slider.get_attribute("aria-valuenow") == "80"
    page.screenshot(path=shots / "train-compare.png")
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(".dsm-compare-prompt small:has-text('prompt 1 of 2')")
    page.keyboard.press("Escape")
    assert page.locator(".dsm-compare").count() == 0
    assert page.evaluate("document.activeElement.dataset.place") == "0/2"

    # An earlier step is used instead of the last.
    page.click("#dsm_use_step")
    page.wait_for_selector(".dsm-toast:has-text('step 2')")
    page.wait_for_selector("#dsm_previews .dsm-timeline-step[data-step='2'] .dsm-used")
    published = page.evaluate("DSM.get('train/run', {run: 'stepzorg'}).then((answer) => answer.job.data.published)")
    assert load_embedding(Path(published)).step == 2

    # A new run goes on from a step.
    page.click("#dsm_previews .dsm-timeline-step[data-step='4']")
    page.click("#dsm_continue_step")
    assert page.input_value("#dsm_continue_name") == "stepzorg-from-4"
    page.fill("#dsm_continue_steps", "8")
    page.click(".dsm-dialog .dsm-primary")
    assert trained(page, "stepzorg-from-4") == "done", page.inner_text("#dsm_train_panel")
    assert "8 / 8" in page.inner_text("#dsm_train_panel .dsm-job-numbers")
    page.wait_for_selector("#dsm_train_runs [aria-pressed=true]:has-text('stepzorg-from-4')")

    # The run before is looked at again, and its settings are taken over.
    page.click("#dsm_train_runs [data-run=stepzorg]")
    page.wait_for_selector("#dsm_train_panel .dsm-job-title:has-text('stepzorg')")
    train_settings(page, vectors=5, name="another")
    page.click("#dsm_run_settings")
    page.wait_for_function(
        "async () => (await DSM.train.read()).name === 'stepzorg' && DSM.train.values().vectors === 2"
    )


def test_two_trainings_at_once_are_refused_with_a_sentence(train_page):
    page = train_page()
    train_settings(page, **SMALL, name="firstzorg", max_steps=100_000, previews=[])
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel [data-state=running] .dsm-curve")
    train_settings(page, name="secondzorg")
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel .dsm-error:has-text('Another training')")
    page.click("#dsm_train_runs [data-run=firstzorg]")
    page.click("#dsm_cancel_train")
    page.wait_for_selector("#dsm_train_panel [data-state=cancelled]")
