"""Tags, trains and extracts over DSM's HTTP API, with nothing but Python's standard library.

    python docs/api_example.py --project /pictures/miku --checkpoint v1-5-pruned.safetensors --password secret

talks to a studio that was started with `--password secret`; in the WebUI, started with `--api-auth me:secret`, the same
with `--url http://127.0.0.1:7860 --user me`. It opens the project, tags its pictures, copies them to SET, trains a
hypernetwork, and makes a LoRA of it. Ctrl-C cancels what runs; the training's state is saved, and the same command
goes on with it.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


class Refused(Exception):  # noqa: N818
    """What the API answered instead of doing it: a sentence with the cause, and one with the remedy."""


class Api:
    """The routes under /dsm/v1/ as methods: `get("jobs")`, `post("tag", folder=…)`."""

    def __init__(self, url: str, user: str, password: str, token: str = "") -> None:
        self._base = url.rstrip("/") + "/dsm/v1/"
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"X-DSM-Token": token} if token else {"Authorization": f"Basic {basic}"}

    def get(self, path: str, /, **query: Any) -> Any:
        """Ask for something; the values go into the address."""
        return self._call("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def post(self, path: str, /, **body: Any) -> Any:
        """Have something done; the values go as one JSON object."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            try:
                told = json.load(error)["error"]
            except (ValueError, KeyError):
                raise Refused(f"{self._base} answers {error.code}; is it DSM?") from error
            raise Refused(f"{told['problem']} {told['remedy']}") from error
        except urllib.error.URLError as error:
            raise Refused(f"{self._base} cannot be reached: {error.reason}.") from error

    def follow(self, job_id: str, stop_after: int = 0) -> dict[str, Any]:
        """Wait for a job, showing how far it is; Ctrl-C, or `stop_after` units of its work, cancel it."""
        stopping = False
        while True:
            try:
                job: dict[str, Any] = self.get(f"jobs/{job_id}")
                left = f", {job['left']:.0f} s left" if job["left"] else ""
                print(f"\r{job['title']}: {job['done']}/{job['total']} {job['unit']}{left}   ", end="", flush=True)
                if job["state"] != "running":
                    print(f"\r{job['title']}: {job['data'].get('summary') or job['state']}".ljust(70))
                    break
                if stop_after and job["done"] >= stop_after and not stopping:
                    stopping = True
                    self.post(f"jobs/{job_id}/cancel")
                time.sleep(0.2)
            except KeyboardInterrupt:
                self.post(f"jobs/{job_id}/cancel")  # it ends at its next safe point, so that it is waited for
                stopping = True
        if job["state"] == "failed":
            raise Refused(job["error"])
        if job["state"] == "cancelled" and not stop_after:
            raise Refused("Cancelled; start it again to go on.")
        return job


def main(arguments: argparse.Namespace) -> None:
    """From pictures to a LoRA file."""
    api = Api(arguments.url, arguments.user, arguments.password, arguments.token)
    status = api.get("status")
    print(f"DSM {status['version']} in the {status['host']}, checkpoints: {', '.join(status['checkpoints'])}")
    project = api.post("project/open", path=arguments.project)

    tagging = {"model": arguments.tagger, "threshold": arguments.threshold, "on_existing": "skip"}
    api.follow(api.post("tag", folder=project["tag"], options=tagging)["job"])
    counts = api.get("tags", folder=project["tag"])
    print("Most frequent:", ", ".join(item["tag"] for item in counts["tags"][:8]))
    api.follow(api.post("project/fill-set", path=arguments.project)["job"])

    config: dict[str, Any] = {
        "kind": "hypernetwork",
        "name": arguments.name,
        "checkpoint": arguments.checkpoint or status["checkpoints"][0],
        "dataset": api.get("project", path=arguments.project)["train"],
        "template": ["[filewords]"],
        "learning_rate": "0.00001",
        "max_steps": arguments.steps,
        "width": arguments.size,
        "height": arguments.size,
        **json.loads(arguments.settings),
    }
    known = {run["name"] for run in api.get("train/runs")["runs"]}
    if arguments.name not in known:
        for finding in api.post("train/check", config=config)["findings"]:
            print(f"{finding['severity']}: {finding['problem']} {finding['remedy']}")
        started = api.post("train/start", config=config)
    else:
        started = api.post("train/resume", run=arguments.name)
    job = api.follow(started["job"], arguments.stop_after)
    if job["state"] == "cancelled":
        print(f"Stopped after step {job['done']}; going on.")
        api.follow(api.post("train/resume", run=arguments.name)["job"])

    api.follow(api.post("train/lora", run=arguments.name)["job"])
    for job in api.get("jobs")["jobs"]:
        print(f"  {job['state']:10} {job['title']}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--url", default="http://127.0.0.1:7870", help="where the studio or the WebUI listens")
    made.add_argument("--user", default="dsm", help="the studio's is dsm, the WebUI's that of --api-auth")
    made.add_argument("--password", default="", help="that of the studio's --password or of the WebUI's --api-auth")
    made.add_argument("--token", default="", help="the page's token, instead of a password")
    made.add_argument("--project", required=True, help="a folder with pictures, or with IMGS in it")
    made.add_argument("--tagger", default="wd14-swinv2", help="a tagger's name, or a folder with model.onnx")
    made.add_argument("--threshold", type=float, default=0.35)
    made.add_argument("--checkpoint", default="", help="its name in the list; the first one without")
    made.add_argument("--name", default="from-the-api", help="what the network and the LoRA shall be called")
    made.add_argument("--steps", type=int, default=1000)
    made.add_argument("--size", type=int, default=512, help="pixels a side")
    made.add_argument("--settings", default="{}", help="more settings of the run, as JSON")
    made.add_argument("--stop-after", type=int, default=0, help="cancel after so many steps, and then go on")
    return made


if __name__ == "__main__":
    try:
        main(parser().parse_args())
    except Refused as error:
        sys.exit(str(error))
