"""What the tabs share: the project, introductions, small buttons, and how handlers are attached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lib_dsm.api.service import Service
from lib_dsm.dataset.project import Project
from lib_dsm.errors import DsmError, InputError
from lib_dsm.ui import compat, messages
from lib_dsm.ui.compat import Component

FOLDERS: dict[str, Callable[[Project], Path]] = {
    "IMGS": lambda project: project.imgs,
    "DATASET_IMGS": lambda project: project.dataset_imgs,
    "SET": lambda project: project.set,
    "Project folder": lambda project: project.root,
}
AUTOMATIC: dict[str, tuple[str, Callable[[Project], Path]]] = {
    "tag": ("Automatic: cropped, else all", Project.tagging_folder),
    "train": ("Automatic: SET, else tagged", Project.training_folder),
}


@dataclass(frozen=True)
class Page:
    """The page under construction: what the routes know, and the field with the project's folder."""

    service: Service
    project: Component

    def intro(self, text: str) -> None:
        """What the tab is for, in a sentence or two of HTML."""
        compat.html(f'<p class="dsm-intro">{text}</p>')

    def tool(self, sign: str, elem_id: str) -> Component:
        """A small button beside a field."""
        button = gr.Button(sign, elem_id=elem_id, elem_classes=["dsm-tool"])
        button.do_not_save_to_config = True  # the WebUI keeps settings by label, and signs repeat
        return button

    def next(self, label: str) -> None:
        """The button at a tab's end that opens the next one."""
        with gr.Row(elem_classes=["dsm-next"]):
            gr.Button(f"Next: {label} →", elem_id=f"dsm_next_{label.lower()}")

    def folder(self, tab: str, label: str, info: str | None = None) -> Component:
        """Which folder of the project a tab works on."""
        automatic = AUTOMATIC[tab][0]
        choices = [automatic, *FOLDERS]
        return gr.Dropdown(choices, value=automatic, label=label, info=info, elem_id=f"dsm_{tab}_folder")

    def opened(self, text: str) -> Project:
        """The project in the field.

        Raises:
            InputError: there is none, or it has not been opened.
        """
        if not text.strip():
            raise InputError("No project is open.", "Write its folder at the top and press Open or New.")
        try:
            return Project(self.service.folder(text.strip()))
        except DsmError:
            raise InputError(f'The project "{text}" is not open.', "Press Open at the top.") from None

    def picture_folder(self, project: str, choice: str, tab: str) -> Path:
        """The folder that a choice of `folder` means."""
        opened = self.opened(project)
        return FOLDERS.get(choice, AUTOMATIC[tab][1])(opened)

    def act(
        self,
        event: Callable[..., Any],
        tab: str,
        handler: Callable[..., Any],
        inputs: Sequence[Component],
        outputs: Sequence[Component],
    ) -> None:
        """Attach a handler whose errors become a line in its first output."""
        compat.listen(event, messages.guarded(tab, len(outputs), handler), inputs, outputs)
