"""What a person does with the mouse and the keyboard."""

from __future__ import annotations

from pathlib import Path


def tab(page, label: str) -> None:
    page.locator("#dsm_tabs").get_by_role("tab", name=label, exact=True).click()


def assert_fits(page, label: str) -> None:
    """Nothing of the page is out of the window to the right."""
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{label} is wider than the window by {wide}"


def fill(page, elem_id: str, value: object) -> None:
    field = page.locator(f"#{elem_id} textarea, #{elem_id} input[type=number], #{elem_id} input[type=text]").first
    field.fill(str(value))
    field.press("Tab")


def unfold(page, *groups: str) -> None:
    """Open groups of the Train tab's form, such as "sizes"."""
    for group in groups:
        head = page.locator(f"#dsm_train_group_{group} .label-wrap").first
        if "open" not in (head.get_attribute("class") or ""):
            head.click()


def train_settings(page, **values: object) -> None:
    """Write settings of a run into the form at once, as loading a preset does; lists and previews as RUN.json has."""
    page.wait_for_function("DSM.train.ready")
    page.evaluate("values => DSM.train.fill(values)", values)
    page.wait_for_function(
        """async (wanted) => {
            const now = await DSM.train.read();
            const written = Object.entries(wanted).filter(([name]) => name !== "previews");
            return written.every(([name, value]) => String(now[name]) === String(value));
        }""",
        arg=values,
    )


def choose(page, elem_id: str, value: str, own: bool = False) -> None:
    """Pick a dropdown's value, or write one of one's own."""
    field = page.locator(f"#{elem_id} input").first
    field.click()
    field.fill(value)
    option = page.get_by_role("option", name=value, exact=True)
    if own:
        field.press("Enter")
    else:
        option.first.click()
    field.press("Tab")


def open_project(page, folder: Path, new: bool = False) -> None:
    fill(page, "dsm_project_path", folder)
    page.click("#dsm_project_new" if new else "#dsm_project_open")
    page.wait_for_function("name => DSM.state.project && DSM.state.project.path === name", arg=str(folder))


def forget_ended(page) -> None:
    """Let `ended` pass over the jobs that are shown now: a page opens on the last one."""
    page.evaluate("document.querySelectorAll('.dsm-job-panel').forEach((panel) => { panel.dataset.old = 'yes'; })")


def ended(page, panel: str) -> str:
    """Wait for the end of the job in a panel and return its state."""
    shown = f"#{panel} .dsm-job-panel:not([data-old])"
    page.wait_for_selector(f"{shown}:not([data-state=running])")
    return page.locator(shown).get_attribute("data-state")


def trained(page, name: str) -> str:
    """Wait for the end of the training of that name and return its state."""
    shown = f"#dsm_train_panel [aria-label='Training {name}'].dsm-job-panel"
    page.wait_for_selector(f"{shown}:not([data-state=running])")
    return page.locator(shown).get_attribute("data-state")
