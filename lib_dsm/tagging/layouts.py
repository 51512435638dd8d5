"""What each family of taggers wants of a picture, what its numbers mean, and how its files are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Layout:
    """One family of taggers.

    `fit` says how a picture becomes square: "pad" keeps its shape on a ground of `ground` (RGB), "edge" repeats the
    outermost pixels instead, "squash" gives its shape up. `bgr` is the order of the channels. The network takes
    `(value / 255 - mean) / std` where there is a `mean`, in the order of its channels, and else the values from 0 to
    255. `channels_first` is N × 3 × side × side instead of N × side × side × 3. `logits` says that the scores are still
    to be squeezed between 0 and 1. `model_files` and `label_files` are the names its files may have; `outputs` names
    the outputs to prefer where the network has several.
    """

    name: str
    label_files: tuple[str, ...]
    model_files: tuple[str, ...] = ("model.onnx",)
    side: int = 448
    fit: str = "pad"
    ground: tuple[int, int, int] = (255, 255, 255)
    bgr: bool = False
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels_first: bool = True
    logits: bool = False
    outputs: tuple[str, ...] = ()

    def fingerprint(self, side: int) -> str:
        """The preprocessing in one line: pictures prepared under the same one are the same."""
        parts = (self.fit, self.ground if self.fit == "pad" else "", self.bgr, self.mean, self.std)
        return f"{_VERSION}/{side}/" + "/".join(map(str, parts))


_VERSION = 2  # of how pictures are read and shrunk; another one makes kept scores worthless

WD = Layout("wd", ("selected_tags.csv",), bgr=True, channels_first=False)
CL = Layout("cl", ("tag_mapping.json",), ("model.onnx", "model_optimized.onnx"),
            bgr=True, mean=_HALF, std=_HALF, logits=True)  # fmt: skip
PIXAI = Layout("pixai", ("selected_tags.csv",), fit="squash", mean=_HALF, std=_HALF, outputs=("prediction", "output"))
JOYTAG = Layout("joytag", ("top_tags.txt",), mean=_CLIP_MEAN, std=_CLIP_STD, logits=True)
CAMIE = Layout("camie", ("camie-tagger-v2-metadata.json", "metadata.json"), ("camie-tagger-v2.onnx", "model.onnx"),
               side=512, ground=(124, 116, 104), mean=_IMAGENET_MEAN, std=_IMAGENET_STD, logits=True,
               outputs=("refined_logits", "refined_predictions"))  # fmt: skip
DEEPDANBOORU = Layout("deepdanbooru", ("tags.txt",), ("model.onnx", "model-resnet_custom_v3.onnx"), side=512,
                      fit="edge", mean=(0.0, 0.0, 0.0), channels_first=False)  # fmt: skip

LAYOUTS = (WD, CL, PIXAI, JOYTAG, CAMIE, DEEPDANBOORU)


def layout_named(name: str) -> Layout:
    """The layout of that name, which must be one of `LAYOUTS`."""
    return next(layout for layout in LAYOUTS if layout.name == name)


def files_in(folder: Path, layout: Layout) -> tuple[Path, Path] | None:
    """The network and the list of tags of that layout in a folder, None where one is missing."""
    model = next((folder / name for name in layout.model_files if (folder / name).is_file()), None)
    labels = next((folder / name for name in layout.label_files if (folder / name).is_file()), None)
    return (model, labels) if model is not None and labels is not None else None


def layout_of(folder: Path) -> Layout | None:
    """The layout of the tagger in a folder by the files it holds, None where it holds none.

    `pixai` has the same file names as `wd`; which of the two it is shows in the shape of its input, see session.py.
    """
    return next((layout for layout in LAYOUTS if files_in(folder, layout) is not None), None)
