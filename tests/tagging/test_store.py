import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.store import FILE, ScoreStore

ROOT = Path(__file__).parents[2]


def scores(seed: int, width: int = 50) -> Scores:
    return Scores.of(np.random.default_rng(seed).random(width))


def same(one: Scores | None, other: Scores) -> bool:
    return one is not None and (one.places == other.places).all() and (one.levels == other.levels).all()


@settings(max_examples=20)
@given(st.dictionaries(st.tuples(st.sampled_from("ab"), st.binary(min_size=1, max_size=4)), st.integers(0, 99)))
def test_what_is_put_is_what_is_got(entries: dict[tuple[str, bytes], int]) -> None:
    with ScoreStore(None) as store:
        for (model, picture), seed in entries.items():
            store.put(model, [(picture, scores(seed))])
        for model in "ab":
            mine = [picture for kind, picture in entries if kind == model]
            found = store.get_many(model, [*mine, b"never"])
            assert found.keys() == set(mine)
            assert all(same(found[picture], scores(entries[model, picture])) for picture in mine)


def test_they_outlive_the_process_and_the_facts_too(tmp_path: Path) -> None:
    with ScoreStore(tmp_path) as store:
        store.put("model", [(b"a", scores(1))])
        store.note("model", {"side": 448})
    with ScoreStore(tmp_path) as store:
        assert same(store.get("model", b"a"), scores(1)) and store.get("other", b"a") is None
        assert store.facts("model") == {"side": 448} and store.facts("other") == {}


def test_more_than_one_query_holds(tmp_path: Path) -> None:
    with ScoreStore(tmp_path) as store:
        pictures = [number.to_bytes(2, "big") for number in range(1200)]
        store.put("m", [(picture, scores(0, 3)) for picture in pictures])
        assert len(store.get_many("m", pictures)) == 1200


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"same")
    other.write_bytes(b"same")
    old = time.time() - 100
    os.utime(one, (old, old))
    with ScoreStore(tmp_path / "kept") as store:
        first = store.digest(one)
        assert first == store.digest(other) == store.digest(one)
        one.rename(tmp_path / "moved")
        assert store.digest(tmp_path / "moved") == first
        one.write_bytes(b"more")  # same size, new time
        assert store.digest(one) != first
        two = store.digest(one)
        one.write_bytes(b"most")  # within the clock's grain, for all that is known
        assert store.digest(one) != two


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with ScoreStore(tmp_path) as store:
        store.put("m", [(b"a", scores(1))])
        assert same(store.get("m", b"a"), scores(1))
    assert (tmp_path / f"{FILE}.old-1").is_file()
    with ScoreStore(tmp_path) as store:
        assert same(store.get("m", b"a"), scores(1))


def test_a_row_that_is_damaged_is_none(tmp_path: Path) -> None:
    with ScoreStore(tmp_path) as store:
        store.put("m", [(b"a", scores(1)), (b"b", scores(2))])
        store._write([("UPDATE scores SET content = x'00112233445566778899' WHERE picture = ?", (b"a",))])
        assert store.get("m", b"a") is None and same(store.get("m", b"b"), scores(2))


def test_where_nothing_can_be_kept_all_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with ScoreStore(tmp_path / "file" / "folder") as store:
        store.put("m", [(b"a", scores(1))])
        assert same(store.get("m", b"a"), scores(1))


def test_many_threads_at_once(tmp_path: Path) -> None:
    with ScoreStore(tmp_path) as store:

        def work(start: int) -> None:
            for number in range(start, start + 50):
                store.put("m", [(number.to_bytes(2, "big"), scores(number))])
                store.digest(Path(__file__))

        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 50, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(same(store.get("m", number.to_bytes(2, "big")), scores(number)) for number in range(150))


WRITE = """
import sys
from pathlib import Path
from tests.tagging.test_store import scores
from lib_dsm.tagging.store import ScoreStore
store = ScoreStore(Path(sys.argv[1]))
for number in range(10**9):
    store.put("m", [(number.to_bytes(4, "big"), scores(number))])
    print(number, flush=True)
"""


def test_a_killed_process_leaves_what_it_had_kept(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    last = max([20, *map(int, rest)])
    with ScoreStore(tmp_path) as store:
        kept = [store.get("m", number.to_bytes(4, "big")) for number in range(last + 1)]
        assert all(same(found, scores(number)) for number, found in enumerate(kept))
        store.put("m", [(b"more", scores(0))])
        assert same(store.get("m", b"more"), scores(0))
