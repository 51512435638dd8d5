"""What a preview was made with, as the text that the WebUI keeps in its pictures and reads back from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib_dsm.training.config import PreviewRequest

KEY = "parameters"  # of the PNG's text, and of `Image.info`
_SHORT_HASH = 10
_NEGATIVE = "Negative prompt:"


def infotext(request: PreviewRequest, clip_skip: int, checkpoint: str, checkpoint_hash: str) -> str:
    """The WebUI's layout: the prompt, the negative one, and a line of `name: value` pairs.

    `checkpoint` is its file's name and `checkpoint_hash` that file's SHA-256.
    """
    facts = {
        "Steps": request.steps,
        "Sampler": request.sampler,
        "Schedule type": request.scheduler,
        "CFG scale": f"{request.cfg:g}",
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": checkpoint_hash[:_SHORT_HASH],
        "Model": Path(checkpoint).stem,
        "Clip skip": clip_skip if clip_skip > 1 else "",
    }
    pairs = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in facts.items() if value != "")
    negative = [f"{_NEGATIVE} {request.negative}"] if request.negative else []
    return "\n".join([request.prompt, *negative, pairs])


def with_network(text: str, prompt: str, usage: str) -> str:
    """The text of a picture drawn with a network that its prompt does not name, with `usage` put into the prompt."""
    if not usage or usage in prompt or not text.startswith(prompt):
        return text
    return f"{prompt} {usage}".lstrip() + text[len(prompt) :]


def read_infotext(path: Path) -> str:
    """What is kept in a picture's file, "" if nothing is; PNG only, as previews are."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            text = picture.info.get(KEY, "")
    except Exception:  # Pillow's readers raise nearly any kind of error; whoever shows the picture says what is wrong
        return ""
    return text if isinstance(text, str) else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ',\n:"') else text
