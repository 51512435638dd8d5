"""install.py for real, on small packages made here: no network, and no real package of that name."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import install

ROOT = Path(__file__).resolve().parent.parent
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and shell scripts")

# What a WebUI 1.10.1 has, as far as install.py looks at it.
HOST = {
    "torch": "2.1.2+cu121", "gradio": "3.41.2", "fastapi": "0.94.0", "numpy": "1.26.2", "pillow": "9.5.0",
    "safetensors": "0.4.2", "pyyaml": "6.0.3", "protobuf": "3.20.0",
}  # fmt: skip


def wheel(
    folder: Path, name: str, version: str, requires: Sequence[str] = (), code: dict[str, str] | None = None
) -> None:
    """A package that pip installs: by default one empty module of its name."""
    files = code or {f"{name}/__init__.py": ""}
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


def variables(index: Path, **more: str) -> dict[str, str]:
    """Environment variables with which pip knows `index` and nothing else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "COMMANDLINE"))}
    own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    return {**kept, **own, "PYTHONUNBUFFERED": "1", **more}


def call(
    python: Path | str, script: Path, *arguments: str, index: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), str(script), *arguments],
        cwd=script.parent, env=variables(index, **more), capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def one_sentence(answer: subprocess.CompletedProcess[str], *words: str) -> None:
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    for word in words:
        assert word in answer.stderr, answer.stderr


# Bare, inside of a WebUI


def packages_of(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m\nfor d in m.distributions(): print(d.metadata['Name'].lower(), d.version)"
    answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return dict(line.split() for line in answer.stdout.splitlines())


@pytest.fixture(scope="module")
def host_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with a WebUI's packages, and an index that has newer ones to be tempted by."""
    base = tmp_path_factory.mktemp("host")
    index = base / "index"
    index.mkdir()
    for name, version in HOST.items():
        code = {"torch/__init__.py": "raise ImportError('too slow')", "torch/version.py": "cuda = '12.1'\n"}
        wheel(index, name, version, code=dict(code) if name == "torch" else None)
    subprocess.run([sys.executable, "-m", "venv", str(base / "venv")], check=True, timeout=240)
    python = install.python_of(base / "venv")
    command = [str(python), "-m", "pip", "install", "-q", *(f"{name}=={version}" for name, version in HOST.items())]
    subprocess.run(command, env=variables(index), check=True, timeout=240)
    wheel(index, "numpy", "2.4.0")
    wheel(index, "protobuf", "5.29.0")
    wheel(index, "flatbuffers", "25.12.19")
    wheel(index, "onnxruntime", "1.22.0", ["numpy>=1.21", "protobuf", "flatbuffers"])
    wheel(index, "onnxruntime", "1.23.2", ["numpy>=1.21", "protobuf>=4.21", "flatbuffers"])
    wheel(index, "onnxruntime", "1.31.1", ["numpy>=1.21", "protobuf>=4.25", "flatbuffers"])
    wheel(index, "huggingface_hub", "0.25.2")
    wheel(index, "huggingface_hub", "1.33.0")
    return base


class WebUI:
    """A folder laid out as the WebUI's, with this install.py in it as an extension."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.index = base / "index"
        shutil.copytree(base / "venv", folder / "venv", symlinks=True)
        self.python = install.python_of(folder / "venv")
        self.extension = folder / "extensions" / "dsm with spaces"
        self.extension.mkdir(parents=True)
        (folder / "modules").mkdir()
        shutil.copy(ROOT / "install.py", self.extension)
        # The host hands a line to the shell, as here.
        (folder / "launch.py").write_text(
            "import subprocess, sys\n"
            "def run_pip(command, desc=None):\n"
            "    print('by the host: ' + command)\n"
            "    done = subprocess.run(f'\"{sys.executable}\" -m pip {command} --prefer-binary', shell=True,\n"
            "                          capture_output=True, text=True)\n"
            "    if done.returncode:\n"
            "        raise RuntimeError(done.stdout + done.stderr)\n",
            encoding="utf-8",
        )

    def install(self, *arguments: str, index: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return call(self.python, self.extension / "install.py", *arguments, index=index or self.index, **more)


@pytest.fixture
def webui(tmp_path: Path, host_base: Path) -> WebUI:
    return WebUI(tmp_path, host_base)


def test_bare_adds_what_is_missing_and_moves_nothing(webui: WebUI) -> None:
    before = packages_of(webui.python)
    answer = webui.install()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "by the host: install" in answer.stdout
    assert "added flatbuffers 25.12.19, onnxruntime 1.22.0" in answer.stdout
    after = packages_of(webui.python)
    assert before.items() <= after.items()
    # 1.23.2 would want another protobuf, 1.31.1 is beyond what a WebUI can have.
    assert after["onnxruntime"] == "1.22.0"
    assert after["huggingface_hub"] == "0.25.2"

    again = webui.install(index=webui.index / "nowhere")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_bare_works_without_the_hosts_launcher(webui: WebUI) -> None:
    launcher = webui.extension.parent.parent / "launch.py"
    launcher.write_text("raise SystemExit('not now')\n", encoding="utf-8")
    before = packages_of(webui.python)
    assert webui.install().returncode == 0
    after = packages_of(webui.python)
    assert before.items() <= after.items()
    assert after["onnxruntime"] == "1.22.0"


def test_what_would_move_a_pin_is_refused_in_a_sentence(webui: WebUI, tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, "onnxruntime", "1.23.2", ["protobuf>=4.21"])
    wheel(index, "protobuf", "5.29.0")
    before = packages_of(webui.python)
    answer = webui.install(index=index)
    one_sentence(answer, "onnxruntime>=1.17,<1.24 could not be added", "tagging will not work", "protobuf")
    assert packages_of(webui.python) == before


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_skip_install_is_honoured(webui: WebUI, way: str) -> None:
    before = packages_of(webui.python)
    if way == "argument":
        answer = webui.install("--skip-install")
    else:
        answer = webui.install(COMMANDLINE_ARGS="--medvram --skip-install")
    assert answer.returncode == 0
    assert "--skip-install is set" in answer.stdout
    assert packages_of(webui.python) == before


def test_another_onnxruntime_stays(webui: WebUI, tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.mkdir()
    code = {"onnxruntime/__init__.py": ""}
    wheel(index, "onnxruntime_directml", "1.14.1", code=dict(code))
    wheel(index, "huggingface_hub", "0.25.2")
    command = [str(webui.python), "-m", "pip", "install", "-q", "onnxruntime_directml", "huggingface_hub"]
    subprocess.run(command, env=variables(index), check=True, timeout=120)
    before = packages_of(webui.python)
    answer = webui.install()
    assert answer.returncode == 0
    assert "onnxruntime 1.14.1 was installed here by something else and stays" in answer.stdout
    assert packages_of(webui.python) == before


def test_what_the_webui_itself_should_have_is_named(webui: WebUI, tmp_path: Path) -> None:
    for name in ("safetensors", "gradio"):
        command = [str(webui.python), "-m", "pip", "uninstall", "-q", "-y", name]
        subprocess.run(command, env=variables(webui.index), check=True, timeout=120)
    wheel(tmp_path, "gradio", "3.30.0")
    command = [str(webui.python), "-m", "pip", "install", "-q", "gradio"]
    subprocess.run(command, env=variables(tmp_path), check=True, timeout=120)
    answer = webui.install()
    assert answer.returncode == 1
    assert "lacks safetensors" in answer.stdout
    assert "gradio 3.30.0, and DSM needs 3.41 or newer" in answer.stdout
    assert "safetensors" not in packages_of(webui.python)


def test_a_python_that_is_not_the_webuis_is_left_alone(webui: WebUI, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "other")], check=True, timeout=120)
    answer = call(
        install.python_of(tmp_path / "other"), webui.extension / "install.py", index=webui.index
    )  # fmt: skip
    one_sentence(answer, "is not the WebUI's own Python")


def test_bare_without_a_webui_says_what_to_call(tmp_path: Path) -> None:
    shutil.copy(ROOT / "install.py", tmp_path)
    answer = call(sys.executable, tmp_path / "install.py", index=tmp_path)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 2
    for word in ("demo", "studio", "test"):
        assert word in answer.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["install.py"]


@pytest.mark.parametrize(
    ("torch", "cuda", "gpu", "wanted"),
    [
        ("2.1.2+cu121", "'12.1'", True, "onnxruntime>=1.17,<1.24"),
        ("2.1.2+cu118", "'11.8'", True, "onnxruntime-gpu>=1.17,<1.19"),
        ("2.4.0+cu124", "'12.4'", True, "onnxruntime-gpu>=1.19,<1.24"),
        ("2.9.1+cu128", "'12.8'", True, "onnxruntime-gpu>=1.19,<1.24"),
        ("2.9.1+cu130", "'13.0'", True, "onnxruntime>=1.17,<1.24"),
        ("2.9.1+cu128", "'12.8'", False, "onnxruntime>=1.17,<1.24"),
        ("2.9.1+cpu", "None", True, "onnxruntime>=1.17,<1.24"),
        ("2.9.1+rocm6.4", "None", False, "onnxruntime>=1.17,<1.24"),
    ],
)
@POSIX
def test_the_build_of_onnxruntime_fits_what_torch_brings(
    torch: str, cuda: str, gpu: bool, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path, "torch", torch, code={"torch/version.py": f"cuda: Optional[str] = {cuda}\nhip = '6'\n"})
    with zipfile.ZipFile(tmp_path / f"torch-{torch}-py3-none-any.whl") as archive:
        archive.extractall(tmp_path / "packages")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\n" + ("echo 'GPU 0: a card'\n" if gpu else "echo 'No devices'; exit 6\n"))
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install.fitting_onnxruntime() == wanted


# The environments of its own


PROGRAM = "import os, sys\nprint('program', *sys.argv[1:])\nsys.exit(int(os.environ.get('CODE', 0)))\n"
TOOL = "import os, sys\nprint('tool', __package__, *sys.argv[1:])\nsys.exit(os.environ.get('FAILS') == __package__)\n"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    wheel(folder, "small", "1.0")
    wheel(folder, "small", "2.0")
    wheel(folder, "other", "1.0")
    for tool in ("ruff", "mypy", "pytest"):
        wheel(folder, tool, "1.0", code={f"{tool}/__init__.py": "", f"{tool}/__main__.py": TOOL})
    return folder


def lay_out(folder: Path) -> Path:
    """A checkout with a program that says how it was called; returns its install.py."""
    (folder / "lib_dsm").mkdir(parents=True)
    (folder / "lib_dsm" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "lib_dsm" / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    (folder / "tests").mkdir()
    for old in ("gradio3", "gradio4"):
        (folder / "tests" / f"{old}.lock").write_text("small==1.0\n", encoding="utf-8")
    (folder / "requirements.lock").write_text(
        "small==1.0\nruff==1.0\nmypy==1.0\npytest==1.0\n", encoding="utf-8"
    )  # fmt: skip
    shutil.copy(ROOT / "install.py", folder)
    return folder / "install.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, index: Path) -> Path:
    """A checkout whose environment is there; the tests copy it."""
    folder = tmp_path_factory.mktemp("made") / "DSM 名前"
    answer = call(sys.executable, lay_out(folder), "studio", "--port", "0", index=index)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.splitlines()[-1] == "program studio --port 0"
    return folder


@pytest.fixture
def checkout(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "DSM 名前", symlinks=True)
    return tmp_path / "DSM 名前" / "install.py"


def test_a_second_call_needs_neither_pip_nor_the_index(checkout: Path, tmp_path: Path) -> None:
    (checkout.parent / ".venv" / "pip.log").unlink()
    answer = call(sys.executable, checkout, "demo", "--steps", "3", index=tmp_path / "nowhere", CODE="3")
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "program demo --steps 3\n", "")
    assert not (checkout.parent / ".venv" / "pip.log").exists()


def test_another_lock_is_installed_into_what_is_there(checkout: Path, index: Path) -> None:
    lock = checkout.with_name("requirements.lock")
    lock.write_text(lock.read_text(encoding="utf-8").replace("small==1.0", "small==2.0"), encoding="utf-8")
    answer = call(sys.executable, checkout, "studio", index=index)
    assert answer.returncode == 0, answer.stderr
    assert "Making" not in answer.stdout
    assert packages_of(install.python_of(checkout.parent / ".venv"))["small"] == "2.0"


def test_a_broken_environment_is_made_anew(checkout: Path, index: Path) -> None:
    python = install.python_of(checkout.parent / ".venv")
    python.unlink()
    answer = call(sys.executable, checkout, "studio", index=index)
    assert answer.returncode == 0, answer.stderr
    assert "Making" in answer.stdout
    assert packages_of(python)["small"] == "1.0"


def test_what_a_killed_pip_left_is_installed_anew(checkout: Path, index: Path) -> None:
    folder = checkout.parent / ".venv"
    packages = install.site_packages(folder)
    (folder / install.STAMP).unlink()
    (packages / "small" / "__init__.py").unlink()
    (packages / "small-1.0.dist-info" / "INSTALLER").unlink()  # pip writes it last
    answer = call(sys.executable, checkout, "studio", index=index)
    assert answer.returncode == 0, answer.stderr
    assert (packages / "small" / "__init__.py").exists()
    assert "Making" not in answer.stdout


def test_a_failed_install_says_what_failed_and_goes_on_from_there(checkout: Path, index: Path) -> None:
    lock = checkout.with_name("requirements.lock")
    good = lock.read_text(encoding="utf-8")
    lock.write_text(good + "other==9.0\n", encoding="utf-8")
    for _ in range(2):  # the second call must not take the first for done
        answer = call(sys.executable, checkout, "studio", index=index)
        one_sentence(
            answer, "installing requirements.lock failed", "other==9.0", "64-bit Python 3.10 to 3.13", "pip.log"
        )
        assert "program" not in answer.stdout
    lock.write_text(good + "other==1.0\n", encoding="utf-8")
    answer = call(sys.executable, checkout, "studio", index=index)
    assert answer.returncode == 0, answer.stderr
    assert "Making" not in answer.stdout


def test_an_index_out_of_reach_is_blamed_on_the_network(checkout: Path, index: Path) -> None:
    lock = checkout.with_name("requirements.lock")
    lock.write_text("absent==1.0\n", encoding="utf-8")
    nobody = "http://127.0.0.1:9/simple"
    answer = call(
        sys.executable, checkout, "studio", index=index,
        PIP_NO_INDEX="0", PIP_INDEX_URL=nobody, PIP_RETRIES="0", no_proxy="127.0.0.1",
    )  # fmt: skip
    one_sentence(answer, "absent==1.0", "check the network", "same command again")


def test_causes_are_told_apart() -> None:
    full = "2026-01-01T00:00:00,000 ERROR: Could not install packages due to [Errno 28] No space left on device"
    assert "free about 10 GB" in install.explain(full)
    assert install.explain(full).startswith("ERROR: Could not install packages")
    assert "Make the folder writable" in install.explain("ERROR: [Errno 13] Permission denied: '/x'")
    assert "check the network" in install.explain(
        "Temporary failure in name resolution\nERROR: No matching distribution"
    )
    assert install.explain("") == "Run the same command again."


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0), (2, 7, 18)])
def test_a_python_that_does_not_fit_gets_one_sentence(
    version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install.sys, "version_info", version)
    monkeypatch.setattr(install, "environment", lambda *a: pytest.fail("nothing may be made"))
    for arguments in ([], ["demo"], ["test"]):
        assert install.main(arguments) == 1
        said = capsys.readouterr().err.strip()
        assert "DSM needs Python 3.10 to 3.13" in said
        assert len(said.splitlines()) == 1


def test_an_unknown_command_shows_the_known_ones(tmp_path: Path) -> None:
    answer = call(sys.executable, ROOT / "install.py", "instal", index=tmp_path)
    assert answer.returncode == 2
    assert "install.py demo" in answer.stderr
    answer = call(sys.executable, ROOT / "install.py", "--help", index=tmp_path)
    assert answer.returncode == 0
    assert "install.py studio" in answer.stdout


@contextmanager
def another_install(checkout: Path) -> Iterator[None]:
    """Hold the lock that another call of install.py would hold, on an environment that is not finished."""
    folder = checkout.parent / ".venv"
    (folder / install.STAMP).unlink()
    with (folder / "install.lock").open("a+b") as file:
        assert install.try_lock(file.fileno())
        yield


def heed_interrupts() -> None:
    """Undo what a shell does to commands in its background, which this process may have inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def waiting_call(checkout: Path, index: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(checkout), "studio"], cwd=checkout.parent, env=variables(index),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts if os.name == "posix" else None,
    )  # fmt: skip
    assert process.stdout is not None
    assert "Another install is at work" in process.stdout.readline()
    return process


def test_a_second_install_waits_for_the_first(checkout: Path, index: Path) -> None:
    with another_install(checkout):
        process = waiting_call(checkout, index)
        assert process.poll() is None
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert out.endswith("program studio\n")


@POSIX
def test_an_interrupt_is_130(checkout: Path, index: Path) -> None:
    with another_install(checkout):
        process = waiting_call(checkout, index)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error
    assert "Traceback" not in error


def test_all_checks_run_and_the_tests_come_last(checkout: Path, index: Path) -> None:
    answer = call(sys.executable, checkout, "test", index=index, FAILS="ruff")
    tools = [line for line in answer.stdout.splitlines() if line.startswith("tool")]
    beside = "tool pytest tests --ignore=tests/browser --numprocesses auto --maxprocesses 4 --dist loadfile"
    alone = "tool pytest tests/browser"
    assert tools == ["tool ruff check", "tool ruff format --check", "tool mypy", beside, alone]
    assert answer.returncode == 1
    assert "failed: ruff check, ruff format --check" in answer.stderr
    for folder, _, _, newest in install.OLD_GRADIOS:
        there = install.python_of(checkout.parent / folder).exists()
        assert there == (sys.version_info[:2] <= newest)

    answer = call(sys.executable, checkout, "test", "-k", "one thing", index=index)
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[-1] == "tool pytest -k one thing"
    assert call(sys.executable, checkout, "test", "-x", index=index, FAILS="pytest").returncode == 1


@POSIX
def test_a_gpu_gets_the_build_for_it(checkout: Path, index: Path, tmp_path: Path) -> None:
    gpus = tmp_path / "gpus"
    gpus.mkdir()
    (gpus / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: a card'\n", encoding="utf-8")
    (gpus / "nvidia-smi").chmod(0o755)
    own = tmp_path / "own"
    own.mkdir()
    for name in ("onnxruntime", "onnxruntime-gpu"):
        wheel(own, name.replace("-", "_"), "1.31.1", code={"onnxruntime/__init__.py": ""})
    wheel(own, "torch", "2.13.0", code={"torch/version.py": "cuda: Optional[str] = None\n"})
    checkout.with_name("requirements.lock").write_text("onnxruntime==1.31.1\ntorch==2.13.0\n", encoding="utf-8")
    answer = call(sys.executable, checkout, "studio", index=own, PATH=f"{gpus}{os.pathsep}{os.environ['PATH']}")
    assert answer.returncode == 0, answer.stderr
    installed = {re.sub("_", "-", name) for name in packages_of(install.python_of(checkout.parent / ".venv"))}
    wanted = "onnxruntime-gpu" if sys.version_info >= (3, 11) else "onnxruntime"
    assert {name for name in installed if name.startswith("onnxruntime")} == {wanted}
    assert "works on the processor only" in answer.stdout
