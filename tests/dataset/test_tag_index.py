import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib_dsm.dataset import tag_index
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.dataset.token_count import token_count


def test_counts_and_notes(tmp_path: Path) -> None:
    captions = {"1.png": b"hat, Hat, hat", "2.png": "猫耳, hat".encode("cp932"), "10.png": b"hat\nx", "3.png": b"\0"}
    for name, raw in captions.items():
        (tmp_path / name).touch()
        (tmp_path / name).with_suffix(".txt").write_bytes(raw)
    (tmp_path / "1.jpg").touch()
    (tmp_path / "4.png").touch()
    index = TagIndex.read(tmp_path)
    assert index.counts == {"hat": 3, "Hat": 1, "x": 1, "猫耳": 1}
    assert next(iter(index.counts)) == "hat"
    assert [path.name for path in index.pictures["hat"]] == ["1.jpg", "2.png", "10.png"]
    said = {note.path.name: note.text for note in index.notes}
    assert "shares" in said["1.png"] and "Shift-JIS" in said["2.txt"]
    assert "not text" in said["3.png"] and "no caption" in said["4.png"]
    assert {note.path.name for note in index.problems} == {"1.png", "2.txt", "3.png"}
    assert index.where(lambda tags: "x" in tags) == (1, {"hat": 1, "Hat": 0, "x": 1, "猫耳": 0})


def picture_set(folder: Path, captions: dict[str, str | None]) -> None:
    for name, text in captions.items():
        (folder / f"{name}.png").touch()
        if text is not None:
            (folder / f"{name}.txt").write_text(text)


def same(one: TagIndex, other: TagIndex) -> None:
    assert (one.names, one.counts, one.notes) == (other.names, other.counts, other.notes)
    assert [one.tags(row) for row in range(len(one))] == [other.tags(row) for row in range(len(other))]
    assert [one.caption(row) for row in range(len(one)) if one.usable[row]] == [
        other.caption(row) for row in range(len(other)) if other.usable[row]
    ]


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture_set(tmp_path, {"a": "hat", "b": "hat, x", "c": None, "d": "gone", "e": "hat"})
    (tmp_path / "f.png").touch()
    (tmp_path / "f.txt").write_bytes(b"\0")
    for path in tmp_path.glob("*.txt"):
        os.utime(path, (1e9, 1e9))
    first = TagIndex.read(tmp_path)
    assert TagIndex.read(tmp_path, before=first) is first
    (tmp_path / "b.txt").write_text("new, y")
    (tmp_path / "c.txt").write_text("born")
    (tmp_path / "d.txt").unlink()
    (tmp_path / "e.png").unlink()
    read = []
    original = tag_index.read_bytes
    monkeypatch.setattr(tag_index, "read_bytes", lambda path: read.append(Path(path).name) or original(path))
    second = TagIndex.read(tmp_path, before=first)
    assert sorted(read) == ["b.txt", "c.txt"] and sorted(second.changed) == ["b.txt", "c.txt", "d.txt"]
    same(second, TagIndex.read(tmp_path))
    assert second.counts == {"born": 1, "hat": 1, "new": 1, "y": 1}


def test_the_cache_on_the_disk_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_index, "_WORTH_A_CACHE", 1)
    picture_set(tmp_path, {"a": "hat, hat", "b": None, "c": ""})
    (tmp_path / "a.jpg").touch()
    (tmp_path / "d.png").touch()
    (tmp_path / "d.txt").write_bytes("猫耳, hat".encode("cp932"))
    for path in tmp_path.glob("*.txt"):
        os.utime(path, (1e9, 1e9))
    first = TagIndex.read(tmp_path)
    cache = tmp_path / ".dsm" / "tag-index.bin"
    assert cache.is_file()
    monkeypatch.setattr(tag_index, "read_bytes", lambda path: pytest.fail("it was read again"))
    same(TagIndex.read(tmp_path), first)
    monkeypatch.undo()
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 1
    cache.write_bytes(content)
    same(TagIndex.read(tmp_path), first)
    cache.write_bytes(b"")
    same(TagIndex.read(tmp_path), first)


@pytest.mark.parametrize(
    "text",
    [
        "1girl, solo, hat",
        "ganyu (genshin impact)",
        "^_^, don't",
        "猫耳, 2023",
        "heterochromia",
        "a",
        "",
        r"ganyu \(x\)",
    ],
)
def test_tokens_are_those_of_the_encoder(text: str) -> None:
    from transformers import CLIPTokenizer

    clip = Path(token_count.__code__.co_filename).parents[1] / "demo" / "models" / "clip"
    plain = text.replace("\\", "")
    assert token_count(text) == len(CLIPTokenizer.from_pretrained(clip)(plain, add_special_tokens=False)["input_ids"])


def test_tokens_of_a_whole_folder(tmp_path: Path) -> None:
    captions = {"a": "hat, ganyu (x), very long hair, hat", "b": "", "c": None, "d": "one"}
    picture_set(tmp_path, captions)
    assert TagIndex.read(tmp_path).tokens.tolist() == [token_count(text or "") for text in captions.values()]


def test_the_light_half_is_light() -> None:
    modules = "dataset.project dataset.tag_index tagging.run pruning.prune pruning.character cropping.write"
    code = (
        f"import sys; [__import__('lib_dsm.' + name) for name in '{modules}'.split()]; "
        "heavy = {'torch', 'gradio', 'onnxruntime', 'huggingface_hub', 'diffusers'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(__file__).parent.parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
