"""--medvram and --lowvram: the WebUI keeps a model's parts on the graphics card only while each of them computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def is_offloaded(sd_model: Any) -> bool:
    """Whether the WebUI moves the parts of this model to the graphics card and away again."""
    return bool(getattr(sd_model, "lowvram", False))


class Offloading:
    """What moves a model's parts about, suspended while the context lasts: the U-Net and the text encoder stay.

    The WebUI has a hook on each part that brings it to the card and sends the part before it away. A backward pass
    needs all parts where they were in the forward pass, and no hook runs in it. The autoencoder, which training uses
    for a moment only, is left where it is. A model that is not offloaded is left alone.
    """

    def __init__(self, sd_model: Any) -> None:
        from modules import devices

        self._parts = (sd_model.model, sd_model.cond_stage_model) if is_offloaded(sd_model) else ()
        self._device: torch.device = devices.device

    def __enter__(self) -> None:
        self._bring()

    def __exit__(self, *_: object) -> None:
        self._send_away()

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """While this lasts parts are moved as the WebUI does, so that a picture needs no more memory than its own."""
        self._send_away()
        try:
            yield
        finally:
            self._bring()

    def _bring(self) -> None:
        if not self._parts:
            return
        from modules import lowvram

        lowvram.send_everything_to_cpu()
        present = _AllPresent([tensor for part in self._parts for tensor in _away(part, self._device)])
        lowvram.module_in_gpu = present
        try:
            present.to(self._device)
        except BaseException:  # a card that has no room for them all is not left full of some
            lowvram.send_everything_to_cpu()
            raise

    def _send_away(self) -> None:
        if not self._parts:
            return
        from modules import lowvram

        # Otherwise somebody has sent them away already, and the WebUI knows where they are.
        if isinstance(lowvram.module_in_gpu, _AllPresent):
            lowvram.send_everything_to_cpu()


class _AllPresent:
    """Stands where the WebUI notes which part is on the card: it is equal to each, so no hook moves any."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self._tensors = tensors

    def __eq__(self, part: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def to(self, device: torch.device) -> None:
        """Move what was away before; one tensor after the other, so that it takes no memory worth speaking of."""
        for tensor in self._tensors:
            tensor.data = tensor.data.to(device)


def _away(part: torch.nn.Module, device: torch.device) -> list[torch.Tensor]:
    return [tensor for tensor in (*part.parameters(), *part.buffers()) if tensor.device.type != device.type]
