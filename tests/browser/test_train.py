"""The Train tab: a form that keeps what was written, a check that shows, a run that is watched, and its steps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from lib_dsm.demo import world
from lib_dsm.networks.embedding import Embedding, load_embedding, save_pt
from lib_dsm.pruning.prune import PruneOptions, plan_prune
from tests.browser.helpers import choose, fill, open_project, tab, train_settings, trained, unfold

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
    def make(width: int = 1280, theme: str = "light", **how):
        page = open_page(width, theme, **how)
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


def test_words_to_start_from_come_from_what_was_pruned(train_page, project, shots):
    page = train_page(refusing="train/words")
    button = page.locator("#dsm_train_tokens button:text-is('From pruned tags')")
    told = page.locator("#dsm_train_tokens .dsm-tokens-head span")
    train_settings(page, vectors=8, init_text="smile")
    page.wait_for_selector("#dsm_train_tokens b:text-is('1 token for 8 vectors')")
    button.click()
    page.wait_for_selector("#dsm_train_tokens:has-text('No tag was pruned from most captions of SET')")
    assert_nothing_is_cut_off(page)
    for index, caption in enumerate(sorted((project / "SET").glob("*.txt"))):
        caption.write_text("solo, twin drills, blue eyes" + ", hat" * (index < 3), encoding="utf-8")
    plan_prune(project / "SET", PruneOptions(remove=("twin drills", "blue eyes", "hat"))).apply()
    button.click()
    page.wait_for_function("async () => (await DSM.train.read()).init_text === 'twin drills blue eyes'")
    page.wait_for_selector("#dsm_train_tokens b:text-is('4 tokens for 8 vectors')")
    # One vector holds none of them: what was written stays, and the sentence says what is needed.
    train_settings(page, vectors=1, init_text="smile")
    page.wait_for_selector("#dsm_train_tokens b:text-is('1 token for 1 vector')")
    button.click()
    page.wait_for_function("document.querySelector('.dsm-tokens-head span').textContent.includes('needs 2 vectors')")
    assert told.inner_text().endswith("Use at least 2 vectors, or write a word of your own.")
    assert page.evaluate("DSM.train.read()")["init_text"] == "smile"
    assert_nothing_is_cut_off(page)
    page.locator("#dsm_train_tokens").screenshot(path=shots / "train-pruned-words.png")
    # Nor is it with a text of two lines.
    train_settings(page, vectors=16, init_text="long red hair, blue eyes, hat, smile, school uniform")
    page.wait_for_selector("#dsm_train_tokens b:text-is('13 tokens for 16 vectors')")
    assert_nothing_is_cut_off(page)
    button.click()
    page.wait_for_selector("#dsm_train_tokens b:text-is('4 tokens for 16 vectors')")


def assert_nothing_is_cut_off(page) -> None:
    """The box of the tokens has a fixed height, so that nothing moves while one types."""
    cut = page.evaluate("""() => {
        const box = document.querySelector(".dsm-tokens");
        const inner = box.getBoundingClientRect();
        return [...box.querySelectorAll("b, span, button, .dsm-vectors")].filter((part) => {
            const place = part.getBoundingClientRect();
            const scrolled = part.matches(".dsm-pieces") && part.scrollHeight > part.clientHeight + 1;
            const outside = place.bottom > inner.bottom || place.right > inner.right || place.top < inner.top;
            return place.width && (scrolled || outside);
        }).map((part) => part.textContent);
    }""")
    assert cut == []


def test_an_embedding_is_created_without_a_project(open_page):
    page = open_page(1280, "light")
    tab(page, "Train")
    page.wait_for_function("DSM.train.ready")
    train_settings(page, **SMALL, name="zorgbare")
    page.click("#dsm_train_create")
    told = page.wait_for_selector("text=2 untrained vectors").evaluate("element => element.parentElement.innerText")
    created = load_embedding(Path(re.search(r"the file is (.*)\.", told)[1]))
    assert (created.name, created.step, len(created.vectors)) == ("zorgbare", 0, 2)


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
    page.wait_for_function("async () => (await DSM.train.read()).keep_tags === 0")
    train_settings(page, previews=[])
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

    # A preset's own file and the record of a run are settings, too.
    preset = {"version": 1, "help": "", "settings": {"vectors": 7}}
    (tmp_path / "preset.json").write_text(json.dumps(preset), encoding="utf-8")
    record = {"version": 1, "begun": "2024-01-01T00:00:00", "config": {**saved, "vectors": 4, "output": "/away"}}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    for name, vectors in (("preset.json", 7), ("run.json", 4)):
        page.set_input_files(".dsm-presets input[type=file]", tmp_path / name)
        page.wait_for_function(
            "async (wanted) => (await DSM.train.read()).vectors === wanted && DSM.train.values().keep_tags === 3",
            arg=vectors,
        )
    page.wait_for_selector("#dsm_preset_said .dsm-not-taken:has-text('/away')")

    page.click("#dsm_preset_delete")
    page.click(".dsm-dialog .dsm-primary")
    page.wait_for_selector("#dsm_preset option[value='small ones']", state="detached")


def test_a_preset_leaves_what_was_typed_and_can_be_taken_back(train_page, shots):
    page = train_page()
    own = {"init_text": "solo, blue hair", "template": "mine [name]\nmine [filewords], [name]", "vectors": 5}
    train_settings(page, **own, name="zorgundo", previews=REQUESTS, max_steps=77)
    page.select_option("#dsm_preset", "Quick trial")
    page.click("#dsm_preset_use")
    page.wait_for_function("async () => (await DSM.train.read()).max_steps === 300 && DSM.train.values().vectors === 8")
    now = page.evaluate("DSM.train.values()")
    assert (now["init_text"], now["template"], now["name"]) == (own["init_text"], own["template"], "zorgundo")
    assert now["validation_share"] == 0.1
    assert [item["prompt"] for item in page.evaluate("DSM.train.requests.get()")] == [r["prompt"] for r in REQUESTS]
    page.locator("#dsm_train_presets").screenshot(path=shots / "train-preset.png")

    page.click("#dsm_preset_undo:text-is('Undo preset')")
    page.wait_for_function("async () => (await DSM.train.read()).max_steps === 77 && DSM.train.values().vectors === 5")
    # What a preset names it replaces, and the texts come back as well.
    page.select_option("#dsm_preset", "Guide: character")
    page.click("#dsm_preset_use")
    page.wait_for_function("async () => (await DSM.train.read()).template === '[filewords], [name]'")
    page.click("#dsm_preset_undo")
    page.wait_for_function("async (wanted) => (await DSM.train.read()).template === wanted", arg=own["template"])


def test_a_preset_file_that_cannot_be_used_is_told(train_page, studio_data):
    folder = studio_data / "data" / "presets"
    folder.mkdir(parents=True, exist_ok=True)
    broken = folder / "broken.json"
    broken.write_text('{"version": 1, "settings": {"vectros": 3}}', encoding="utf-8")
    try:
        page = train_page()
        page.wait_for_selector("#dsm_preset_problems .dsm-line:has-text('vectros')")
    finally:
        broken.unlink()


def test_what_a_run_had_and_the_form_cannot_take_is_said(train_page, project, tmp_path):
    page = train_page()
    file = tmp_path / "run.json"

    def load(**settings: object) -> str:
        file.write_text(json.dumps(settings), encoding="utf-8")
        page.evaluate("document.querySelector('#dsm_preset_said').replaceChildren()")
        page.set_input_files(".dsm-presets input[type=file]", file)
        page.wait_for_selector("#dsm_preset_said .dsm-line")
        return page.inner_text("#dsm_preset_said")

    world.draw_dataset(project / "IMGS", world.character_of(40), count=2, seed=6)
    open_project(page, project)
    folder = "async (wanted) => (await DSM.train.read()).folder === wanted"
    assert "but not all" not in load(dataset=str(project / "IMGS"), checkpoint="micro.safetensors")
    page.wait_for_function(folder, arg="IMGS")
    # What is trained on by itself at present is chosen by its name.
    assert "but not all" not in load(dataset=str(project / "SET"))
    page.wait_for_function(folder, arg="SET")

    said = load(dataset=str(tmp_path / "elsewhere"), checkpoint="/models/lost.safetensors", output="/far/away")
    for part in (str(tmp_path / "elsewhere"), "/models/lost.safetensors", "micro.safetensors stays", "/far/away"):
        assert part in said
    assert page.evaluate("DSM.train.read()")["checkpoint"] == "micro.safetensors"
    assert page.evaluate("DSM.train.values()")["folder"] == "SET"
    assert "/other/micro.safetensors is taken to be micro" in load(checkpoint="/other/micro.safetensors")


def test_a_late_failure_does_not_hide_a_newer_plan_and_is_asked_again(train_page):
    page = train_page()
    train_settings(page, **SMALL)
    page.wait_for_selector("#dsm_train_plan b:text-is('10 pictures')")
    unfold(page, "captions")
    page.wait_for_selector("#dsm_train_prompts .dsm-caption")
    label = page.locator("#dsm_train_prompts .dsm-caption")
    assert label.text_content() == "What the first steps read"
    train_settings(page, validation_share=0.1)
    page.wait_for_selector("#dsm_train_plan :text('1 picture is held out')")
    assert label.text_content() == "Prompts such as the steps read"
    train_settings(page, validation_share=0)
    page.wait_for_selector("#dsm_train_plan :text('1 picture is held out')", state="detached")
    held, failing = [], []

    def answer(route):
        repeats = route.request.post_data_json["config"]["repeats"]
        if repeats == 3 and not held:
            held.append(route)
        elif repeats == 5 and len(failing) < 2:
            failing.append(route)
            route.fulfill(body="no answer")
        else:
            route.continue_()

    page.route("**/dsm/v1/train/plan", answer)
    with page.expect_request(lambda request: '"repeats":3' in (request.post_data or "")):
        train_settings(page, repeats=3)
    train_settings(page, repeats=4, max_steps=10)
    page.wait_for_selector("#dsm_train_plan .dsm-plan-text:has-text('10 steps show')")
    with page.expect_response("**/dsm/v1/train/plan"):
        held[0].fulfill(body="no answer")
    page.wait_for_timeout(200)
    assert "answered" not in page.inner_text("#dsm_train_plan")

    train_settings(page, repeats=5)
    page.wait_for_selector("#dsm_train_plan .dsm-line:has-text('The program answered')")
    page.wait_for_selector("#dsm_train_plan .dsm-plan-text:has-text('10 steps show')")
    assert len(failing) == 2


def test_embeddings_and_templates_are_chosen_as_they_come(train_page, studio_data, shots):
    # The studio has drawn its page already; a file that came since is there when the page is opened.
    (studio_data / "embeddings" / "mine").mkdir(parents=True, exist_ok=True)
    save_pt(Embedding("zorgold", torch.ones(3, 80), step=40), studio_data / "embeddings" / "mine" / "zorgold.bin")
    page = train_page()
    fill(page, "dsm_train_name", "zorgstart")
    unfold(page, "vectors", "captions")
    choose(page, "dsm_train_init_embedding", "zorgold")
    page.wait_for_function("async () => (await DSM.train.read()).vectors === 3")
    page.wait_for_selector("#dsm_train_tokens:has-text('the 3 of zorgold.bin, trained for 40 steps')")
    fill(page, "dsm_train_vectors", 9)  # the person's word is the last, but not without a warning
    page.wait_for_selector("#dsm_train_tokens .dsm-over:has-text('set the vectors to 3')")
    # And one that comes while it is open, after a look at the folder.
    (studio_data / "templates").mkdir(exist_ok=True)
    (studio_data / "templates" / "painter.txt").write_text("painted by [name]\n", encoding="utf-8")
    page.click("#dsm_train_template_file_refresh")
    choose(page, "dsm_train_template_file", "painter.txt")
    page.wait_for_function("async () => (await DSM.train.read()).template_source === 'file'")
    page.wait_for_selector("#dsm_train_prompts li:has-text('painted by zorgstart')")
    page.screenshot(path=shots / "train-lists.png")


def test_a_preview_without_the_name_is_warned_of_while_it_is_typed(train_page, shots):
    page = train_page()
    unfold(page, "saving")
    fill(page, "dsm_train_name", "zorgwarn")
    warning = page.locator(".dsm-request-warning").first
    prompt = page.locator("#dsm_request_0_prompt")
    prompt.fill("a house")
    page.wait_for_selector(".dsm-request-warning:has-text('neither [name] nor zorgwarn')")
    page.locator("#dsm_train_requests").screenshot(path=shots / "train-warning.png")
    for fine in ("a house, [name]", "a house by ZorgWarn", ""):
        prompt.fill(fine)
        assert warning.inner_text() == ""
    # The name may change as well.
    prompt.fill("a house of zorgother")
    assert warning.inner_text()
    fill(page, "dsm_train_name", "zorgother")
    page.wait_for_function("document.querySelector('.dsm-request-warning').textContent === ''")
    assert page.locator("#dsm_request_0_scheduler").count() == 0  # the studio has no schedule types
    train_settings(page, previews=[{"prompt": "[name]", "sampler": "Heun", "scheduler": "Karras"}])
    assert page.input_value("#dsm_request_0_sampler") == "Heun"
    assert page.input_value("#dsm_request_0_scheduler") == "Karras"


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
        "seed": -1, "sampling": "DPM++ 2M", "scheduler": "Automatic",
    }  # fmt: skip
    page.evaluate(TXT2IMG, values)  # the fields of the WebUI's own tab
    unfold(page, "saving")
    page.click("#dsm_requests_txt2img")
    taken = page.evaluate("DSM.train.requests.get()")[-1]
    assert taken == {
        "prompt": "a house", "negative": "bad", "seed": 1, "steps": 33, "cfg": 5.5, "width": 640, "height": 384,
        "sampler": "DPM++ 2M", "scheduler": "",
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


def test_the_check_offers_remedies_and_tells_what_is_in_order(train_page, shots):
    page = train_page()
    changed = {"vectors": 1, "init_text": "red hair, smile", "max_steps": 2}
    train_settings(page, **SMALL | changed, name="applyzorg")
    page.click("#dsm_train_check")
    apply = page.locator(".dsm-check[data-id=init-too-long] .dsm-check-apply")
    assert apply.inner_text() == "Set vectors per token to 4"
    page.locator("#dsm_train_findings .dsm-check-findings").screenshot(path=shots / "train-check-remedies.png")
    apply.click()
    page.wait_for_function("DSM.train.values().vectors === 4")
    assert apply.is_disabled()
    page.click("#dsm_train_findings .dsm-stale button")
    page.wait_for_selector("#dsm_train_findings .dsm-line.dsm-ok")
    assert not page.locator(".dsm-check[data-id=init-too-long]:not(.dsm-check-passed *)").count()
    passed = page.locator(".dsm-check-passed")
    assert int(passed.locator("summary").inner_text().split()[0]) == passed.locator("li").count() > 30
    passed.locator("summary").click()
    page.locator("#dsm_train_findings .dsm-check-findings").screenshot(path=shots / "train-check-passed.png")
    assert passed.locator("[data-id=init-too-long]").inner_text().endswith("The initialization words fit the vectors")


def test_a_training_is_watched_stopped_and_resumed(train_page, open_page, project, shots):
    page = train_page()
    train_settings(page, **SMALL | {"validate_every": 3}, name="watchzorg", max_steps=100_000, previews=REQUESTS)
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel [data-state=running] .dsm-charts-main .dsm-curve")
    page.click("#dsm_preview_now")
    page.wait_for_selector("#dsm_previews .dsm-preview >> nth=1")
    page.wait_for_selector("#dsm_train_panel .dsm-verdict .dsm-line")
    word = page.inner_text("#dsm_train_panel .dsm-verdict .dsm-state-word")
    assert word in ("improving", "flat", "overtrained", "broken")
    badge, verdict = (
        page.locator(f"#dsm_train_panel .dsm-verdict {part}").bounding_box()
        for part in (".dsm-state-word", ".dsm-line")
    )
    assert verdict["x"] < badge["x"] < verdict["x"] + 40 and 0 < badge["y"] - verdict["y"] < 20
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


def test_remarks_of_a_run_act_on_that_run_and_not_on_the_form(train_page, shots):
    page = train_page()
    train_settings(page, **SMALL, name="remarkzorg", max_steps=2, previews=[])
    page.click("#dsm_train_start")
    assert trained(page, "remarkzorg") == "done", page.inner_text("#dsm_train_panel")
    page.click("#dsm_train_resume_start")  # nothing is left to do
    page.wait_for_selector("#dsm_train_panel [data-state=failed]")
    remark = page.locator("#dsm_train_panel .dsm-check[data-id=resume-beyond-steps]")
    others = page.locator("#dsm_train_panel .dsm-check:not([data-id=resume-beyond-steps]) .dsm-check-apply")
    assert others.count() == 0  # such as a number of vectors: a run keeps its own
    remark.locator("input").check()
    before = page.evaluate("DSM.train.read()")
    assert (before["max_steps"], before["override"]) == (2, "")
    page.locator("#dsm_train_panel").screenshot(path=shots / "train-remarks.png")
    remark.locator(".dsm-check-apply").click()
    assert page.input_value("#dsm_train_until") == "3"
    assert page.evaluate("DSM.train.read()") == before
    with page.expect_request("**/dsm/v1/train/resume") as request:
        page.click("#dsm_train_resume_start")
    sent = request.value.post_data_json
    assert (sent["max_steps"], sent["override"]) == (3, ["resume-beyond-steps"])
    page.wait_for_selector("#dsm_train_panel [data-state=done]")
    assert "3 / 3" in page.inner_text("#dsm_train_panel .dsm-job-numbers")


def test_a_run_that_is_found_by_looking_does_not_hide_what_was_said(train_page, open_page):
    page = train_page()
    train_settings(page, **SMALL, name="foundzorg", max_steps=1, previews=[])
    page.click("#dsm_train_start")
    assert trained(page, "foundzorg") == "done", page.inner_text("#dsm_train_panel")
    page, held = open_page(), []
    page.route("**/dsm/v1/train/run?*", lambda route: held.append(route))
    tab(page, "Train")
    page.wait_for_function("DSM.train.ready")
    page.click("#dsm_train_start")
    said = "#dsm_train_panel .dsm-error:has-text('no name')"
    page.wait_for_selector(said)
    while not held:
        page.wait_for_timeout(50)
    held.pop().continue_()
    page.wait_for_selector("#dsm_train_panel .dsm-job-panel")
    assert page.locator(said).is_visible()


def test_a_start_that_was_refused_leaves_nothing_to_resume(train_page):
    page = train_page()
    train_settings(page, **SMALL, name="smile", max_steps=2, previews=[])
    page.click("#dsm_train_start")
    assert trained(page, "smile") == "failed"
    panel = page.locator("#dsm_train_panel")
    assert panel.locator(".dsm-check[data-id=name-is-a-word]").count()
    assert panel.locator(".dsm-check-override, .dsm-check-apply").count() == 0
    assert page.locator("#dsm_train_resume_start").is_hidden()
    panel.locator("button:text-is('Check settings')").click()
    page.wait_for_selector("#dsm_train_findings .dsm-check[data-id=name-is-a-word] .dsm-check-override")


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
