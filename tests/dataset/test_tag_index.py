import subprocess
import sys
from pathlib import Path

from lib_dsm.dataset.tag_index import TagIndex


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


def test_the_light_half_is_light() -> None:
    modules = "dataset.project dataset.tag_index tagging.run pruning.prune pruning.character cropping.write"
    code = (
        f"import sys; [__import__('lib_dsm.' + name) for name in '{modules}'.split()]; "
        "heavy = {'torch', 'gradio', 'onnxruntime', 'huggingface_hub', 'diffusers'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(__file__).parent.parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
