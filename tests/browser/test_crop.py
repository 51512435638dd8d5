"""The Crop page as a person uses it: proposals, frames, zoom, states that survive, writing, taking back, cleaning."""

from __future__ import annotations

import time

import pytest
from PIL import Image

from lib_dsm.cropping.draft import Draft
from lib_dsm.cropping.plan import CropPlan
from lib_dsm.dataset.training_sizes import lost_share, training_size
from tests.browser.helpers import ended, open_project, tab
from tests.cropping.test_cleaning import drawing
from tests.cropping.test_proposals import figure, noise

FACTS = "() => document.querySelector('#dsm_crop_side dl').innerText.replace(/\\s+/g, ' ')"

SLOW = """() => {
    const real = window.fetch;
    window.fetch = async (address, how) => {
        if (String(address).includes('crop/propose')) await new Promise((resolve) => setTimeout(resolve, 1500));
        return real(address, how);
    };
}"""


@pytest.fixture
def folder(tmp_path):
    """A project with a figure on white, a long picture, a large one, a one-sided character and a copy."""
    imgs = tmp_path / "set" / "IMGS"
    imgs.mkdir(parents=True)
    figure(Image.new("RGB", (300, 600), "white"), (120, 60, 180, 580)).save(imgs / "1 figure.png")
    (imgs / "1 figure.txt").write_text("1girl, full body, shoes, smile", "utf-8")
    noise((900, 300)).save(imgs / "2 long.jpg")
    drawing(3, (1500, 1000)).save(imgs / "3 large.png")
    drawing(4, (200, 180)).save(imgs / "4 odd.png")
    (imgs / "4 odd.txt").write_text("heterochromia", "utf-8")
    drawing(3, (1500, 1000)).resize((750, 500)).save(imgs / "5 copy.png")
    return tmp_path / "set"


@pytest.fixture
def crop_page(open_page, folder):
    def make(**how):
        page = open_page(**how)
        open_project(page, folder)
        tab(page, "Crop")
        page.wait_for_selector("#dsm_crop_counts:has-text('of 5 confirmed')")
        page.wait_for_selector("#dsm_crop_strip .dsm-badge:has-text('proposed') >> nth=4")
        page.focus(".dsm-page-crop")
        return page

    return make


def facts(page, text: str) -> None:
    page.wait_for_function(f"(text) => ({FACTS})().includes(text)", arg=text)


def test_proposals_are_reviewed_written_and_taken_back(crop_page, folder, shots):
    before = {path.name: path.read_bytes() for path in (folder / "IMGS").iterdir()}
    page = crop_page()
    assert "0 crops" in page.inner_text("#dsm_crop_write") and page.is_disabled("#dsm_crop_write")
    facts(page, "Frame 600×600")
    paper = "() => document.querySelector('#dsm_crop_stage .dsm-paper').style.backgroundImage"
    page.wait_for_function(f"({paper})().includes('/dsm/v1/crop/preview?')")
    page.screenshot(path=shots / "crop-padded.png")
    page.keyboard.press("3")  # portrait and body
    page.wait_for_function("document.querySelectorAll('#dsm_crop_stage .dsm-frame').length === 2")
    page.wait_for_selector("#dsm_crop_side .dsm-crop-tags input:checked >> nth=1")
    page.screenshot(path=shots / "crop-portrait.png")
    page.click("#dsm_crop_side .dsm-crop-tags label:has-text('shoes')")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    facts(page, "2 of 5")
    assert page.locator("#dsm_crop_stage .dsm-frame").count() == 2
    page.keyboard.press("s")
    page.wait_for_selector("#dsm_crop_strip [data-state=skipped]")
    page.keyboard.press("PageDown")
    page.keyboard.press("PageDown")
    facts(page, "4 of 5")
    page.keyboard.press("m")
    page.wait_for_selector("#dsm_over .dsm-toast:has-text('heterochromia')")
    page.wait_for_selector("#dsm_crop_stage .dsm-frame.dsm-enlarged")
    page.wait_for_function("!document.querySelector('#dsm_crop_counts').innerText.startsWith('Looking')")
    page.reload()
    tab(page, "Crop")
    page.wait_for_selector("#dsm_crop_counts:has-text('1 of 5 confirmed')")
    assert page.locator("#dsm_crop_strip [data-state=skipped]").count() == 1
    page.click("#dsm_crop_accept")
    page.wait_for_selector("#dsm_crop_counts:has-text('4 of 5 confirmed')")
    accepted = {name for name in before if name[0] != "2" and "txt" not in name}
    end = time.monotonic() + 30  # the page saves a moment after a decision
    while {item.source for item in CropPlan.load(folder / ".dsm" / "crop-plan.json").due()} != accepted:
        assert time.monotonic() < end
        time.sleep(0.1)
    page.click("#dsm_crop_write")
    assert ended(page, "dsm_crop_panel") == "done"
    out = folder / "DATASET_IMGS"
    assert (out / "1 figure-portrait.txt").read_text("utf-8") == "1girl, shoes, smile"
    assert (out / "1 figure-body.txt").read_text("utf-8") == "1girl, full body, shoes, smile"
    assert not list(out.glob("2 long*")) and len(list(out.glob("*.png"))) == 5
    page.click("#dsm_crop_back")
    page.click("#dsm_over .dsm-dialog .dsm-primary")
    page.wait_for_selector("#dsm_over .dsm-toast:has-text('take back 5 crops')")
    assert not list(out.glob("*.png"))
    assert {path.name: path.read_bytes() for path in (folder / "IMGS").iterdir() if path.is_file()} == before


def test_frames_zoom_and_snap(crop_page, shots):
    page = crop_page()
    page.keyboard.press("PageDown")
    page.keyboard.press("PageDown")
    page.keyboard.press("5")
    facts(page, "Frame 1000×1000")
    stage = page.locator("#dsm_crop_stage").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    image = page.locator("#dsm_crop_stage > img")
    fitted = image.bounding_box()
    page.mouse.move(*middle)
    page.mouse.wheel(0, -400)
    page.wait_for_function("(width) => document.querySelector('#dsm_crop_stage > img').offsetWidth > 2 * width",
                           arg=fitted["width"])  # fmt: skip
    zoomed = image.bounding_box()
    # What is under the pointer stays there.
    for box in (fitted, zoomed):
        assert abs((middle[0] - box["x"]) / box["width"] - 0.5) < 0.02
    page.keyboard.press("0")
    page.wait_for_function("(width) => document.querySelector('#dsm_crop_stage > img').offsetWidth < 1.1 * width",
                           arg=fitted["width"])  # fmt: skip
    page.keyboard.press("g")
    handle = page.locator(".dsm-frame.dsm-current .dsm-handle[data-corner=e]").bounding_box()
    page.mouse.move(handle["x"] + 7, handle["y"] + 7)
    page.mouse.down()
    page.mouse.move(handle["x"] - 180, handle["y"] + 7, steps=4)
    page.mouse.up()
    page.wait_for_function(f"!({FACTS})().includes('Becomes 512×512')")
    size = page.evaluate(f"({FACTS})().match(/Becomes (\\d+)×(\\d+)/).slice(1).map(Number)")
    assert size[0] % 64 == size[1] % 64 == 0 and size[0] < size[1] and size[0] * size[1] <= 512 * 512
    facts(page, f"Trained at {size[0]}×{size[1]}, all of it")
    page.keyboard.press("b")
    page.wait_for_selector("#dsm_crop_stage .dsm-kept:has-text('cut away')")
    page.screenshot(path=shots / "crop-kept.png")


def test_the_page_tells_training_sizes_as_the_trainer_does(crop_page):
    page = crop_page()
    sizes = [
        (300, 600),
        (900, 300),
        (1500, 1000),
        (200, 180),
        (512, 512),
        (517, 700),
        (63, 900),
        (3000, 2111),
        (640, 90),
    ]
    call = "(sizes) => sizes.map((size) => DSM.frames.trainingSize(size, [512, 512], 64))"
    found = page.evaluate(call, [list(size) for size in sizes])
    known = [training_size(size, (512, 512), 64, True, False) for size in sizes]
    assert [tuple(size) if size else None for size in found] == known
    lost = page.evaluate("DSM.frames.lostShare([900, 300], [640, 192])")
    assert lost == pytest.approx(lost_share((900, 300), (640, 192)))
    page.click("#dsm_crop_buckets")
    page.wait_for_selector(".dsm-crop-table tbody tr >> nth=2")


def test_cleaning_sets_aside_and_brings_back(crop_page, folder, shots):
    page = crop_page()
    page.click("#dsm_crop_clean")
    page.wait_for_selector("#dsm_clean_list .dsm-clean-item:has-text('5 copy.png'):has-text('3 large.png')")
    page.screenshot(path=shots / "crop-clean.png")
    assert page.inner_text("#dsm_clean_aside") == "Set 1 picture aside"
    page.click("#dsm_clean_aside")
    page.wait_for_selector("#dsm_crop_counts:has-text('of 4 confirmed')")
    assert not (folder / "IMGS" / "5 copy.png").exists() and (folder / "IMGS/.dsm/removed/5 copy.png").is_file()
    page.click("#dsm_clean_undo")
    page.wait_for_selector("#dsm_crop_counts:has-text('of 5 confirmed')")
    assert (folder / "IMGS" / "5 copy.png").is_file()


def saved(folder) -> dict[str, str]:
    plan = folder / ".dsm" / "crop-plan.json"
    return {picture.source: picture.state for picture in CropPlan.load(plan).pictures} if plan.is_file() else {}


def until_saved(page, folder, **states: str) -> None:
    """Wait until the plan on the disk has these states, by the first letter of the pictures' names."""
    wanted = {name[1:]: state for name, state in states.items()}
    for _ in range(100):
        found = {source[0]: state for source, state in saved(folder).items()}
        if all(found.get(name) == state for name, state in wanted.items()):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{found} instead of {wanted}")


def test_decisions_are_on_the_disk_and_can_be_taken_back(crop_page, folder):
    page = crop_page()
    page.keyboard.press("Enter")
    facts(page, "2 of 5")
    page.keyboard.press("ArrowRight")
    until_saved(page, folder, _1="confirmed", _2="proposed")
    page.keyboard.press("u")
    page.keyboard.press("u")
    facts(page, "1 of 5")
    until_saved(page, folder, _1="proposed")


def test_a_late_proposal_does_not_undo_a_decision(crop_page, folder):
    page = crop_page()
    page.evaluate(SLOW)
    page.click("#dsm_crop_mode_center")
    page.focus(".dsm-page-crop")
    page.keyboard.press("Enter")  # the first is confirmed as it is, while another proposal is under way
    facts(page, "2 of 5")
    page.keyboard.press("s")
    page.keyboard.press("PageDown")
    page.keyboard.press("9")  # as it is
    page.keyboard.press("PageDown")
    page.keyboard.press("8")
    page.wait_for_function("!document.querySelector('#dsm_crop_counts').innerText.startsWith('Looking')")
    until_saved(page, folder, _1="confirmed", _2="skipped", _3="proposed", _4="proposed", _5="proposed")
    wanted = {"1": "pad", "3": "keep", "5": "center"}
    for _ in range(100):
        items = CropPlan.load(folder / ".dsm" / "crop-plan.json").items
        modes = {item.source[0]: item.mode for item in items if item.source[0] in wanted}
        if modes == wanted:
            break
        page.wait_for_timeout(100)
    assert modes == wanted
    until_saved(page, folder, _1="confirmed", _2="skipped", _3="proposed", _4="proposed", _5="proposed")


CONFIRM = "document.getElementById('dsm_crop_take').click();"


def counted(page, text: str) -> None:
    tab(page, "Crop")
    page.wait_for_selector(f"#dsm_crop_counts:has-text('{text}')")


def test_what_was_decided_last_outlives_a_page_that_is_taken_away(crop_page, folder):
    """As the WebUI's "Reload UI" does it: all is taken off, and nothing may be asked until it has come up again."""
    page = crop_page()
    plan = folder / ".dsm" / "crop-plan.json"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.post_data or ""))
    page.wait_for_function("!Object.keys(sessionStorage).some((key) => key.includes('unsaved'))")
    page.evaluate(f"() => {{ {CONFIRM} document.body.innerHTML = '<h1>Reloading...</h1>'; }}")
    page.wait_for_timeout(600)  # longer than the page waits before it saves
    assert not any("confirmed" in body for body in asked)
    assert not Draft(plan).load().due()
    page.reload()
    counted(page, "1 of 5 confirmed")
    assert {item.source for item in CropPlan.load(plan).due()} == {"1 figure.png"}
    assert page.evaluate("!Object.keys(sessionStorage).some((key) => key.includes('unsaved'))")
    page.reload()
    counted(page, "1 of 5 confirmed")


@pytest.mark.parametrize(("status", "confirmed"), [(403, "1 of 5"), (507, "1 of 5"), (400, "0 of 5")])
def test_what_was_decided_last_is_kept_until_it_is_taken_or_cannot_be(crop_page, folder, status, confirmed):
    """Also while the page that came next cannot save either, and has more to save, as a full disk makes it."""
    page = crop_page(refusing="crop/save")
    page.wait_for_function("!Object.keys(sessionStorage).some((key) => key.includes('unsaved'))")
    (folder / "IMGS" / "6 new.png").write_bytes((folder / "IMGS" / "4 odd.png").read_bytes())
    page.evaluate(f"() => {{ {CONFIRM} document.body.innerHTML = ''; }}")
    refused: list[str] = []

    def refuse(route) -> None:
        refused.append(route.request.post_data)
        route.fulfill(status=status, json={"error": {"problem": "Not now.", "remedy": ""}})

    page.route("**/dsm/v1/crop/save", refuse)
    page.reload()
    counted(page, confirmed.replace("5", "6"))
    while "6 new.png" not in refused[-1]:
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)
    page.unroute("**/dsm/v1/crop/save")
    page.reload()
    counted(page, f"{confirmed.replace('5', '6')} confirmed")
    due = {item.source for item in Draft(folder / ".dsm" / "crop-plan.json").load().due()}
    assert due == (set() if status == 400 else {"1 figure.png"})


def test_a_page_that_is_left_at_once_saves_what_was_decided(crop_page, folder):
    page = crop_page()
    page.evaluate(f"() => {{ Storage.prototype.setItem = () => {{}}; {CONFIRM} location.href = 'about:blank'; }}")
    plan, end = folder / ".dsm" / "crop-plan.json", time.monotonic() + 20
    while {item.source for item in Draft(plan).load().due()} != {"1 figure.png"}:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_another_windows_decisions_are_kept(crop_page, folder):
    late = crop_page()
    page = crop_page()
    page.click("#dsm_crop_accept")
    until_saved(page, folder, _1="confirmed", _5="confirmed")
    before = (folder / ".dsm" / "crop-plan.json").read_bytes()
    late.click("#dsm_crop_mode_pad")
    late.wait_for_selector("#dsm_over .dsm-toast:has-text('5 pictures had been decided on in another window')")
    late.wait_for_selector("#dsm_crop_counts:has-text('5 of 5 confirmed')")
    assert (folder / ".dsm" / "crop-plan.json").read_bytes() == before
    late.focus(".dsm-page-crop")
    late.keyboard.press("s")  # what is now seen may be changed
    until_saved(late, folder, _1="skipped", _2="confirmed")


def test_nothing_is_written_that_could_not_be_saved(crop_page, folder):
    page = crop_page()
    page.click("#dsm_crop_accept")
    until_saved(page, folder, _1="confirmed")
    page.route("**/crop/save", lambda route: route.fulfill(status=200, body="no answer"))
    page.focus(".dsm-page-crop")
    page.keyboard.press("s")
    page.click("#dsm_crop_write")
    page.wait_for_selector("#dsm_over .dsm-toast:has-text('The program answered 200')")
    assert not list((folder / "DATASET_IMGS").glob("*.png"))
    page.unroute("**/crop/save")
    page.click("#dsm_crop_write")
    assert ended(page, "dsm_crop_panel") == "done"
    assert saved(folder)["1 figure.png"] == "skipped" and not (folder / "DATASET_IMGS" / "1 figure.png").exists()


def test_another_shape_keeps_the_padding_and_is_looked_at_again(crop_page, folder):
    page = crop_page()
    page.keyboard.press("Enter")
    facts(page, "2 of 5")
    page.fill("#dsm_crop_height", "768")
    page.press("#dsm_crop_height", "Tab")
    until_saved(page, folder, _1="proposed")
    page.locator("#dsm_crop_strip .dsm-thumb").first.click()
    facts(page, "Frame 600×900")  # around all of it
    page.focus(".dsm-page-crop")
    page.fill("#dsm_crop_height", "512")
    page.press("#dsm_crop_height", "Tab")
    page.wait_for_function("!document.querySelector('#dsm_crop_counts').innerText.startsWith('Looking')")
    frame = next(item for item in CropPlan.load(folder / ".dsm" / "crop-plan.json").items if item.source[0] == "1")
    assert frame.box[1] <= 0 and frame.box[3] >= 600 and frame.mode == "pad"


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (1920, "light"), (1920, "dark")])
def test_it_can_be_looked_at(crop_page, shots, width, theme):
    page = crop_page(width=width, theme=theme)
    page.keyboard.press("PageDown")
    facts(page, "2 of 5")
    page.wait_for_selector("#dsm_crop_stage img.dsm-there")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=shots / f"crop-{width}-{theme}.png")


def test_a_detector_is_fetched_only_when_the_person_says_so(crop_page):
    page = crop_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.select_option("#dsm_crop_detector", "anime-head")
    dialog = page.locator(".dsm-dialog:has-text('deepghs/anime_head_detection on huggingface.co')")
    assert "45 MB" in dialog.inner_text() and "MIT" in dialog.inner_text()
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="detached")
    assert page.input_value("#dsm_crop_detector") == ""
    assert not any("crop/detector" in url for url in asked)
    page.select_option("#dsm_crop_detector", "yunet")
    page.locator(".dsm-dialog").get_by_role("button", name="Fetch").click()
    page.wait_for_selector("#dsm_over .dsm-toast:has-text('The detector yunet could not be downloaded')")
    assert page.input_value("#dsm_crop_detector") == "" and page.is_enabled("#dsm_crop_detector")
