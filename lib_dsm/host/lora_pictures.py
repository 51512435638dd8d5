"""Pictures of a LoRA beside those of what it was made of: the same prompts and the same noise, one model at a time.

The host draws them. Here is how the studio and the command line do, with models of their own; the WebUI's way is in
webui_pictures.py.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.dataset.captions import caption_texts
from lib_dsm.errors import InputError
from lib_dsm.extraction.options import ExtractionOptions, PictureOptions
from lib_dsm.files import write_bytes
from lib_dsm.jobs import Job
from lib_dsm.training.config import PreviewRequest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_dsm.diffusion.diffusers import DiffusersModel
    from lib_dsm.diffusion.protocol import DiffusionModel
    from lib_dsm.networks.safetensors_files import TensorFile

SHEET = "-compared.png"  # behind the LoRA's name
_LEAST_CELL = 192  # pixels of a side; smaller pictures are enlarged by a whole factor
_LATENT = 8
_SD2_SIDE = 768  # of those that predict the velocity, whatever their yaml says
_GAP, _HEADING, _LINE = 8, 26, 20  # pixels
_GROUND, _INK, _SOFT = (255, 255, 255), (30, 32, 38), (110, 114, 124)
_PROMPT_SHOWN = 90  # characters


@dataclass(frozen=True)
class Compared:
    """What is drawn: a LoRA on its base, and the original that it stands for, if there is one.

    Attributes:
        base: the checkpoint.
        lora: the LoRA file.
        tuned: the checkpoint that it was extracted from.
        averages: which of its weights, as `ExtractionOptions.averages`.
        hypernetwork: the hypernetwork that it was made of.
        strength: of the hypernetwork.
    """

    base: Path
    lora: Path
    tuned: Path | None = None
    averages: str = "auto"
    hypernetwork: Path | None = None
    strength: float = 1.0


Draw = Callable[[PreviewRequest, int, Callable[[], None]], "Image"]
"""Draws a request with a CLIP skip; the last one is called where the picture can be given up, and may raise."""

Lend = Callable[[], AbstractContextManager[Draw]]
"""Lends what draws; a model is loaded as long as the context lasts."""

Variant = tuple[str, Lend]
"""What is drawn, by name."""


def compare_pictures(
    variants: Sequence[Variant],
    what: Compared,
    options: PictureOptions,
    prompts: Sequence[str],
    job: Job,
    sheet: Path | None = None,
) -> dict[str, Any]:
    """Draw `options.previews` pictures of each variant and write one PNG sheet, beside the LoRA if `sheet` is None.
    One that is there stays; the new one has a number behind.

    The prompts are taken in turn. The first picture with the LoRA becomes its card's, where the card has none. Gives
    plain data: the `sheet`, its `columns`, `rows` and the `boxes` of the pictures in it, and how far the pictures of
    the base (`apart`) and those with the LoRA (`left`) are from the original's, root mean square in grey levels.

    Raises:
        InputError: a file is missing.
        ModelError: a file cannot be loaded, or the LoRA is for another model.
        StorageError: the disk does not take the sheet.
        Cancelled: the job was.
    """
    requests = _requests(what.base, options, prompts)
    columns: list[str] = []
    drawn: list[list[Image]] = []
    total = len(variants) * len(requests)
    for name, load in variants:
        job.check()
        job.progress(len(drawn) * len(requests), total, f"loading for {name}")
        with load() as draw:
            row = []
            for index, request in enumerate(requests):
                job.progress(len(drawn) * len(requests) + index, total, f"{name}: {request.prompt[:60]}")
                row.append(draw(request, options.preview_clip_skip, job.check))
        del draw
        gc.collect()
        columns.append(name)
        drawn.append(row)
    job.progress(total, total)
    target = sheet or _free_sheet(what.lora)
    boxes = _write_sheet(target, columns, drawn, requests)
    card = what.lora.with_suffix(".png")
    if not card.exists():
        write_bytes(card, _png(drawn[-1][0]))
    facts: dict[str, Any] = {
        "sheet": str(target),
        "columns": columns,
        "rows": [{"prompt": request.prompt, "seed": request.seed} for request in requests],
        "boxes": boxes,
    }
    if len(drawn) > 2:
        facts |= {"apart": _apart(drawn[0], drawn[1]), "left": _apart(drawn[2], drawn[1])}
    return facts


def prompts_from(captions: Path | None, count: int) -> list[str]:
    """Captions of a folder to draw, spread over it; one empty prompt if there are none."""
    texts = caption_texts(captions) if captions is not None and captions.is_dir() else []
    return texts[:: max(1, len(texts) // max(1, count))][:count] or [""]


def text_of(facts: Mapping[str, Any]) -> str:
    """A sentence on what `compare_pictures` gave."""
    said = f"Pictures side by side: {facts['sheet']}"
    if facts.get("apart"):
        said += (
            f" (from the original's, those of the base are {facts['apart']:.1f} grey levels away, those with the LoRA "
            f"{facts['left']:.1f})"
        )
    return f"{said}."


def _free_sheet(lora: Path) -> Path:
    first = found = lora.with_name(f"{lora.stem}{SHEET}")
    number = 1
    while found.exists():
        number += 1
        found = first.with_name(f"{first.stem}-{number}.png")
    return found


def _requests(base: Path, options: PictureOptions, prompts: Sequence[str]) -> list[PreviewRequest]:
    side = options.preview_side or _side(base)
    if not prompts:
        raise InputError("There is no prompt to draw.", "Write one.")
    return [
        PreviewRequest(
            prompts[index % len(prompts)], seed=options.preview_seed + index, steps=options.preview_steps,
            cfg=options.preview_cfg, width=side, height=side,
        )
        for index in range(options.previews)
    ]  # fmt: skip


def _side(base: Path) -> int:
    from lib_dsm.diffusion.sizes import sizes_of
    from lib_dsm.networks.tensor_files import open_tensors

    with open_tensors(base) as file:
        sizes = sizes_of(base, file.shapes)
    velocity = sizes.text_encoder == "openclip" and sizes.prediction_type != "epsilon"
    return _SD2_SIDE if velocity else _LATENT * sizes.image_size


def variants(what: Compared) -> list[Variant]:
    """What the studio and the command line draw, from the files."""
    from lib_dsm.host.studio import load_model

    @contextmanager
    def base() -> Iterator[Draw]:
        yield _drawing(load_model(what.base), {})

    @contextmanager
    def tuned() -> Iterator[Draw]:
        from lib_dsm.extraction.key_map import canonical
        from lib_dsm.extraction.pair import open_pair

        assert what.tuned is not None
        with open_pair(what.base, what.tuned, ExtractionOptions(averages=what.averages)) as pair:
            known = pair.tuned.keys

            def reading(file: TensorFile) -> Callable[[str], torch.Tensor]:
                return lambda key: pair.tuned.read(canonical(key)) if canonical(key) in known else file.read(key)

            model = load_model(what.tuned, reading, described=what.base)
        yield _drawing(model, {})

    @contextmanager
    def hypernetwork() -> Iterator[Draw]:
        model = load_model(what.base)
        with hypernetwork_on(model, what) as replacements:
            yield _drawing(model, replacements)

    @contextmanager
    def lora() -> Iterator[Draw]:
        from lib_dsm.extraction.applied import Applied
        from lib_dsm.extraction.lora_content import read_lora

        content = read_lora(what.lora)
        found: list[Applied] = []

        def reading(file: TensorFile) -> Callable[[str], torch.Tensor]:
            found.append(Applied(file, content))
            return found[0].read

        model = load_model(what.base, reading)
        yield _drawing(model, found[0].replacements)

    return named(what, base, tuned, hypernetwork, lora)


def named(what: Compared, base: Lend, tuned: Lend, hypernetwork: Lend, lora: Lend) -> list[Variant]:
    """Those of the variants that there are, from left to right."""
    originals = [("fine-tuned", tuned)] if what.tuned is not None else []
    if what.hypernetwork is not None and not originals:
        originals = [("hypernetwork", hypernetwork)]
    return [("base", base), *originals, ("base + LoRA", lora)]


def hypernetwork_on(model: DiffusionModel, what: Compared) -> AbstractContextManager[Mapping[str, torch.Tensor]]:
    """The hypernetwork of `what` at work in a model; gives the replacements for prompts."""
    from lib_dsm.networks.hypernetwork import load_hypernetwork
    from lib_dsm.networks.hypernetwork_training import HypernetworkTraining

    assert what.hypernetwork is not None
    found = load_hypernetwork(what.hypernetwork)
    network = HypernetworkTraining("compared", found.structure, found.weights, model.device)
    return network.applied(model, what.strength)


def _drawing(model: DiffusersModel, replacements: Mapping[str, torch.Tensor]) -> Draw:
    from lib_dsm.diffusion.sampling import generate

    return lambda request, clip_skip, check: generate(model, request, replacements, clip_skip, check)


def _write_sheet(
    target: Path, columns: Sequence[str], drawn: Sequence[Sequence[Image]], requests: Sequence[PreviewRequest]
) -> list[list[list[int]]]:
    """Write the sheet; gives left, top, width and height of each row's pictures in it."""
    from PIL import Image, ImageDraw

    width, height = drawn[0][0].size
    factor = max(1, -(-_LEAST_CELL // width))
    width, height = width * factor, height * factor
    row_height = height + _LINE + _GAP
    size = (len(columns) * (width + _GAP) + _GAP, _HEADING + len(requests) * row_height)
    sheet, (font, shown) = Image.new("RGB", size, _GROUND), _font()
    canvas = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        canvas.text((_GAP + column * (width + _GAP), 6), name, _INK, font)
    boxes = []
    for row, request in enumerate(requests):
        top = _HEADING + row * row_height
        box = [[_GAP + column * (width + _GAP), top, width, height] for column in range(len(columns))]
        for (left, upper, *_), pictures in zip(box, drawn, strict=True):
            enlarged = pictures[row].resize((width, height), Image.Resampling.NEAREST) if factor > 1 else pictures[row]
            sheet.paste(enlarged, (left, upper))
        said = request.prompt if len(request.prompt) <= _PROMPT_SHOWN else f"{request.prompt[: _PROMPT_SHOWN - 1]}…"
        canvas.text((_GAP, top + height + 2), shown(f"{said or '(no prompt)'}  ·  seed {request.seed}"), _SOFT, font)
        boxes.append(box)
    write_bytes(target, _png(sheet))
    return boxes


def _font() -> tuple[Any, Callable[[str], str]]:
    """A font, and what makes a text one that it can draw."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(14), str
    except TypeError:  # Pillow before 10.1 has one of pixels alone, with the letters of western Europe
        return ImageFont.load_default(), lambda text: text.encode("latin-1", "replace").decode("latin-1")


def _png(picture: Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def _apart(one: Sequence[Image], other: Sequence[Image]) -> float:
    """The root mean square difference of two rows of pictures, in grey levels of 0 to 255."""
    import numpy as np

    pairs = zip(one, other, strict=True)
    squares = [np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean() for a, b in pairs]
    return float(np.sqrt(np.mean(squares)))
