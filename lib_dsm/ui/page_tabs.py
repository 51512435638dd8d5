"""The tabs Crop and Prune: pages of our own scripts, which need only a place."""

from __future__ import annotations

from lib_dsm.ui import compat, messages
from lib_dsm.ui.parts import Page


def build_crop(page: Page) -> None:
    """The place of the page for cropping."""
    page.intro(
        "Every picture gets frames proposed that you can move: drag, pull, or use the arrow keys. <b>Enter</b> "
        "confirms and goes on, <b>?</b> shows the keys. Originals stay as they are; crops go to <b>DATASET_IMGS</b>."
    )
    compat.html(messages.place("crop"), "dsm_crop_page")
    compat.html(messages.job_place("crop"), "dsm_crop_panel")
    page.next("Tag")


def build_prune(page: Page) -> None:
    """The place of the page for pruning."""
    page.intro(
        "Remove from all captions what belongs to the character itself, such as hair, eyes and its usual clothes, so "
        "that the embedding takes it up. Leave backgrounds and poses. Press <b>?</b> for the keys."
    )
    compat.html(messages.place("prune"), "dsm_prune_page")
    page.next("Train")
