"""What training is worth in the demo world: the share of a character's attributes right, trained against untrained.

Run: `python -m tests.benchmarks.proof [--out DIR]`; as `python -m lib_dsm demo --prove`, with the ratios alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from lib_dsm.cli.progress import run_job
from lib_dsm.demo.prove import prove


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the trials; those that are there are not done again")
    out = parser.parse_args().out or Path(tempfile.mkdtemp(prefix="dsm-proof-"))
    proof = run_job("Proving", "steps", lambda job: prove(out, job))
    before, after = proof.before["constant"], proof.after["constant"]
    print(f"trained {after:.0%}, untrained {before:.0%}: ratio {after / before:.1f}")
    for claim in proof.claims:
        tried, right = claim["tried"], claim["right"]
        print(f"{claim['title']}: {tried:.0%} against {right:.0%}: ratio {tried / right:.2f}")


if __name__ == "__main__":
    main()
