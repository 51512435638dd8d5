"""Installs what DSM needs and starts it.

    python install.py                 what the WebUI runs: adds what is missing there and moves none of its versions
    python install.py demo [ARGS]     the whole way on the demo world
    python install.py studio [ARGS]   the studio's page
    python install.py test [ARGS]     every check and test; ARGS go to pytest instead

The last three live in an environment of their own, `.venv` beside this file. Only the standard library is used here,
and the file can be read by Pythons too old to run DSM, so that they get a sentence rather than a syntax error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(os.path.abspath(__file__)).parent  # noqa: PTH100 - a linked extension folder stays where it is linked
PYTHONS = ((3, 10), (3, 13))
STAMP = "dsm-installed"

# What a WebUI brings by itself, and the oldest of each that DSM works with.
HOST_BRINGS = {
    "torch": "2.0", "gradio": "3.41", "fastapi": "0.90", "numpy": "1.23", "pillow": "9.4", "safetensors": "0.3",
    "pyyaml": "5.4",
}  # fmt: skip
OLDEST_ONNXRUNTIME = "1.17"
# From 1.25 on onnxruntime wants a protobuf that the WebUI's pin forbids.
ONNXRUNTIME = "onnxruntime>=1.17,<1.24"
HUGGINGFACE_HUB = "huggingface_hub>=0.20,<1"

# The gradio versions that hosts pin: the environment, its lock, what it is called, the newest Python it has builds for.
OLD_GRADIOS = (
    (".venv-gradio3", "tests/gradio3.lock", "gradio 3.41.2", (3, 12)),
    (".venv-gradio4", "tests/gradio4.lock", "gradio 4.40.0", (3, 13)),
)


class InstallError(Exception):
    """What failed and how to go on, for a person to read."""


def main(arguments: list[str]) -> int:
    """Do what the command line asks; the exit code is 0 done, 1 failed, 2 usage, 130 interrupted."""
    try:
        check_python()
        command = arguments[0] if arguments else ""
        if not command or command.startswith("--skip"):
            return add_to_webui(arguments)
        if command in ("demo", "studio"):
            return start_studio(command, arguments[1:])
        if command == "test":
            return run_tests(arguments[1:])
        asks_help = command in ("-h", "--help", "help")
        print(__doc__.rstrip(), file=sys.stdout if asks_help else sys.stderr)
        return 0 if asks_help else 2
    except InstallError as error:
        print(f"\nDSM: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nDSM: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


def check_python() -> None:
    """Refuse a Python that DSM does not run on.

    Raises:
        InstallError: it is older than 3.10 or newer than 3.13.
    """
    oldest, newest = PYTHONS
    if not oldest <= sys.version_info[:2] <= newest:
        raise InstallError(
            f"this is Python {platform.python_version()} ({sys.executable}); DSM needs Python "
            f"{dotted(oldest)} to {dotted(newest)}, so call install.py with one of those."
        )


# The WebUI's Python


def add_to_webui(arguments: list[str]) -> int:
    """Install what DSM needs and the WebUI lacks, everything that is there staying at its version.

    Raises:
        InstallError: something could not be installed, or an installed package moved.
    """
    webui = webui_folder()
    if webui is None:
        print("DSM: there is no WebUI around this folder; put it into a WebUI's extensions folder,", file=sys.stderr)
        print("or run `python install.py demo`, `... studio` or `... test` to use it without one.", file=sys.stderr)
        return 2
    absent = [name for name in HOST_BRINGS if installed(name) is None]
    if "torch" in absent and "gradio" in absent:
        raise InstallError(f"{sys.executable} is not the WebUI's own Python; nothing was installed.")
    aged = {name: installed(name) or "" for name, least in HOST_BRINGS.items() if is_older(installed(name), least)}
    for name in absent:
        print(f"DSM: the WebUI's Python lacks {name}, which the WebUI itself installs; repair the WebUI first.")
    for name, version in aged.items():
        print(f"DSM: the WebUI has {name} {version}, and DSM needs {HOST_BRINGS[name]} or newer; update the WebUI.")

    missing = []
    found = onnxruntime_version()
    if found is None:
        missing.append(fitting_onnxruntime())
    elif is_older(found, OLDEST_ONNXRUNTIME):
        print(
            f"DSM: onnxruntime {found} was installed here by something else and stays as it is; "
            f"the tagger needs {OLDEST_ONNXRUNTIME} or newer."
        )
    if installed("huggingface_hub") is None:
        missing.append(HUGGINGFACE_HUB)
    if missing and "--skip-install" in arguments + shlex.split(os.environ.get("COMMANDLINE_ARGS", "")):
        print(f"DSM: --skip-install is set, so {' and '.join(missing)} was not added; tagging will not work.")
        missing = []
    for requirement in missing:
        add_package(requirement, webui)
    return 1 if absent else 0


def webui_folder() -> Path | None:
    """The WebUI that runs this file: two levels up, or on the module path where extensions lie elsewhere."""
    candidates = [HERE.parent.parent, *(Path(entry) for entry in sys.path if entry)]
    for folder in candidates:
        if (folder / "launch.py").is_file() and (folder / "modules").is_dir():
            return folder
    return None


def installed(name: str) -> str | None:
    """The version of an installed package."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def everything_installed() -> dict[str, str]:
    """Every installed package's version by its normalised name; of doubles, the one that Python imports."""
    from importlib import metadata

    versions: dict[str, str] = {}
    for package in metadata.distributions():
        name, version = package.metadata["Name"], package.version
        if name and version:
            versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return versions


def onnxruntime_version() -> str | None:
    """The version of whichever build of onnxruntime is installed."""
    builds = [v for name, v in everything_installed().items() if name.startswith(("onnxruntime", "ort-nightly"))]
    return max(builds, key=release) if builds else None


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what comes after them: 2.1.2+cu121 is (2, 1, 2)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def is_older(version: str | None, least: str) -> bool:
    """Whether a package is installed and older than `least`."""
    return version is not None and release(version) < release(least)


def fitting_onnxruntime() -> str:
    """The build of onnxruntime that works with the CUDA libraries the installed torch brings.

    A build for the GPU needs the CUDA and cuDNN generation that it was made with. The public ones are for CUDA 11 with
    cuDNN 8 up to 1.18 and for CUDA 12 with cuDNN 9 from 1.19 on; torch went over to cuDNN 9 in 2.4. Where neither fits,
    the build for the processor does, and a tagger runs well enough on that.
    """
    from importlib import metadata

    if installed("torch") is None:
        return ONNXRUNTIME
    cuda = torch_cuda(Path(str(metadata.distribution("torch").locate_file(""))))
    torch = release(metadata.version("torch"))
    if cuda and has_nvidia_gpu():
        if cuda.startswith("11.") and torch < (2, 4):
            return "onnxruntime-gpu>=1.17,<1.19"
        if cuda.startswith("12.") and torch >= (2, 4):
            return "onnxruntime-gpu>=1.19,<1.24"
    return ONNXRUNTIME


def torch_cuda(packages: Path) -> str:
    """The CUDA version that the torch in a folder was built for, read without the seconds that importing it takes."""
    try:
        text = (packages / "torch" / "version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)", text, re.MULTILINE)
    return match.group(1) if match else ""


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver works and sees a GPU."""
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "GPU " in answer.stdout


def add_package(requirement: str, webui: Path) -> None:
    """Install one package into this Python, with every version that is there given to pip as a constraint.

    Raises:
        InstallError: it could not be installed without moving one of them, or at all.
    """
    before = everything_installed()
    with tempfile.TemporaryDirectory(prefix="dsm-") as folder:
        constraints = Path(folder, "constraints.txt")
        # pip refuses a whole file for one version it cannot read, such as those of packages built by hand.
        readable = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+([._][a-z0-9]+)*)?")
        lines = [f"{name}=={version}\n" for name, version in before.items() if readable.fullmatch(version)]
        constraints.write_text("".join(sorted(lines)), encoding="utf-8")
        try:
            run_host_pip(["install", requirement, "-c", str(constraints)], requirement, webui)
        except (RuntimeError, OSError) as error:
            raise InstallError(
                f"{requirement} could not be added to the WebUI's Python, so tagging will not work; "
                f"the rest does. {explain(str(error))}"
            ) from error
    after = everything_installed()
    moved = [f"{name} {version} to {after.get(name, 'nothing')}" for name, version in before.items()
             if after.get(name) != version]  # fmt: skip
    if moved:
        raise InstallError(f"adding {requirement} changed what the WebUI had: {', '.join(moved)}.")
    added = [f"{name} {version}" for name, version in after.items() if name not in before]
    print(f"DSM: added {', '.join(added)}; nothing else in the WebUI's Python changed.")


def run_host_pip(arguments: list[str], what: str, webui: Path) -> None:
    """Run pip the way the WebUI does, which knows its mirror and its own installer, or else directly.

    Raises:
        RuntimeError: pip failed; the message holds its output.
    """
    if str(webui) not in sys.path:
        sys.path.insert(0, str(webui))
    run_pip = None
    with contextlib.suppress(Exception, SystemExit):  # whatever a host's launcher may do, pip itself is still there
        import launch  # type: ignore[import-not-found]

        run_pip = launch.run_pip
    if run_pip is not None:
        # The host hands the line to a shell; in Windows' one a bare > or < would redirect.
        line = " ".join(f'"{argument}"' for argument in arguments) if os.name == "nt" else shlex.join(arguments)
        run_pip(line, f"{what} for DSM")
        return
    answer = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if answer.returncode:
        raise RuntimeError(answer.stdout)


# The studio's own environment


def start_studio(command: str, arguments: list[str]) -> int:
    """Make the environment where needed and hand over to `python -m lib_dsm`."""
    python = environment(HERE / ".venv", HERE / "requirements.lock")
    call = [str(python), "-m", "lib_dsm", command, *arguments]
    # What lies in the folder where the person stands is not a part of the program; heeded from Python 3.11 on.
    variables = {**our_variables(), "PYTHONSAFEPATH": "1"}
    sys.stdout.flush()
    if os.name == "posix":  # in place of this process, so that every signal reaches the program itself
        os.execve(str(python), call, variables)
    return run(call, variables)


def run_tests(arguments: list[str]) -> int:
    """Run ruff, mypy and all tests; or pytest alone with `arguments`."""
    python = str(environment(HERE / ".venv", HERE / "requirements.lock"))
    for folder, lock, name, newest in OLD_GRADIOS:
        if sys.version_info[:2] > newest:
            print(f"{name} has no builds for Python {dotted(sys.version_info[:2])}: its part of the tests is skipped.")
        else:
            environment(HERE / folder, HERE / lock)
    if arguments:
        return run([python, "-m", "pytest", *arguments], our_variables(), HERE)
    # Several at once, and the tests of one file in one process, which starts what they share once; but for the browser,
    # which gets too little of the processors beside a training and other tests.
    at_once = ["--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadfile"]
    tests = [["pytest", "tests", "--ignore=tests/browser", *at_once], ["pytest", "tests/browser"]]
    checks = [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], *tests]
    failed = []
    for check in checks:
        name = " ".join(check)
        print(f"== {name}", flush=True)
        if run([python, "-m", *check], our_variables(), HERE):
            failed.append(name)
    if any(not name.startswith("pytest") for name in failed):
        print(f"DSM: failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def run(command: list[str], variables: dict[str, str], folder: Path | None = None) -> int:
    """Run a command to its end and return its exit code; an interrupt is the command's own business."""
    with subprocess.Popen(command, cwd=folder, env=variables) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the terminal sent it to the command as well, which ends in its own way


def our_variables() -> dict[str, str]:
    """The environment variables for a program of ours: `lib_dsm` importable, nothing of another Python's."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    variables["PYTHONPATH"] = str(HERE)
    return variables


def environment(folder: Path, lock: Path) -> Path:
    """The Python of an environment in `folder` that holds exactly what `lock` says; made or completed where needed.

    Raises:
        InstallError: it could not be made.
    """
    python = python_of(folder)
    stamp = folder / STAMP
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    wanted = f"{digest} {dotted(sys.version_info[:2])} {sys.platform} {platform.machine()}"

    def complete() -> bool:
        return python.exists() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted

    if complete():
        return python
    try:
        folder.mkdir(exist_ok=True)
        with locked(folder / "install.lock"):
            if complete():  # another call has just finished it
                return python
            stamp.unlink(missing_ok=True)
            if usable(python):
                discard_half_installed(folder)
            else:
                make_environment(folder)
            install(python, lock, folder)
            stamp.write_text(wanted, encoding="utf-8")
    except OSError as error:
        raise InstallError(f"{folder} could not be made: {error}. {explain(str(error))}") from error
    return python


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, waiting for whoever holds it."""
    with path.open("a+b") as file:
        said = False
        while not try_lock(file.fileno()):
            if not said:
                print(f"Another install is at work in {path.parent}; waiting for it.", flush=True)
                said = True
            time.sleep(0.3)
        yield


def try_lock(handle: int) -> bool:
    """Try to lock an open file for this process alone."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def usable(python: Path) -> bool:
    """Whether an environment's Python starts, is of this version and has pip."""
    code = "import sys, pip; sys.exit(list(sys.version_info[:2]) != [int(part) for part in sys.argv[1:]])"
    version = [str(part) for part in sys.version_info[:2]]
    try:
        return subprocess.run([str(python), "-c", code, *version], capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def python_of(folder: Path) -> Path:
    """The Python of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(folder: Path) -> Path:
    """Where an environment keeps its packages."""
    return folder / ("Lib" if os.name == "nt" else f"lib/python{dotted(sys.version_info[:2])}") / "site-packages"


def discard_half_installed(folder: Path) -> None:
    """Make pip install anew what it was killed over; it takes a package for installed once its metadata lies there."""
    for metadata in site_packages(folder).glob("*.dist-info"):
        if not (metadata / "INSTALLER").is_file():  # which pip writes after all of a package's files
            shutil.rmtree(metadata)


def make_environment(folder: Path) -> None:
    """Make an empty environment in `folder`, in place of whatever is there.

    Raises:
        InstallError: this Python cannot make one.
    """
    for path in folder.iterdir():
        if path.name == "install.lock":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    print(f"Making {folder} with Python {platform.python_version()}.", flush=True)
    answer = subprocess.run(
        [sys.executable, "-m", "venv", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if answer.returncode:
        version = dotted(sys.version_info[:2])
        remedy = explain(answer.stdout)
        if "ensurepip" in answer.stdout or "No module named venv" in answer.stdout:
            remedy = (
                f"This Python comes without venv: on Debian or Ubuntu run `sudo apt install python{version}-venv`, "
                "elsewhere install Python from python.org; then run the same command again."
            )
        raise InstallError(f"{folder} could not be made. {remedy}")


def install(python: Path, lock: Path, folder: Path) -> None:
    """Install what `lock` names.

    Raises:
        InstallError: pip failed.
    """
    requirements, text = lock, lock.read_text(encoding="utf-8")
    gpu = "\ntorch==" in text and sys.platform != "darwin" and has_nvidia_gpu()
    # The lock's onnxruntime for Python 3.10 was built for an older CUDA than torch brings.
    if gpu and sys.version_info >= (3, 11):
        requirements = folder / "requirements-gpu.txt"
        requirements.write_text(re.sub(r"(?m)^onnxruntime(?===)", "onnxruntime-gpu", text), encoding="utf-8")
    print(f"Installing {lock.name} into {folder}; this is needed once, and can be interrupted.", flush=True)
    log = folder / "pip.log"
    log.unlink(missing_ok=True)
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--prefer-binary",
               "--log", str(log), "-r", str(requirements)]  # fmt: skip
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    if subprocess.run(command, env=variables).returncode:
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        raise InstallError(f"installing {lock.name} failed. {explain(text)}\nThe whole log is {log}.")
    if gpu and not torch_cuda(site_packages(folder)):
        print(
            "This machine has an NVIDIA GPU, but the torch that the package index gave works on the processor only. "
            f"PyTorch's site tells how to get its CUDA build of the same version; install it with {python} -m pip."
        )


def explain(output: str) -> str:
    """What pip's output says went wrong, and how to go on."""
    causes = (
        (r"No space left|Errno 28|not enough space", "The disk is full: free about 10 GB, then run the same again."),
        (
            r"NewConnectionError|Max retries|Temporary failure in name|timed out|ProxyError|SSLError|ConnectionReset",
            "The package index could not be reached: check the network, the proxy and the certificates, then run the "
            "same command again; what is downloaded is kept.",
        ),
        (r"Permission denied|Errno 13|Access is denied", "Make the folder writable for you and close what uses it."),
        (
            r"No matching distribution|requires a different Python|from versions:",
            f"There is no build of it for this machine ({platform.system()} {platform.machine()}, Python "
            f"{platform.python_version()}): use a 64-bit Python {dotted(PYTHONS[0])} to {dotted(PYTHONS[1])}, or look "
            "whether the package index in use has it.",
        ),
        (r"ResolutionImpossible|conflicting dependencies", "What is installed does not allow it."),
    )
    plain = re.sub(r"(?m)^\d{4}-\d\d-\d\dT\S+ ", "", output)  # the times that a log has before each line
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|error)\b(?!: ResolutionImpossible)", line)]
    conflict = re.findall(r"(?m)^ +(.+ depends on .+|The user requested .+)$", plain)
    said = [*(errors or lines)[-3:], *(["; ".join(conflict)] if conflict else [])]
    remedy = next((text for pattern, text in causes if re.search(pattern, output)), "Run the same command again.")
    return " ".join([*(line.rstrip(". ") + "." for line in said), remedy])


def dotted(version: tuple[int, ...]) -> str:
    """(3, 10) as 3.10."""
    return ".".join(map(str, version))


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a folder's name may not fit the console's letters
    sys.exit(main(sys.argv[1:]))
