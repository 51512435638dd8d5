"""What pruning costs on a large set, against what the files alone cost on the same disk in the same run.

    python -m tests.benchmarks.pruning [--captions 50000] [--tags 30] [--json]

Every step runs as a person meets it: the first look in a new process, the next one in another new process, then a
query, one tag removed from all captions and taken back. Beside them, in turns, since a disk is never twice as quick:
writing the same bytes into as many files, each under a temporary name that is renamed, and flushing them once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 3


def make_set(folder: Path, captions: int, tags: int, seed: int = 1) -> None:
    """Captions with tags of a vocabulary of 6,000, the frequent ones far more often, beside empty pictures."""
    rng = random.Random(seed)
    words = [f"{kind} {number}" for number in range(1000) for kind in ("hat", "blue hair", "pose", "sky", "a", "shirt")]
    weights = [1 / (1 + place) for place in range(len(words))]
    for number in range(captions):
        chosen = list(dict.fromkeys(["1girl", *rng.choices(words, weights, k=tags * 2)]))[: tags - 1]
        chosen.insert(rng.randrange(len(chosen)), "the tag")
        (folder / f"{number:06d}.png").touch()
        (folder / f"{number:06d}.txt").write_text(", ".join(chosen), encoding="utf-8")


def measure_index(folder: Path) -> dict[str, Any]:
    """In a process of its own: the time of a first look, and what it holds."""
    from lib_dsm.dataset.tag_index import TagIndex

    began = time.perf_counter()
    index = TagIndex.read(folder)
    counts = index.counts
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "pictures": len(index), "tags": len(counts), "used": sum(counts.values())}


def measure_work(folder: Path) -> dict[str, Any]:
    """In a process of its own: queries, an edit, undo, and the memory that all of it took."""
    from lib_dsm.dataset.history import undo
    from lib_dsm.dataset.tag_index import TagIndex
    from lib_dsm.pruning.prune import PruneOptions, plan_prune
    from lib_dsm.pruning.query import parse

    index = TagIndex.read(folder)
    result: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        answer = work()
        result[name] = time.perf_counter() - began
        return answer

    query = "1girl AND (blue hair* OR NOT sky 1*), -count(hat *) > 5, tags >= 20"
    timed("first query", lambda: index.where(parse(query)))
    result["query"] = min(_time(lambda: index.where(parse(query))) for _ in range(5))
    timed("first query of tokens", lambda: index.where(parse("tokens > 75")))
    result["query of tokens"] = min(_time(lambda: index.where(parse("tokens > 75"))) for _ in range(5))
    timed("look again in the same process", lambda: TagIndex.read(folder, before=index))
    rounds: dict[str, list[float]] = {"edit": [], "undo": [], "files alone": []}
    for _ in range(ROUNDS):
        index = TagIndex.read(folder, before=index)

        def edit(index: TagIndex = index) -> None:
            outcome = plan_prune(folder, PruneOptions(remove=("the tag",)), index).apply()
            result["changed"] = len(outcome.changed)

        rounds["edit"].append(_time(edit))
        index = timed("look after the edit", lambda index=index: TagIndex.read(folder, before=index))
        rounds["undo"].append(_time(lambda: undo(folder)))
        result["peak memory MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rounds["files alone"].append(measure_files(folder))
    for name, seconds in rounds.items():
        result[name] = statistics.median(seconds)
    result["rounds"] = {name: [round(value, 2) for value in seconds] for name, seconds in rounds.items()}
    return result


def measure_files(folder: Path) -> float:
    """What the disk asks for the same bytes in as many files, written over the ones that are there."""
    contents = {path: path.read_bytes() for path in sorted(folder.glob("*.txt"))}

    def write() -> None:
        for path, content in contents.items():
            temporary = path.with_suffix(".part")
            temporary.write_bytes(content)
            os.replace(temporary, path)  # noqa: PTH105
        os.sync()

    return _time(write)


def _time(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_own_process(act: str, folder: Path) -> dict[str, Any]:
    """One measurement in a fresh Python."""
    code = (
        "import json; from pathlib import Path; from tests.benchmarks import pruning; "
        f"print(json.dumps(pruning.{act}(Path({str(folder)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Measure all of it and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=50_000)
    parser.add_argument("--tags", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="where the set is made, to measure another disk")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dsm-pruning-", dir=arguments.folder))
    try:
        make_set(folder, arguments.captions, arguments.tags)
        os.sync()
        first = in_own_process("measure_index", folder)
        again = in_own_process("measure_index", folder)
        work = in_own_process("measure_work", folder)
    finally:
        shutil.rmtree(folder)
    rounds = work.pop("rounds")
    found = {
        "seconds": {"first index": first["seconds"], "index again": again["seconds"], **work},
        "rounds": rounds,
        "ratios": {
            "index again / first": again["seconds"] / first["seconds"],
            "query / first index": work["query"] / first["seconds"],
            "edit / files alone": work["edit"] / work["files alone"],
            "undo / files alone": work["undo"] / work["files alone"],
        },
        "captions": first["pictures"],
        "tags": first["used"],
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{first['pictures']} captions, {first['used']} tags of {first['tags']} different ones")
    for name, value in found["seconds"].items():
        print(f"  {name:36} {value:10.3f}")
    for name, value in found["ratios"].items():
        print(f"  {name:36} {value:10.3f} times")
    for name, values in rounds.items():
        print(f"  {name:36} {', '.join(map(str, values))} seconds, round by round")


if __name__ == "__main__":
    main()
