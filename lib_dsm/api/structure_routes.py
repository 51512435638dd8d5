"""How a hypernetwork of given settings is built, for the page to draw."""

from __future__ import annotations

from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route
from lib_dsm.api.plain import plain
from lib_dsm.api.service import Service
from lib_dsm.api.train_routes import demand_opened
from lib_dsm.errors import DsmError
from lib_dsm.training.config import HYPERNETWORK, HYPERNETWORK_ONLY, RunConfig
from lib_dsm.training.settings_file import ANY_RUN


def structure(service: Service, call: Call) -> Any:
    """The layers and the number of parameters of the hypernetwork that `settings` describe on `checkpoint`.

    With `init_hypernetwork` among them it is that file's own structure, and `step` and `file` are told. `model` has how
    many attention layers there are for each width; it is Stable Diffusion 1's where the checkpoint's cannot be read.
    """
    from lib_dsm.host.starting import find_hypernetwork
    from lib_dsm.networks.hypernetwork import load_hypernetwork
    from lib_dsm.networks.hypernetwork_structure import described

    given = {name: value for name, value in call.object("settings").items() if name in HYPERNETWORK_ONLY}
    config = options.from_json(RunConfig, {**ANY_RUN, **given, "kind": HYPERNETWORK}, "settings")
    known, sure = _widths(service, call.text("checkpoint", ""))
    facts: dict[str, Any] = {"model": [{"width": width, "layers": count} for width, count in known.items()]}
    if config.init_hypernetwork:
        demand_opened(service, config.init_hypernetwork)
        path = find_hypernetwork(service.host, config.init_hypernetwork)
        found = load_hypernetwork(path)
        facts |= {"file": path.name, "step": found.step}
        built = found.structure
    else:
        built = config.structure(tuple(known))
    return plain({**facts, "sure": sure, **described(built, known if sure else None)})


def _widths(service: Service, checkpoint: str) -> tuple[dict[int, int], bool]:
    """The checkpoint's widths, and whether they are its own."""
    from lib_dsm.diffusion.widths import STABLE_DIFFUSION_1, widths_in
    from lib_dsm.networks.tensor_files import open_tensors

    path = next((known.path for known in service.host.checkpoints() if known.name == checkpoint), None)
    try:
        if path is not None:
            with open_tensors(path) as file:
                found = widths_in(file.shapes)
            if found:
                return found, True
    except DsmError:
        pass  # whoever trains on it is told
    return dict(STABLE_DIFFUSION_1), False


ROUTES = (Route("POST", "train/structure", structure),)
