"""The scales of a PEFT adapter: what `adapter_config.json` or diffusers' metadata say of alpha and rank.

A module's scale is alpha / rank, with `use_rslora` alpha / √rank (D. Kalajdzievski, "A rank stabilization scaling
factor for fine-tuning with LoRA", 2023). `alpha_pattern` and `rank_pattern` give other numbers to the modules whose
name ends in a pattern, a regular expression. The rank here is the tensor's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_dsm.errors import ModelError
from lib_dsm.files import is_file, parse_json

_METADATA = "lora_adapter_metadata"
_CONFIG = "adapter_config.json"
_NAME = re.compile(r"[\w.]+")
_FOREIGN = "base_model.model."  # PEFT's own files, which say nothing of alpha
_REMEDY = "Get it again."


class AdapterScales:
    """The scales of a file's modules, as far as they are told."""

    def __init__(self, path: Path, told: Mapping[str, Mapping[str, Any]], everywhere: Mapping[str, Any] | None) -> None:
        self._path = path
        self._told = told  # by model
        self._everywhere = everywhere

    def scale(self, model: str, module: str, rank: int) -> float | None:
        """Of a module, such as `down_blocks.0.attentions.0.proj_in` of `unet`; None if nothing is told.

        Raises:
            ModelError: what is told is no number.
        """
        told = self._told.get(model, self._everywhere)
        if told is None or "lora_alpha" not in told:
            return None
        try:
            alpha = float(_of_pattern(told.get("alpha_pattern") or {}, module, told["lora_alpha"]))
        except (TypeError, ValueError, AttributeError, OverflowError, re.error) as error:
            raise ModelError(f"The alpha of {module} in {self._path} cannot be read: {error}.", _REMEDY) from error
        if not rank:
            raise ModelError(f"{module} in {self._path} has the rank 0.", "Get the file again.")
        return alpha / (math.sqrt(rank) if told.get("use_rslora") else rank)


def adapter_scales(path: Path, metadata: Mapping[str, str]) -> AdapterScales:
    """What the file's metadata tell, and `adapter_config.json` beside it if PEFT wrote both.

    Raises:
        ModelError: one of them is no such record.
    """
    told: dict[str, dict[str, Any]] = {}
    if _METADATA in metadata:
        for key, value in _record(metadata[_METADATA], f"The adapter's metadata in {path}").items():
            model, _, name = key.partition(".")
            told.setdefault(model, {})[name] = value
    config = path.with_name(_CONFIG)
    everywhere = None
    if not told and is_file(config):
        everywhere = _record(config.read_text(encoding="utf-8", errors="replace"), str(config))
        if everywhere.get("use_dora"):
            raise ModelError(f"{path} is a DoRA, whose scales the WebUI reads otherwise.", "Use a plain LoRA.")
    return AdapterScales(path, told, everywhere)


def needs_config(key: str) -> bool:
    """Whether a tensor of that name is PEFT's own, whose scale stands beside the file."""
    return key.startswith(_FOREIGN)


def no_config(path: Path) -> ModelError:
    """That PEFT's scale is not told anywhere."""
    return ModelError(f"{path} is PEFT's and says nothing of its scale.", f"Put its {_CONFIG} beside it.")


def _record(text: str, what: str) -> dict[str, Any]:
    try:
        content = parse_json(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ModelError(f"{what} cannot be read.", _REMEDY)
    return content


def _of_pattern(patterns: Mapping[str, Any], module: str, usual: Any) -> Any:
    """PEFT takes the keys for regular expressions; those of a file could run for ever, so that only names are read."""
    for pattern, value in patterns.items():
        name = pattern.removeprefix("^").removesuffix("$")
        if not _NAME.fullmatch(name):
            raise ModelError(f'The pattern "{pattern}" of an adapter is no name of a module.', _REMEDY)
        if f".{module}".endswith(f".{name}"):
            return value
    return usual
