"""The routes of the Prune page."""

from __future__ import annotations

import os
from pathlib import Path

V1 = "/dsm/v1/"


def test_proposals_come_with_reasons_pictures_and_consequence(client, opened):
    told = client.get(V1 + "prune/character", params={"folder": str(opened), "share": "50"}).json()
    assert [item["tag"] for item in told["proposals"] if item["chosen"]] == ["blue eyes"]
    assert told["proposals"][0]["samples"] == ["a.png", "b.png"] and told["captions"] == 3
    assert told["consequence"]["inherent"] == ["blue eyes"] and len(told["presets"]) == 5
    assert client.get(V1 + "prune/character", params={"folder": str(opened), "preset": "x"}).status_code == 400
    body = {"folder": str(opened), "tags": ["hat"]}
    assert client.post(V1 + "prune/consequence", json=body).json()["inherent"] == ["hat"]


def test_tags_have_kinds_that_can_be_changed(client, opened, studio):
    def kind() -> str:
        tags = client.get(V1 + "tags", params={"folder": str(opened)}).json()["tags"]
        return next(item["kind"] for item in tags if item["tag"] == "hat")

    assert kind() == "clothes/accessory"
    assert client.put(V1 + "prune/kinds", json={"tag": "hat", "kind": "clothes"}).status_code == 200
    assert kind() == "clothes" and (studio.folders.data / "tag-kinds.txt").is_file()
    assert client.put(V1 + "prune/kinds", json={"tag": "hat", "kind": "blue"}).status_code == 400


def test_selected_pictures_have_tags_in_common_and_are_edited_alone(client, opened):
    some = {"folder": str(opened), "pictures": ["a.png", "b.png"]}
    common = client.post(V1 + "prune/common", json=some).json()
    assert common["pictures"] == 2
    assert {item["tag"]: item["count"] for item in common["tags"]} == {
        "1girl": 2, "blue eyes": 2, "hat": 1, "outdoors": 1,
    }  # fmt: skip
    wish = {"folder": str(opened), "options": {"add": ["x"], "pictures": ["b.png"]}}
    plan = client.post(V1 + "prune/plan", json=wish).json()
    assert plan["new"] == {"x": 1} and plan["changed"][0]["after"] == ["1girl", "blue eyes", "outdoors", "x"]
    assert client.post(V1 + "prune/apply", json={**wish, "expect": 1}).json()["changed"] == 1
    names = client.get(V1 + "pictures/names", params={"folder": str(opened), "where": "x"}).json()["names"]
    assert names == ["b.png"]


def test_completion(client, opened):
    found = client.get(V1 + "prune/complete", params={"folder": str(opened), "text": "blu"}).json()["tags"]
    assert (found[0]["tag"], found[0]["count"]) == ("blue eyes", 2)


def test_a_project_is_undone_as_a_whole_and_stepped_through(client, opened):
    project = str(opened.parent)
    for tag in ("x", "y"):
        client.post(V1 + "prune/apply", json={"folder": str(opened), "options": {"add": [tag]}})
    acts = client.get(V1 + "history", params={"project": project}).json()["acts"]
    assert [act["title"] for act in acts] == ["add y", "add x"] and acts[0]["where"] == "IMGS"
    shown = client.get(V1 + "history/act", params={"folder": str(opened), "act": acts[1]["id"]}).json()
    assert shown["captions"] == 3 and shown["changes"][0]["after"][-1] == "x"
    assert client.post(V1 + "history/go", json={"project": project, "act": 0}).json()["changed"] == 6
    assert (opened / "a.txt").read_text() == "1girl, blue eyes, hat"
    again = {"project": project, "folder": str(opened), "act": acts[1]["id"]}
    assert client.post(V1 + "history/go", json=again).json()["title"] == "add x"
    assert client.post(V1 + "redo", json={"project": project}).json()["changed"] == 3
    assert client.post(V1 + "undo", json={"project": project}).json()["changed"] == 3
    assert (opened / "a.txt").read_text() == "1girl, blue eyes, hat, x"


def test_a_page_sees_what_others_did(client, opened):
    def watch(**more):
        return client.get(V1 + "watch", params={"folder": str(opened), **more}).json()

    client.get(V1 + "tags", params={"folder": str(opened)})
    first = watch()
    client.post(V1 + "prune/apply", json={"folder": str(opened), "options": {"add": ["x"]}})
    second = watch(since=first["now"])
    assert second["revision"] != first["revision"] and second["foreign"] == []
    (opened / "a.txt").write_text("by another program")
    os.utime(opened / "a.txt", (1e9, 1e9))
    plan = client.post(V1 + "prune/plan", json={"folder": str(opened), "options": {"remove": ["x"]}}).json()
    third = watch(since=first["now"])
    assert plan["changes"] == 2 and third["foreign"] == ["a.txt"] and third["revision"] != second["revision"]


def test_pictures_are_taken_out_to_a_folder(client, opened):
    body = {"folder": str(opened), "pictures": ["a.png"]}
    answer = client.post(V1 + "prune/remove-pictures", json=body).json()
    assert answer["moved"] == 2 and not (opened / "a.png").exists()
    assert sorted(path.name for path in Path(answer["folder"]).iterdir()) == ["a.png", "a.txt"]
    assert client.get(V1 + "pictures", params={"folder": str(opened)}).json()["total"] == 2
    client.post(V1 + "undo", json={"folder": str(opened)})
    assert client.get(V1 + "pictures", params={"folder": str(opened)}).json()["total"] == 3
    assert client.post(V1 + "prune/remove-pictures", json={**body, "pictures": ["../x"]}).status_code == 400


def test_a_caption_goes_with_the_last_of_its_pictures(client, opened):
    (opened / "a.jpg").write_bytes((opened / "a.png").read_bytes())
    (opened / "a-2.png").write_bytes((opened / "a.png").read_bytes())
    (opened / "b.txt").write_bytes(b"\0 no text")
    before = {path.name: path.read_bytes() for path in opened.iterdir() if path.is_file()}

    def take_out(*names: str) -> dict:
        return client.post(
            V1 + "prune/remove-pictures", json={"folder": str(opened), "pictures": list(names)}
        ).json()  # fmt: skip

    assert take_out("a.jpg")["moved"] == 1 and (opened / "a.txt").is_file()
    assert take_out("a.png", "a.png")["moved"] == 2
    client.post(V1 + "undo", json={"folder": str(opened)})
    client.post(V1 + "undo", json={"folder": str(opened)})
    answer = take_out("a.png", "a.jpg", "b.png")
    assert (answer["moved"], answer["conflicts"]) == (5, [])
    removed = Path(answer["folder"])
    names = sorted(path.name for path in removed.iterdir())
    assert names == ["a.jpg", "a.png", "a.txt", "b.png", "b.txt"]
    client.post(V1 + "undo", json={"folder": str(opened)})
    for name in ("a.png", "a.jpg"):
        (removed / name).touch()  # an earlier one of that name
    answer = take_out("a.png", "a-2.png", "a.jpg")
    assert (answer["moved"], answer["conflicts"]) == (4, [])
    client.post(V1 + "undo", json={"folder": str(opened)})
    assert {path.name: path.read_bytes() for path in opened.iterdir() if path.is_file()} == before


def test_an_edit_that_was_cut_off_is_told_once(client, opened):
    client.post(V1 + "prune/apply", json={"folder": str(opened), "options": {"add": ["x"]}})
    file = opened / ".dsm" / "history" / "000001.jsonl"
    file.write_bytes(b"\n".join(file.read_bytes().split(b"\n")[:4]) + b"\n")  # the end was never written
    (opened / "a.txt").write_text("1girl, blue eyes, hat")
    first = client.get(V1 + "history", params={"project": str(opened.parent)}).json()
    assert "completed now" in first["recovered"][0] and first["acts"][0]["recovered"]
    assert (opened / "a.txt").read_text() == "1girl, blue eyes, hat, x"
    assert client.get(V1 + "history", params={"folder": str(opened)}).json()["recovered"] == []
