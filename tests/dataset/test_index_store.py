from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib_dsm.dataset.index_store import IndexStore


def test_others_may_ask_while_we_read_what_we_changed(tmp_path: Path) -> None:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    store = IndexStore()

    class Entries(OrderedDict[Any, Any]):
        """Another thread asks for its folder whenever it is let in."""

        def __iter__(self) -> Iterator[Any]:
            for key in super().__iter__():
                if not store._lock.locked():
                    store.get(tmp_path / "other")
                yield key

    for recursive in (False, True):
        store.get(tmp_path / "ours", recursive)
    store._entries = Entries(store._entries)
    with store.changing(tmp_path / "ours"):
        (tmp_path / "ours" / "a.png").touch()
        (tmp_path / "ours" / "a.txt").write_text("hat")
    assert store.get(tmp_path / "ours")[0].counts == {"hat": 1}
    assert store.foreign(tmp_path / "ours", 0) == []
