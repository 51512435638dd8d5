"""Pictures of a LoRA beside those of what it was made of, drawn by the WebUI's own generation.

Each variant is the model of a checkpoint in the WebUI's list, lent as for training; the LoRA is put on by the WebUI
itself, as `<lora:NAME:1>` in a prompt does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.errors import InputError, ModelError
from lib_dsm.host import webui_session
from lib_dsm.host.lora_pictures import Compared, Draw, Variant, hypernetwork_on, named

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_dsm.training.config import PreviewRequest


def variants(what: Compared) -> list[Variant]:
    """See `Host.variants` in protocol.py.

    Raises:
        InputError: a checkpoint is not in the WebUI's list, or the LoRA not in its own.
    """
    base_name, tuned_name = (_listed(path) for path in (what.base, what.tuned))
    name = _lora_name(what.lora)
    word = f"<lora:{name}:1>"

    @contextmanager
    def base() -> Iterator[Draw]:
        with webui_session.training_session(base_name, brief=True) as session:
            yield _drawing(session, {})

    @contextmanager
    def tuned() -> Iterator[Draw]:
        with webui_session.training_session(tuned_name, brief=True) as session:
            yield _drawing(session, {})

    @contextmanager
    def hypernetwork() -> Iterator[Draw]:
        with (
            webui_session.training_session(base_name, brief=True) as session,
            hypernetwork_on(session.model, what) as replacements,
        ):
            yield _drawing(session, replacements)

    @contextmanager
    def lora() -> Iterator[Draw]:
        with webui_session.training_session(base_name, brief=True) as session, session.with_networks():
            draw = _drawing(session, {})

            def with_lora(request: PreviewRequest, clip_skip: int, check: Callable[[], None]) -> Image:
                picture = draw(replace(request, prompt=f"{request.prompt} {word}"), clip_skip, check)
                _demand_loaded(name)
                return picture

            yield with_lora

    return named(what, base, tuned, hypernetwork, lora)


def _drawing(session: webui_session.WebUISession, replacements: Mapping[str, torch.Tensor]) -> Draw:
    return lambda request, clip_skip, check: session.preview(request, replacements, clip_skip, check)


def _listed(path: Path | None) -> str:
    """The WebUI's title of a checkpoint's file, "" for none."""
    if path is None:
        return ""
    try:
        return str(webui_session.find_checkpoint(str(path.resolve())).title)
    except ModelError:
        raise InputError(
            f"{path} is not in the WebUI's list of checkpoints.",
            "Put it into the models folder to have it drawn, or draw in the studio.",
        ) from None


def _demand_loaded(name: str) -> None:
    """The WebUI draws without a LoRA that it cannot load, and says so in its log alone."""
    loaded = getattr(sys.modules["networks"], "loaded_networks", ())
    if name not in {str(network.name) for network in loaded}:
        raise ModelError(f"The WebUI did not put {name} on.", "Its log says why.")


def _lora_name(path: Path) -> str:
    """The name by which the WebUI's own Lora extension knows a file."""
    networks = sys.modules.get("networks")
    if networks is None:
        raise InputError("The WebUI's own extension Lora is switched off.", "Switch it on to have the LoRA drawn.")
    for name, found in networks.available_networks.items():
        if Path(found.filename).resolve() == path.resolve():
            return str(name)
    raise InputError(
        f"{path} is not in the WebUI's list of LoRA files.", "Put it into the Lora folder and press refresh there."
    )
