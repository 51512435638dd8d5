"""Whether the host can make the previews that a run asks for."""

from __future__ import annotations

from lib_dsm.errors import InputError
from lib_dsm.host.protocol import Host
from lib_dsm.training.config import RunConfig


def demand_previews(host: Host, config: RunConfig) -> None:
    """Refuse previews with a sampler or a schedule type that the host has not, before anything is trained.

    They can be asked for at any moment of a run, so a run that makes none by itself is refused as well.

    Raises:
        InputError: with the number of the preview and what there is.
    """
    samplers, schedulers = host.samplers(), host.schedulers()
    for number, request in enumerate(config.previews, 1):
        if request.sampler not in samplers:
            raise InputError(
                f'Preview {number} asks for the sampler "{request.sampler}", which the {host.name} has not.',
                f"Choose one of: {', '.join(samplers)}.",
            )
        if request.scheduler and request.scheduler not in schedulers:
            raise InputError(
                f'Preview {number} asks for the schedule type "{request.scheduler}", which the {host.name} has not.',
                f"Choose one of: {', '.join(schedulers)}; or leave it empty." if schedulers else "Leave it empty.",
            )
