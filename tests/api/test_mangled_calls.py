"""Every route with bad paths, bad names and bad bodies: always a sentence, never a crash, never a way out.

The routes and the keys that each reads are found by asking them, so a new route is tried as soon as it is there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lib_dsm.api.app import PREFIX, routes
from lib_dsm.api.http import Route
from lib_dsm.api.parameters import parameters
from lib_dsm.demo.install import CHECKPOINT
from tests.api.conftest import CAPTIONS, TOKEN, make_client
from tests.fuzz.mangled import deep, examples, odd_json, odd_text

ROUTES = [route for route in routes() if route.path != "schema"]
IDS = [f"{route.method} {route.path}" for route in ROUTES]
SECRET = "the secret of another folder"
"""Nothing that a route answers may hold it."""

PATHS = ("path", "folder", "project", "dataset", "name", "run", "grid", "picture", "checkpoint", "id")
NAMES = {"project/new", "project/open", "pictures/place", "history/go"}
"""Routes whose path is no file to be read, or not to be refused."""
WRITES_ANYWHERE = {"project/new", "project/open"}
"""Their very purpose is to open a folder, whichever the person names."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a project, links out of it, and what they lead to."""
    return tmp_path_factory.mktemp("calls")


@pytest.fixture(scope="module")
def world(place):
    """A client with the token, the project's pictures, and how to tell whether something outside has changed."""
    from lib_dsm.api.service import Service
    from lib_dsm.host.studio import StudioHost

    outside = place / "outside"
    outside.mkdir()
    Image.new("RGB", (40, 40), "red").save(outside / "secret.png")
    (outside / "secret.txt").write_text(SECRET, encoding="utf-8")
    (outside / "run.json").write_text(json.dumps({"version": 1, "begun": SECRET, "config": {}}), encoding="utf-8")
    project = place / "project"
    pictures = project / "IMGS"
    pictures.mkdir(parents=True)
    for name, caption in CAPTIONS.items():
        Image.new("RGB", (80, 80), (50, 90, 120)).save(pictures / f"{name}.png")
        (pictures / f"{name}.txt").write_text(caption, encoding="utf-8")
    # A project of its own: work on a folder that holds a way out is refused as a whole (test_links.py).
    foreign = project / "foreign"
    linked = foreign / "IMGS"
    linked.mkdir(parents=True)
    Image.new("RGB", (80, 80), "green").save(linked / "a.png")
    (linked / "link.png").symlink_to(outside / "secret.png")
    (linked / "link.txt").symlink_to(outside / "secret.txt")
    (linked / "linked").symlink_to(outside, target_is_directory=True)
    (foreign / "SET").symlink_to(outside, target_is_directory=True)
    studio = StudioHost(place / "studio")
    studio.folders.logs.mkdir(parents=True, exist_ok=True)
    (studio.folders.logs / "linked-run").symlink_to(outside, target_is_directory=True)
    service = Service(studio)
    client = make_client(service, headers={"X-DSM-Token": TOKEN})
    assert client.post(PREFIX + "project/open", json={"path": str(project)}).status_code == 200
    kept = snapshot(outside)

    class World:
        pass

    found: Any = World()
    found.client, found.pictures, found.project, found.outside = client, pictures, project, outside
    found.foreign, found.linked = foreign, linked
    found.service, found.studio = service, studio

    def untouched() -> None:
        for job in studio.jobs.all():
            job.cancel()
            job.wait(20)
        assert snapshot(outside) == kept

    found.untouched = untouched
    return found


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}  # fmt: skip


def bad_paths(world: Any) -> list[str]:
    inner, project, linked = world.pictures, world.project, world.linked
    return [
        str(world.outside / "secret.png"), str(world.outside), str(linked / "link.png"), str(linked / "linked"),
        str(linked / "linked" / "secret.png"), str(world.foreign), str(linked),
        f"{project}/../outside/secret.png", f"{inner}/../../outside",
        "../outside/secret.png", "..", "../..", "/", "/etc/passwd", "/proc/self/environ", "/dev/zero", "",
        "a\0b", f"{inner}/a.png\0", "\0", "a" * 5000, f"{inner}/{'a' * 300}.png", f"{inner}/" + "b/" * 3000,
        "CON", "aux.txt", "LPT1", "name.", " ", ".", ".hidden", "C:\\Windows\\win.ini", "\\\\server\\share\\x", "a:b",
        "\ud800", f"{inner}/\ud800.png", "~", "~root/x", "file:///etc/passwd", "%2e%2e%2foutside", "linked-run",
        "../logs/linked-run", "\u202egnp.a", "a\nb", f"//{inner}", f"{inner}/./a.png/..", str(world.foreign / "SET"),
    ]  # fmt: skip


def good_body(world: Any) -> dict[str, Any]:
    """A value for every key that any route knows, such that most of them do something."""
    pictures, project = str(world.pictures), str(world.project)
    config = {"name": "word", "checkpoint": str(CHECKPOINT), "dataset": pictures, "max_steps": 1}
    item = {"source": "a.png", "mode": "center", "box": [0, 0, 64, 64], "width": 32, "height": 32}
    return {
        "path": str(world.pictures / "a.png"), "folder": pictures, "project": project, "dataset": pictures,
        "name": "a.png", "names": ["a.png"], "tags": ["hat"], "digest": "x", "where": "hat", "text": "a girl",
        "tag": "hat", "tab": "tag", "kind": "embedding", "checkpoint": "", "box": "0,0,64,64", "color": "auto",
        "help": "", "learning_rate": "0.01", "wish": "save", "since": "0", "page": 0, "size": 60, "first": 0, "last": 5,
        "brief": False, "act": 0, "side": 64, "width": 512, "height": 512, "step": 64, "vectors": 2, "max_steps": 5,
        "config": config, "settings": {"vectors": 4}, "options": {}, "vary": {"learning_rate": ["0.1"]},
        "changes": {}, "pictures": [{"source": "a.png", "state": "proposed", "stamp": "1", "items": [item]}],
        "items": [item], "plan": {"items": [item]}, "run": "word", "grid": "word", "trial": 1, "override": [],
        "dry_run": True, "fresh": False, "force": False, "aside": True, "resume": False, "expect": 0,
        "picture": "", "lines": {}, "tables": {}, "most": 5, "share": 0.5, "recursive": False, "keep": [],
    }  # fmt: skip


def keys_of(route: Route) -> set[str]:
    """The keys that the route reads from a call."""
    return {parameter.name for parameter in parameters(route.handler)}


def ask(world: Any, route: Route, body: dict[str, Any]) -> Any:
    """The answer to a call, which must be a success or a sentence."""
    path = PREFIX + route.path.replace(
        "{id}", quote(str(body.get("id", "x")).encode("utf-8", "replace"), safe="") or "x"
    )
    if route.method == "GET":
        query = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in body.items()
            if value is not None
        }
        parts = (f"{quote(key.encode('utf-8', 'replace'))}={quote(value.encode('utf-8', 'surrogatepass'), safe='')}"
                 for key, value in query.items())  # fmt: skip
        answer = world.client.get(f"{path}?{'&'.join(parts)}")
    else:
        answer = world.client.request(route.method, path, content=json.dumps(body))
    assert answer.status_code < 500 or answer.status_code == 507, f"{answer.status_code}: {answer.text[:300]}"
    if answer.status_code >= 400 and answer.headers["content-type"] == "application/json":
        problem = answer.json()["error"]["problem"]
        assert problem.strip()
        assert "Traceback" not in problem
    assert SECRET.encode() not in answer.content
    return answer


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_no_bad_path_or_name_leads_anywhere(world, route):
    good = good_body(world)
    keys = keys_of(route)
    for key in sorted(keys & set(PATHS)) + (["id"] if "{id}" in route.path else []):
        for bad in bad_paths(world):
            if route.path in WRITES_ANYWHERE and Path(bad.replace("\0", "x")).is_absolute():
                continue
            given = {name: good[name] for name in keys if name in good and (key, name) != ("folder", "project")}
            answer = ask(world, route, {**given, key: bad})
            leads_out = any(part in bad for part in ("outside", "link", "/etc", "/proc", "/dev"))
            if key in ("path", "folder", "project") and leads_out and route.path not in NAMES:
                assert answer.status_code in (400, 403, 404, 405), (
                    f"{key}={bad!r}: {answer.status_code} {answer.text[:200]}"
                )
    world.untouched()


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_no_bad_path_within_a_list_or_an_object_leads_anywhere(world, route):
    """Paths also stand in settings, in lists of names and in frames."""
    good = good_body(world)
    keys = keys_of(route)
    for bad in bad_paths(world):
        for key, value in (
            ("names", [bad]), ("tags", [bad]), ("items", [{**good["items"][0], "source": bad, "part": bad}]),
            ("pictures", [{"source": bad, "state": "confirmed", "items": [{**good["items"][0], "source": bad}]}]),
            ("plan", {"items": [{**good["items"][0], "source": bad}]}),
            ("options", {"detector": bad, "mode": "auto"}), ("options", {"model": bad}), ("options", {"models": [bad]}),
            *(("config", {**good["config"], field: bad}) for field in
              ("name", "dataset", "output", "checkpoint", "template_file", "init_embedding")),
            ("settings", {"init_hypernetwork": bad}), ("changes", {"name": bad}),
        ):  # fmt: skip
            if key in keys and not (route.path == "train/start" and key == "config" and bad == ""):
                ask(world, route, {**{name: good[name] for name in keys if name in good}, key: value})
    world.untouched()


_VALUES = st.one_of(
    odd_json(), odd_text(), st.sampled_from(["../x", "\0", 10**400, 1e308, float("inf"), -1, True, [], {}, [[]], None])
)


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_no_body_ends_in_a_crash(world, route):
    good = good_body(world)
    keys = sorted(keys_of(route) & good.keys()) or ["path"]

    @examples(8)
    @given(st.dictionaries(st.one_of(st.sampled_from(keys), odd_text(6)), _VALUES, max_size=4), st.booleans())
    def check(body, filled):
        ask(world, route, {**({name: good[name] for name in keys} if filled else {}), **body})

    check()
    if route.method != "GET":
        path = PREFIX + route.path.replace("{id}", "x")
        assert world.client.request(route.method, path, content='{"path": NaN}').status_code < 500
        for content in (deep("[", "]"), deep('{"a":', "}"), "9" * 10_000, '{"path": "\\ud800"}', "\0"):
            assert 400 <= world.client.request(route.method, path, content=content).status_code < 500
    world.untouched()
