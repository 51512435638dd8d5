"""Nothing is lost when writing goes wrong, and no name leads out of its folder."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lib_dsm import files
from lib_dsm.errors import InputError, StorageError
from lib_dsm.networks.safetensors_files import save_tensors

ROOT = Path(__file__).resolve().parent.parent
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_content_arrives_whole_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "名前 'x' 🎨.txt"
    files.write_text(path, "a\r\nb\n")
    assert path.read_bytes() == b"a\r\nb\n"
    files.write_json(path, {"ü": [1]})
    assert files.read_json(path) == {"ü": [1]}
    assert list(path.parent.iterdir()) == [path]


@POSIX
@pytest.mark.parametrize("moment", ["while writing", "before renaming"])
def test_a_kill_in_mid_write_leaves_the_old_content(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("old", encoding="utf-8")
    code = """
import os, sys, time
from pathlib import Path
from lib_dsm import files
def wait():
    print("ready", flush=True)
    time.sleep(60)
def write(file):
    file.write(b"new " * 100_000)
    file.flush()
    if sys.argv[2] == "while writing":
        wait()
os.replace = Path.replace = lambda *a: wait()
files.write_atomically(Path(sys.argv[1]), write)
"""
    with python(code, path, moment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert path.read_text(encoding="utf-8") == "old"
    files.write_text(path, "new")  # what the kill left behind is in nobody's way
    assert path.read_text(encoding="utf-8") == "new"


def test_an_error_of_the_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old", encoding="utf-8")

    def write(file: object) -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError):
        files.write_atomically(path, write)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from lib_dsm import files
from lib_dsm.errors import StorageError
exec(sys.argv[2])
try:
    files.write_bytes(Path(sys.argv[1]), b"x" * 1_000_000)
except StorageError as error:
    print(error)
"""


def check_full(path: Path, answer: str, reason: str) -> None:
    assert reason in answer
    assert str(path) in answer
    assert "Free some space" in answer
    assert path.read_text(encoding="utf-8") == "old"
    assert list(path.parent.iterdir()) == [path]


@POSIX
def test_a_refused_write_is_a_sentence_and_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "embedding.pt"
    path.write_text("old", encoding="utf-8")
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    )
    with python(FULL_DISK, path, limit) as process:
        out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    check_full(path, out, "File too large")


@POSIX
def test_a_full_disk_is_a_sentence_and_leaves_the_old_content(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, timeout=30).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk can only be mounted by root")
    try:
        path = tmp_path / "embedding.pt"
        path.write_text("old", encoding="utf-8")
        with python(FULL_DISK, path, "") as process:
            out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        check_full(path, out, "No space left on device")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=30)


@POSIX
def test_permissions_stay_and_new_files_follow_the_umask(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("x", encoding="utf-8")
    old.chmod(0o640)
    files.write_text(old, "y")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    plain.write_text("x", encoding="utf-8")
    files.write_text(ours, "x")
    assert ours.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match="could not be written"):
        files.write_text(tmp_path / "file" / "run.json", "{}")


@pytest.mark.parametrize("content", ["", "{", "\x00", "[1,]"])
def test_what_is_not_json_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.json is not valid JSON"):
        files.read_json(path)


def test_json_that_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("a.json", "none.json"):
        with pytest.raises(InputError, match=name):
            files.read_json(tmp_path / name)


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert files.read_json(tmp_path / "a.json") == {}


letters = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=300),
    st.text(alphabet="./\\:~ ab\x00*CONnul1\n", max_size=12),
)


@given(name=letters)
@example("../x")
@example("..")
@example("C:x")
@example("con.txt")
@example("LPT1")
@example("a/../../b")
@example("名前 🎨")
@example("é" * 100)
@example("x\ud800")
def test_a_name_is_one_file_in_its_folder_or_refused(name: str) -> None:
    try:
        accepted = files.file_name(name)
    except InputError as error:
        assert error.remedy
        assert str(error).encode("utf-8")
        return
    folder = Path("/somewhere/deep").absolute()
    path = Path(os.path.normpath(folder / accepted))
    assert path.parent == folder
    assert path.name == accepted == name.strip()
    assert len(os.fsencode(accepted + ".safetensors")) < 255


@pytest.mark.parametrize(
    "name", ["", "  ", "../x", "a/b", "a\\b", "C:x", ".hidden", "x.", "nul", "COM1.pt", "a\nb", "q?"]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="embedding's name"):
        files.file_name(name, "embedding's name")


def test_accepted_names_can_be_written(tmp_path: Path) -> None:
    for name in ("plain", "名前 🎨", "it's \u00e9 [a]", "a" * 180):
        files.write_text(tmp_path / files.file_name(name), "x")
        assert (tmp_path / name).read_text(encoding="utf-8") == "x"


def test_inside_follows_links_and_dots(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    assert files.inside(folder / "sub" / ".." / "x.png", folder) == folder.resolve() / "x.png"
    assert files.inside(folder, folder) == folder.resolve()
    with pytest.raises(InputError, match="outside"):
        files.inside(folder / ".." / "x.png", folder)
    with pytest.raises(InputError, match="outside"):
        files.inside(tmp_path / "project2" / "x.png", folder)
    if os.name == "posix":
        (folder / "link").symlink_to(tmp_path)
        with pytest.raises(InputError, match="outside"):
            files.inside(folder / "link" / "x.png", folder)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 5000, "a\0b", "b/" * 3000])
def test_no_file_has_a_name_that_none_can_have(tmp_path: Path, name: str) -> None:
    assert not files.exists(tmp_path / name) and not files.is_file(tmp_path / name)
    assert not files.is_folder(tmp_path / name)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").touch()
    assert files.exists(tmp_path / "a") and files.is_folder(tmp_path / "a") and not files.is_file(tmp_path / "a")
    assert files.exists(tmp_path / "b") and files.is_file(tmp_path / "b") and not files.is_folder(tmp_path / "b")


def test_sha256_of_a_long_file(tmp_path: Path) -> None:
    import hashlib

    content = b"abc" * 1_000_000
    (tmp_path / "f").write_bytes(content)
    assert files.sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_room_is_looked_for_before_anything_is_written(tmp_path):
    path = tmp_path / "not" / "there yet" / "big.bin"
    files.demand_space(path, 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(StorageError, match=r"big\.bin takes .* MB left"):
        files.demand_space(path, 2 * free)
    assert not path.parent.exists()


def test_a_network_that_does_not_fit_is_a_sentence_and_no_file(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(StorageError, match="takes 0"):
        save_tensors(tmp_path / "lora.safetensors", {"a": torch.zeros(1000)}, {})
    assert list(tmp_path.iterdir()) == []
    save_tensors(tmp_path / "lora.safetensors", {"a": torch.zeros(100)}, {})


def test_of_several_that_write_one_new_name_one_succeeds(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    together = threading.Barrier(8)

    def write(number: int) -> bool:
        def fill(file) -> None:
            file.write(bytes([number]))
            together.wait()

        try:
            files.write_atomically(path, fill, replace=False)
        except InputError as error:
            assert "exists already" in str(error)
            return False
        return path.read_bytes() == bytes([number])

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(write, range(8))) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["a.bin"]
    # A file system without links has no such promise, but nothing is replaced there either.
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(95, "no links here")))
    files.write_atomically(tmp_path / "b.bin", lambda file: file.write(b"b"), replace=False)
    with pytest.raises(InputError, match="exists already"):
        files.write_atomically(path, lambda file: file.write(b"c"), replace=False)
    assert (tmp_path / "b.bin").read_bytes() == b"b" and len(list(tmp_path.iterdir())) == 2
