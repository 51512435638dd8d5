"""How much memory a training step takes, and what is done where there is less than that.

What grows with pictures and sizes are the activations that wait for the backward pass. Where they do not fit, a batch
goes through the model in parts, and where one picture does not fit, its activations are computed again instead of being
kept. Neither changes what is learned: a step is the sum over its pictures however they are cut into parts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from lib_dsm.diffusion.protocol import LATENT_FACTOR, DiffusionModel
from lib_dsm.errors import GuardError
from lib_dsm.training.buckets import Size
from lib_dsm.training.config import RunConfig

Item = TypeVar("Item")
Result = TypeVar("Result")

_PROBED = (8, 16, 24)  # sides of the latents whose cost is measured, in cells
_BACKWARD = 1.25  # what the backward pass holds at its height, in terms of what waited for it
_SPARE = 300 << 20  # bytes left to everybody else
_RECOMPUTING = "activations are computed again in the backward pass, about a third slower"
_SAID = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Cost:
    """What a picture's step takes: `linear` bytes a latent cell, and `quadratic` bytes a pair of cells where the
    attention keeps its weights, which PyTorch's own does not.
    """

    linear: float
    quadratic: float

    def bytes(self, size: Size, pictures: int) -> int:
        """For some pictures of `size` (width and height in pixels) at once."""
        cells = size[0] * size[1] // LATENT_FACTOR**2
        return int(_BACKWARD * pictures * (self.linear * cells + self.quadratic * cells**2))


def measure(model: DiffusionModel) -> Cost:
    """The cost of a step on `model` without recomputation, from the forward pass on three very small pictures."""
    cells = torch.tensor([side**2 for side in _PROBED], dtype=torch.float64)
    kept = torch.tensor([_kept_bytes(model, side) for side in _PROBED], dtype=torch.float64)
    # The constant, what does not grow, are the weights, which are in memory anyway.
    powers = torch.stack([torch.ones_like(cells), cells, cells**2], dim=1)
    _, linear, quadratic = torch.linalg.solve(powers, kept).tolist()
    return Cost(max(0.0, linear), max(0.0, quadratic))


def _kept_bytes(model: DiffusionModel, side: int) -> int:
    """Bytes that wait for the backward pass after the U-Net has seen side × side cells."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would keep the graph, and the graph it

    conditioning = torch.zeros(1, 77, model.hidden_size, device=model.device, requires_grad=True)
    noisy, moment = torch.zeros(1, 4, side, side), torch.zeros(1, dtype=torch.long)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.predict(noisy.to(model.device), moment.to(model.device), conditioning)
    total = sum(kept.values())
    del output  # not earlier: nothing that is kept may be freed and its place be taken by another
    return total


def free_bytes(device: torch.device) -> int:
    """Bytes that can be had on `device` now; what PyTorch holds unused on a GPU counts as free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    import psutil

    return int(psutil.virtual_memory().available)


class MicroBatches:
    """Lets a batch through in parts that fit, smaller ones as soon as one did not.

    `at_once` is how many pictures a part has at most. Recomputation is switched on at the `model` if one picture alone
    is too much and it is allowed. `say` tells the person what was changed.
    """

    def __init__(
        self,
        model: DiffusionModel,
        at_once: int,
        may_recompute: bool = True,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.at_once = at_once
        self._model = model
        self._may_recompute = may_recompute
        self._say = say

    def each(self, batch: Sequence[Item], compute: Callable[[Sequence[Item]], Result]) -> list[Result]:
        """`compute` of consecutive parts of `batch`, in order.

        A part that ran out of memory is computed again, in smaller parts, so `compute` must leave nothing behind when
        it fails.

        Raises:
            GuardError: memory does not suffice even for one picture.
        """
        results: list[Result] = []
        done = 0
        while done < len(batch):
            part = batch[done : done + self.at_once]
            try:
                results.append(compute(part))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            else:
                done += len(part)
                continue
            # Only here, when the error has let go of all that it held, is the memory free again.
            self._relieve(len(part))
        return results

    def _relieve(self, count: int) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        if count > 1:
            self.at_once = (count + 1) // 2
            self._say(f"Out of memory with {count} pictures at once: {_fewer(self.at_once)}.")
        elif self._may_recompute and not self._model.recompute:
            self._model.recompute = True
            self._say(f"Out of memory with one picture: {_RECOMPUTING}.")
        else:
            raise GuardError(
                "There is not enough memory for a step on a single picture.",
                "Close other programs, or train at a smaller width and height."
                if self._model.recompute
                else 'Set recompute to "auto", close other programs, or train at a smaller width and height.',
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how PyTorch says that memory was short."""
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(said.lower() in text for said in _SAID)


def plan(
    config: RunConfig,
    model: DiffusionModel,
    sizes: Collection[Size],
    say: Callable[[str], None],
    free: Callable[[torch.device], int] = free_bytes,
) -> MicroBatches:
    """Decide by the settings or by free memory how pictures of `sizes` go through `model`, and say so."""
    model.recompute = config.recompute == "always"
    parts = MicroBatches(model, config.batch_size, config.recompute != "never", say)
    if config.recompute == "always":
        say("Activations are computed again in the backward pass, as the settings want it.")
    elif config.recompute == "auto":
        size = max(sizes, key=lambda size: size[0] * size[1])
        cost, there = measure(model), free(model.device)
        # On the CPU parts of another size would give other bits than the same settings gave elsewhere.
        may_split = model.device.type != "cpu"
        parts.at_once, model.recompute = choose(cost, size, config.batch_size, there, may_split)
        say(_choice(parts.at_once, model.recompute, cost, size, config.batch_size, there))
    return parts


def choose(cost: Cost, size: Size, wanted: int, free: int, may_split: bool) -> tuple[int, bool]:
    """How many of `wanted` pictures of `size` go through the model at once, and whether it recomputes.

    Smaller parts come before recomputation, because they compute nothing twice.
    """
    fitting = min(wanted, max(0, free - _SPARE) // max(1, cost.bytes(size, 1)))
    if fitting == wanted or (fitting and may_split):
        return fitting, False
    return wanted, True


def _choice(at_once: int, recompute: bool, cost: Cost, size: Size, wanted: int, free: int) -> str:
    pictures = f"{wanted} {'picture' if wanted == 1 else 'pictures'} of up to {size[0]}×{size[1]}"
    needed = _gigabytes(cost.bytes(size, wanted))
    facts = f"A step on {pictures} takes about {needed} beside the model, and {_gigabytes(free)} are free"
    if recompute:
        return f"{facts}: {_RECOMPUTING}."
    return f"{facts}: {'nothing is computed twice' if at_once == wanted else _fewer(at_once)}."


def _fewer(count: int) -> str:
    goes = "one goes" if count == 1 else f"{count} go"
    return f"{goes} through the model at a time, and a step is still the sum over all of them"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 50_000_000 else f"{count / 1e6:.0f} MB"
