"""A real WebUI with the extension in it, started for tests and benchmarks.

It runs on a free loopback port with a data folder of its own, in which the extension is linked; nothing in the WebUI's
folder is changed. Beside the extension lies a second one, inside.py, through which one looks into the WebUI's process;
what belongs to one subject lies in inside_SUBJECT.py.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_dsm.demo.install import install_checkpoint
from tests.diffusion.sd1 import write_sd1
from tests.diffusion.sd2 import write_sd2

ROOT = Path(__file__).resolve().parents[2]
CREDENTIALS = "tester:secret"
A1111, REFORGE, FORGE = "AUTOMATIC1111's WebUI", "reForge", "Forge"
FLAGS = f"--skip-prepare-environment --skip-torch-cuda-test --no-download-sd-model --api --api-auth {CREDENTIALS}"
# The two others have a memory manager of their own, with its own words for the processor and for whole precision; left
# alone, it keeps the text encoder in half precision even on the processor.
ON_THE_CPU = {
    A1111: "--use-cpu all --no-half --precision full",
    REFORGE: "--always-cpu --fp32-unet --vae-in-fp32 --clip-in-fp32",
    FORGE: "--always-cpu --all-in-fp32 --vae-in-fp32 --clip-in-fp32",
}
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "SD_WEBUI_RESTARTING": "1",  # opens no browser
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
}
START_SECONDS = 240
OTHER_VAE = "other.safetensors"
OTHER_CHECKPOINT = "other-model.safetensors"
SECOND_CHECKPOINT = "second-version.safetensors"
PICTURE = {
    "prompt": "solo, red hair, smile",
    "steps": 4,
    "sampler_name": "Euler a",
    "width": 64,
    "height": 64,
    "seed": 1,
}
_TROUBLE = re.compile(r"\s*Traceback|\*\*\* |.*(?:WARN|ERROR).*dsm", re.IGNORECASE)  # "***": the WebUI's own reports


_LEFT = re.compile(
    r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+starlette\.websockets\.WebSocketDisconnect: \d+\n"
)
"""What gradio says of a page that left while it loaded."""


class WebUI:
    """The running WebUI, as a program sees it."""

    def __init__(self, kind: str, port: int, data: Path, log: Path, checkpoint: Path) -> None:
        self.kind = kind
        self.url = f"http://127.0.0.1:{port}"
        self.data = data
        self.log = log
        self.checkpoint = checkpoint
        self.other_checkpoint = checkpoint.with_name(OTHER_CHECKPOINT)
        self.second_checkpoint = checkpoint.with_name(SECOND_CHECKPOINT)

    def call(self, path: str, body: dict[str, Any] | None = None, credentials: str | None = CREDENTIALS) -> Any:
        """A GET, or a POST of `body`; HTTPError where it is refused."""
        headers = {"Content-Type": "application/json"}
        if credentials:
            headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, content, headers)
        with urllib.request.urlopen(request, timeout=900) as answer:
            return json.load(answer)

    def inside(self, function: str, **arguments: Any) -> Any:
        """Call a function of inside.py, or of an inside_SUBJECT.py, in the WebUI's process."""
        answer = self.call(f"/dsm-checks/{function}", arguments)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def txt2img(self, **changes: Any) -> bytes:
        """The pixels that the WebUI's own API generates."""
        return self.picture(**changes).tobytes()

    def picture(self, **changes: Any) -> Image.Image:
        """The picture that the WebUI's own API generates, in RGB."""
        answer = self.call("/sdapi/v1/txt2img", {**PICTURE, **changes})
        return Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB")

    def set_options(self, **options: Any) -> None:
        self.call("/sdapi/v1/options", options)

    def trouble_after(self, offset: int = 0) -> list[str]:
        """The lines that the log should not have, from `offset` bytes on."""
        added = _LEFT.sub("", self.log.read_bytes()[offset:].decode(errors="replace"))
        return [line for line in added.splitlines() if _TROUBLE.match(line)]

    def starts(self) -> int:
        """How many times it has come up, "Reload UI" included."""
        return self.log.read_text(errors="replace").count("Startup time:")

    def wait_for_job(self, job: str) -> dict[str, Any]:
        """The job when it has ended."""
        while (found := self.call(f"/dsm/v1/jobs/{job}"))["state"] == "running":
            time.sleep(0.2)
        return dict(found)


@contextmanager
def running(app: Path, data: Path, more: Sequence[str] = ()) -> Iterator[WebUI]:
    """The WebUI of the folder `app`, started with the empty data folder `data` and with `more` flags.

    In these {models} stands for the folder of models.
    """
    app = app.resolve()
    _add_extension(data / "extensions" / "dsm")
    _add_checks(data / "extensions" / "dsm-checks" / "scripts")
    kind = kind_of(app)
    checkpoint = _add_models(data / "models", kind)
    port, log = _free_port(), data / "log.txt"
    flags = [*FLAGS.split(), *ON_THE_CPU[kind].split(), *(flag.format(models=data / "models") for flag in more)]
    flags += ["--data-dir", str(data), "--port", str(port)]
    if kind == FORGE:  # which with a data folder elsewhere forbids its own page its own scripts
        flags += ["--gradio-allowed-path", str(app)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(_interpreter(app)), "launch.py", *flags],
            cwd=app, env={**os.environ, **OFFLINE, "COMMANDLINE_ARGS": ""}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        _wait(process, log)
        webui = WebUI(kind, port, data, log, checkpoint)
        # A setting that was never saved is not put back after a picture that overrides it; the WebUI's own slip.
        webui.set_options(CLIP_stop_at_last_layers=1)
        yield webui
    finally:
        process.terminate()
        process.wait(30)


def kind_of(app: Path) -> str:
    """Which WebUI lies in a folder."""
    if not (app / "modules_forge").is_dir():
        return A1111
    return FORGE if (app / "backend").is_dir() else REFORGE


def _interpreter(app: Path) -> Path:
    named = os.environ.get("DSM_WEBUI_PYTHON")
    places = [Path(named)] if named else [place / "venv" / "bin" / "python" for place in (app.parent, app)]
    return next((place for place in places if place.exists()), places[-1])


def _add_extension(folder: Path) -> None:
    # Without .git: the WebUI complains of a repository that has no remote.
    folder.mkdir(parents=True)
    for name in ("scripts", "javascript", "localizations", "lib_dsm", "style.css", "install.py"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)


def _add_checks(scripts: Path) -> None:
    scripts.mkdir(parents=True)
    inside = Path(__file__).with_name("inside.py")
    parts = {"dsm_checks": inside} | {f"dsm_{path.stem}": path for path in inside.parent.glob("inside_*.py")}
    files = {name: str(path) for name, path in parts.items()}
    (scripts / "checks.py").write_text(
        "import importlib.util\n"
        "import sys\n"
        "from modules import script_callbacks\n"
        "loaded = {}\n"
        f"for name, file in {files!r}.items():\n"
        "    spec = importlib.util.spec_from_file_location(name, file)\n"
        "    loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(loaded[name])\n"
        "checks = loaded['dsm_checks']\n"
        "for module in loaded.values():\n"
        "    checks.FUNCTIONS.update(module.FUNCTIONS)\n"
        "script_callbacks.on_app_started(lambda demo, app: checks.mount(app))\n",
        encoding="utf-8",
    )


def _add_models(models: Path, kind: str) -> Path:
    """The demo's checkpoint, another one, one of SD2, a VAE unlike the checkpoint's, a LoRA; returns the first.

    Only AUTOMATIC1111's WebUI builds a text encoder and an autoencoder of the demo's sizes. reForge gets a checkpoint
    of random weights in whole sizes, and none of SD2, whose text encoder alone would be 1.4 GB; in Forge no test
    generates.
    """
    checkpoints = models / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    if kind != REFORGE:
        checkpoint = install_checkpoint(checkpoints)
        # OpenCLIP's smallest text encoder: the WebUI can build no other sizes than those open_clip has a name for.
        write_sd2(checkpoints / SECOND_CHECKPOINT, width=256, blocks=10, arch="ViT-S-32-alt")
    else:
        checkpoint = checkpoints / "dsm-random.safetensors"
        write_sd1(checkpoint)
    state = load_file(checkpoint)
    changed = {key: value * 1.02 if key.startswith("model.") else value for key, value in state.items()}
    save_file(changed, checkpoints / OTHER_CHECKPOINT)
    (checkpoints / OTHER_CHECKPOINT).with_suffix(".yaml").write_bytes(checkpoint.with_suffix(".yaml").read_bytes())
    random, prefix = torch.Generator().manual_seed(0), "first_stage_model."
    (models / "VAE").mkdir()
    save_file(
        {
            key[len(prefix) :]: value + 0.02 * torch.randn(value.shape, generator=random)
            for key, value in state.items()
            if key.startswith(prefix)
        },
        models / "VAE" / OTHER_VAE,
    )
    weight = state["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"]
    lora = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    (models / "Lora").mkdir()
    save_file(
        {
            f"{lora}.lora_down.weight": torch.randn(2, weight.shape[1], generator=random),
            f"{lora}.lora_up.weight": torch.randn(weight.shape[0], 2, generator=random),
            f"{lora}.alpha": torch.tensor(2.0),
        },
        models / "Lora" / "strong.safetensors",
    )
    return checkpoint


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while "Startup time:" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"The WebUI did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.3)
