"""Reading the command line: every command is declared here and done in one of the modules beside."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lib_dsm import __version__
from lib_dsm.errors import Cancelled, DsmError

logger = logging.getLogger("dsm")
DONE, FAILED, USAGE, STOPPED = 0, 1, 2, 130
STUDIO = Path(__file__).resolve().parents[2] / "studio"


@dataclass(frozen=True)
class Result:
    """What a command did: plain data for `--json`, text for a person, and the exit code."""

    data: dict[str, Any]
    text: str
    code: int = DONE


def main(arguments: Sequence[str]) -> int:
    """Do one command; returns the exit code: 0 done, 1 refused or failed, 2 usage, 130 stopped."""
    try:
        parsed = _parser(arguments).parse_args(arguments)
    except SystemExit as leave:
        return int(leave.code or 0)
    try:
        with logging_to(logging.NullHandler()):
            result: Result = parsed.run(parsed)
        if parsed.json:
            print(json.dumps(result.data, ensure_ascii=False, default=str))
        elif result.text:
            print(result.text)
        sys.stdout.flush()
    except (Cancelled, KeyboardInterrupt) as stop:
        print(f"dsm: {str(stop) or 'Stopped on request.'}", file=sys.stderr)
        return STOPPED
    except DsmError as error:
        print(f"dsm: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # whoever read the output has seen enough; what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if parsed.verbose:
            traceback.print_exc()
        print(f"dsm: Something unexpected went wrong: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    return result.code


@contextlib.contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Let a handler have the library's log; without any, Python would print errors with their traces on stderr."""
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib_dsm", description="Datasets, embeddings and LoRAs for Stable Diffusion."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), "")
    for name, (text, declare) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        # Some options live beside heavy code, so that only the chosen command's flags are made.
        if name == chosen:
            declare(command)
    return parser


def _ready(parser: argparse.ArgumentParser, act: str) -> None:
    """`act` is the module and the function that do it; the module is imported for that alone."""

    def run(parsed: argparse.Namespace) -> Result:
        module, _, function = act.partition(".")
        done_by: Callable[[argparse.Namespace], Result] = getattr(import_module(f"lib_dsm.cli.{module}"), function)
        return done_by(parsed)

    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    parser.add_argument("--verbose", action="store_true", help="show the trace of an unexpected error")
    parser.set_defaults(run=run)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=_path, default=STUDIO.with_name("demo"), help="where everything goes (demo)")
    parser.add_argument("--steps", type=_positive, default=None, help="training steps")
    parser.add_argument("--no-serve", action="store_true", help="end when it is done instead of showing the page")
    parser.add_argument(
        "--prove", action="store_true", help="train many embeddings instead and count what comes out right"
    )
    _listening(parser)
    _ready(parser, "commands.demo")


def _studio(parser: argparse.ArgumentParser) -> None:
    _listening(parser)
    parser.add_argument("--project", type=_path, help="the project to open")
    _data(parser)
    _ready(parser, "commands.studio")


def _listening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7870, help="port, 0 for a free one (7870)")
    parser.add_argument("--password", help="what user dsm must give; needed where others can reach the address")


def _data(parser: argparse.ArgumentParser, holds: str = "checkpoints, embeddings and runs") -> None:
    parser.add_argument("--data", type=_path, default=STUDIO, help=f"the studio's folder with {holds} (studio)")


def _new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=_path)
    _ready(parser, "commands.new")


def _tag(parser: argparse.ArgumentParser) -> None:
    from lib_dsm.cli.flags import add_flags
    from lib_dsm.tagging.options import TagOptions

    parser.add_argument("folder", type=_path, help="the folder, or one picture to look at")
    parser.add_argument("--dry-run", action="store_true", help="say what would become of each caption, write none")
    add_flags(parser, TagOptions)
    _data(parser)
    _ready(parser, "caption_commands.tag")


def _tags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=_path)
    parser.add_argument("--where", default="", metavar="QUERY", help="count only in captions that it means")
    parser.add_argument("--recursive", action="store_true", help="include the folders inside")
    _ready(parser, "caption_commands.tags")


def _prune(parser: argparse.ArgumentParser) -> None:
    from lib_dsm.cli.flags import add_flags
    from lib_dsm.pruning.character import PRESETS
    from lib_dsm.pruning.prune import PruneOptions

    parser.add_argument("folder", type=_path)
    add_flags(parser, PruneOptions)
    parser.add_argument("--character", action="store_true", help="remove the tags that describe the character itself")
    parser.add_argument(
        "--preset",
        default="character",
        choices=tuple(preset.name for preset in PRESETS),
        help="which of them --character means: all, all but accessories, no clothes, clothes only, nudity as nsfw",
    )
    parser.add_argument("--share", type=_percent, default=40, help="in at least so many percent of the captions (40)")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    _ready(parser, "caption_commands.prune")


def _folder_act(name: str) -> Callable[[argparse.ArgumentParser], None]:
    def declare(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", type=_path)
        _ready(parser, name)

    return declare


def _crop(parser: argparse.ArgumentParser) -> None:
    from lib_dsm.cli.flags import add_flags
    from lib_dsm.cropping.plan import CropOptions

    parser.add_argument("folder", type=_path, nargs="?", help="the pictures; not needed to --undo")
    parser.add_argument("--out", type=_path, required=True, help="folder for the crops")
    parser.add_argument("--size", metavar="WxH", type=_size, help="width and height in one")
    parser.add_argument("--plan", type=_path, metavar="FILE", help="do as this plan says")
    parser.add_argument("--save-plan", type=_path, metavar="FILE", help="write the plan and crop nothing")
    parser.add_argument("--accept-all", action="store_true", help="write what nobody confirmed, too")
    parser.add_argument("--tidy", action="store_true", help="move crops aside that the plan no longer has")
    parser.add_argument("--undo", action="store_true", help="take back what the last run wrote, and do nothing else")
    _data(parser, "detectors, where one that is given by name is fetched to")
    add_flags(parser, CropOptions)
    _ready(parser, "commands.crop")


def _clean(parser: argparse.ArgumentParser) -> None:
    from lib_dsm.cli.flags import add_flags
    from lib_dsm.cropping.cleaning import KINDS, CleanOptions

    parser.add_argument("folder", type=_path)
    parser.add_argument(
        "--aside", action="append", type=_among(KINDS), default=[], metavar="KIND,KIND",
        help="move pictures of these kinds aside with their captions; with commas or repeated, "
        f"of {', '.join(KINDS)}",
    )  # fmt: skip
    parser.add_argument("--recursive", action="store_true", help="include the folders inside")
    add_flags(parser, CleanOptions)
    _ready(parser, "commands.clean")


def _undo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=_path)
    parser.add_argument("--to", type=int, metavar="N", help="undo or redo until edit N is the last, 0 for none of them")
    _ready(parser, "caption_commands.undo")


def _history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=_path)
    parser.add_argument("--act", type=int, metavar="N", help="what edit N changed")
    _ready(parser, "caption_commands.history")


def _metadata(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=_path)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--out", type=_path, metavar="FILE", help="write the captions into this JSON")
    way.add_argument("--in", type=_path, metavar="FILE", dest="source", help="write its tags beside the pictures")
    parser.add_argument("--stems", action="store_true", help="name pictures without path and ending, not in full")
    parser.add_argument("--recursive", action="store_true", help="include the folders inside")
    parser.add_argument("--dry-run", action="store_true", help="say what --in would change, and change nothing")
    _ready(parser, "caption_commands.metadata")


def _percent(text: str) -> int:
    if not text.strip("% ").isdecimal() or not 1 <= int(text.strip("% ")) <= 100:
        raise argparse.ArgumentTypeError(f'"{text}" is no percentage from 1 to 100')
    return int(text.strip("% "))


def _among(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        words = [word.strip() for word in text.split(",") if word.strip()]
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f'"{word}" is none of {", ".join(known)}')
        return words

    return read


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is not of the form 512x512') from None
    return width, height


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number above 0')
    return int(text)


def _run(name: str, resumes: bool = True) -> Callable[[argparse.ArgumentParser], None]:
    def declare(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("settings", type=_path, metavar="RUN.json")
        parser.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a key of the file; may be repeated"
        )
        if resumes:
            parser.add_argument("--resume", action="store_true", help="go on with the run of this name")
        _data(parser)
        _ready(parser, name)

    return declare


def _tune(parser: argparse.ArgumentParser) -> None:
    _run("training_commands.tune")(parser)
    parser.add_argument(
        "--vary", action="append", default=[], required=True, metavar="KEY=VALUE|VALUE",
        help="try a key with each of these values; may be repeated, and every combination is trained",
    )  # fmt: skip


def _extract(parser: argparse.ArgumentParser) -> None:
    from lib_dsm.cli.flags import add_flags
    from lib_dsm.extraction.options import EditOptions, ExtractionOptions, HypernetworkOptions
    from lib_dsm.host.lora_options import CaptureOptions

    sources = parser.add_subparsers(metavar="SOURCE", required=True)
    checkpoint = sources.add_parser("checkpoint", help="the difference of two checkpoints as a LoRA")
    checkpoint.add_argument("--base", type=_path, required=True, help="the checkpoint it was tuned from")
    checkpoint.add_argument("--tuned", type=_path, required=True, help="the fine-tuned checkpoint")
    checkpoint.add_argument("--out", type=_path, help="the LoRA file to write; not needed with --survey")
    checkpoint.add_argument(
        "--survey", action="store_true", help="tell sizes and errors for a few ranks, and write nothing"
    )
    add_flags(checkpoint, ExtractionOptions)
    checkpoint.add_argument("--captions", type=_path, help="folder of captions to draw the previews of")
    _previews(checkpoint)
    _bundle(checkpoint)
    _ready(checkpoint, "file_commands.extract_checkpoint")
    hypernetwork = sources.add_parser("hypernetwork", help="a hypernetwork as a LoRA")
    hypernetwork.add_argument("file", type=_path)
    hypernetwork.add_argument("--base", type=_path, required=True, help="the checkpoint it was trained on")
    hypernetwork.add_argument("--out", type=_path, required=True, help="the LoRA file to write")
    hypernetwork.add_argument("--captions", type=_path, help="folder of captions to fit one on that is not linear")
    add_flags(hypernetwork, HypernetworkOptions)
    add_flags(hypernetwork, CaptureOptions)
    _previews(hypernetwork)
    _bundle(hypernetwork)
    _ready(hypernetwork, "file_commands.extract_hypernetwork")
    for name, text in (
        ("lora", "convert, resize, merge, scale or prune LoRA files of any tool (to compare two: inspect --compare)"),
        ("dreambooth", "the .pt of the old DreamBooth extension as a LoRA that the WebUI loads"),
    ):
        lora = sources.add_parser(name, help=text, description=_EDITS[name])
        lora.add_argument("file", type=_path, nargs="+", metavar="FILE[=WEIGHT]")
        lora.add_argument("--text-encoder", type=_path, help="the extension's second file, NAME_txt.pt")
        lora.add_argument("--out", type=_path, required=True, help="the LoRA file to write")
        add_flags(lora, EditOptions)
        _bundle(lora)
        _ready(lora, "file_commands.edit_lora")
    embedding = sources.add_parser("embedding", help="a trained embedding bundled in a LoRA file")
    embedding.add_argument("file", type=_path)
    embedding.add_argument("--out", type=_path, required=True, help="the LoRA file to write")
    embedding.add_argument("--name", default="", help="the word for the prompt; the embedding's own if not given")
    embedding.add_argument("--overwrite", action="store_true", help="replace an existing file")
    _ready(embedding, "file_commands.extract_embedding")


_EDITS = {
    "lora": "LoRA files of any tool, as the WebUI loads them. One file is converted: --rank, --conv-rank, --energy or "
    "--size resize it, --scale and --prune do what they say. Several are merged, each with its WEIGHT. "
    "The command inspect FILE --compare OTHER tells how far two are apart.",
    "dreambooth": "The .pt of the old DreamBooth extension, or cloneofsimo's, as the WebUI loads it. Its text encoder "
    "may lie in a second file: --text-encoder.",
}


def _previews(parser: argparse.ArgumentParser) -> None:
    from lib_dsm.cli.flags import add_flags
    from lib_dsm.extraction.options import PictureOptions

    add_flags(parser, PictureOptions)
    parser.add_argument(
        "--prompt", action="append", default=[], help="what the previews show; may be repeated; else the captions"
    )


def _bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--embedding", type=_path, action="append", default=[], help="an embedding to bundle in it; may be repeated"
    )


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=_path)
    parser.add_argument("--compare", type=_path, metavar="LORA", help="a LoRA to compare this one with")
    _ready(parser, "file_commands.inspect")


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "demo": ("the whole way on the demo world", _demo),
    "studio": ("the page in the browser", _studio),
    "new": ("make a project folder", _new),
    "tag": ("write captions with a tagger, or look at one picture", _tag),
    "tags": ("count the tags of the captions", _tags),
    "prune": ("edit the tags of many captions", _prune),
    "undo": ("take the last edit of the captions back, or bring pictures back that were set aside", _undo),
    "redo": ("do the edit undone last once more", _folder_act("caption_commands.redo")),
    "history": ("the edits of a folder's captions, and which pictures were set aside", _history),
    "metadata": ("the captions as kohya's metadata JSON, out or in", _metadata),
    "clean": ("find duplicates, blurred, small, marked pictures, and set them aside", _clean),
    "crop": ("crop pictures into another folder", _crop),
    "create": ("write an embedding that is not trained yet", _run("training_commands.create", resumes=False)),
    "check": ("the guards, without training", _run("training_commands.check")),
    "train": ("train an embedding", _run("training_commands.train")),
    "tune": ("train with several values of some settings, and compare", _tune),
    "extract": ("make a LoRA file; convert, resize, merge, prune LoRAs", _extract),
    "inspect": ("what a .pt, .safetensors or PNG file is; compare two LoRAs", _inspect),
}
