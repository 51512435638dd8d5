"""What a person can choose when tagging."""

from __future__ import annotations

from dataclasses import dataclass

from lib_dsm.options import option
from lib_dsm.tagging.registry import MODELS


@dataclass(frozen=True)
class TagOptions:
    """How pictures are tagged. Tags in lists may be written with spaces or underscores, escaped or not."""

    model: str = option(MODELS[0].name, "The tagger's name, or a folder with model.onnx and selected_tags.csv")
    also: tuple[str, ...] = option((), "Further taggers that look at each picture as well")
    combine: str = option(
        "mean",
        "What counts of several taggers' scores: their mean, the highest (union) or the lowest (intersection)",
        choices=("mean", "union", "intersection"),
    )
    threshold: float = option(0.35, "Lowest score of a general tag", minimum=0.0, maximum=1.0, step=0.01)
    character_threshold: float = option(0.85, "Lowest score of a character's name", minimum=0.0, maximum=1.0, step=0.01)
    balanced: bool = option(False, "Use the tagger's own balanced threshold instead, where it is known")
    mcut: bool = option(False, "Find the thresholds for each picture, at the widest gap of its scores", label="MCut")
    sort: str = option("score", "Order of the tags", choices=("score", "alphabetical", "model"))
    escape: bool = option(True, "Escape brackets, which would otherwise act as emphasis", label="Escape brackets")
    keep_underscores: bool = option(False, "Keep underscores instead of writing spaces")
    weights: bool = option(False, "Write each tag with its score as its weight, such as (blue hair:0.97)")
    rating: bool = option(False, "Write the rating as well, such as rating:general")
    kinds: tuple[str, ...] = option(
        (), "Further kinds of tags to write, of taggers that know them: copyright, artist, meta, quality"
    )
    on_existing: str = option(
        "skip", "What to do where a caption is there already", choices=("skip", "replace", "append", "prepend")
    )
    exclude: tuple[str, ...] = option((), "Tags never to write; * and ? are wildcards")
    only: tuple[str, ...] = option((), "The only tags to write, where there are any here; * and ? are wildcards")
    first: tuple[str, ...] = option(
        (), "Tags to put in front; one that the tagger does not know, such as a trigger word, is always added"
    )
    replace: tuple[str, ...] = option(
        (), "What to write instead of a tag, as OLD=NEW or OLD|OLD=NEW; a * or ? in NEW is OLD's, no NEW means nothing"
    )
    file_name: str = option(
        "[name].txt", "Name of the caption's file: [name] and [extension] are the picture's", label="Caption file"
    )
    recursive: bool = option(False, "Include the folders inside")
    batch: int = option(
        0, "Pictures given to the tagger at a time; 0 chooses by the memory there is", minimum=0, maximum=256
    )
    keep_loaded: bool = option(False, "Keep the tagger in memory afterwards, for the next time")
