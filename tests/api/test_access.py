"""Who gets in, and where to."""

from __future__ import annotations

import base64
import sys

import pytest

from lib_dsm.api.app import PREFIX, routes
from tests.api.conftest import TOKEN, make_client


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route.method} {route.path}")
def test_no_route_answers_a_stranger(service, route):
    answer = make_client(service).request(route.method, PREFIX + route.path.replace("{id}", "x"))
    assert answer.status_code == 403
    assert "token" in answer.json()["error"]["problem"]


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", "é"])
def test_a_wrong_token_is_refused(service, token):
    headers = {"X-DSM-Token": token.encode()}
    assert make_client(service).get("/dsm/v1/status", headers=headers).status_code == 403


def test_the_token_opens(client, service):
    assert client.get("/dsm/v1/status").json()["host"] == "studio"
    assert make_client(service).get(f"/dsm/v1/status?token={TOKEN}").status_code == 200


def test_in_an_address_the_token_opens_what_only_reads(service, project):
    """Addresses end up in histories and logs, from where nothing is to be changed."""
    client = make_client(service)
    assert client.head(f"/dsm/v1/status?token={TOKEN}").status_code == 200
    for route in routes():
        path = PREFIX + route.path.replace("{id}", "x")
        if route.method != "GET":
            assert client.request(route.method, f"{path}?token={TOKEN}", json={"token": TOKEN}).status_code == 403
    assert client.post(f"/dsm/v1/project/open?token={TOKEN}", json={"path": str(project)}).status_code == 403


def test_answers_tell_no_other_site_where_they_came_from(client, opened):
    for path in ("status", f"file?path={opened}/a.png", f"thumbnail?path={opened}/a.png", "jobs/x", "file?path=/etc/x"):
        headers = client.get(f"/dsm/v1/{path}").headers
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["a.svg", "a.html", "a.png.html", "a.htm", "a.xml", "a.pdf", "a.js"])
def test_nothing_that_could_run_in_a_browser_is_served(client, opened, name):
    (opened / name).write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    assert client.get("/dsm/v1/file", params={"path": str(opened / name)}).status_code == 403
    assert client.get("/dsm/v1/thumbnail", params={"path": str(opened / name)}).status_code == 400


@pytest.mark.parametrize("name", ["a\nb.png", "a\r\nSet-Cookie: x=1.png", "ü\u202e.png", 'a".png'])
def test_a_name_gets_into_no_header(client, opened, name):
    (opened / "a.png").rename(opened / name)
    for route in ("file", "thumbnail"):
        answer = client.get(f"/dsm/v1/{route}", params={"path": str(opened / name)})
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert "content-disposition" not in answer.headers


def test_what_is_a_page_by_its_content_is_no_page_by_its_type(client, opened):
    (opened / "a.png").write_text("<html><script>1</script></html>")
    headers = client.get("/dsm/v1/file", params={"path": str(opened / "a.png")}).headers
    assert headers["content-type"] == "image/png"
    assert headers["x-content-type-options"] == "nosniff"


def test_programs_use_the_credentials_where_there_are_any(service):
    client = make_client(service, {"me": "secret:with colon"})
    assert client.get("/dsm/v1/status", headers=basic("me", "secret:with colon")).status_code == 200
    for headers in (
        basic("me", "secret"),
        basic("you", "secret:with colon"),
        {"Authorization": "Basic %%%"},
        basic("", ""),
    ):
        assert client.get("/dsm/v1/status", headers=headers).status_code == 403
    assert make_client(service).get("/dsm/v1/status", headers=basic("", "")).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Origin": "https://me.example", "X-Forwarded-Host": "me.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://me.example"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
def test_a_foreign_page_is_refused_even_with_the_token(client, headers, status):
    assert client.get("/dsm/v1/status", headers=headers).status_code == status


def test_a_folder_that_was_not_opened_is_refused(client, project):
    listing = {"folder": str(project / "IMGS")}
    assert client.get("/dsm/v1/pictures", params=listing).status_code == 403
    assert client.post("/dsm/v1/project/open", json={"path": str(project)}).status_code == 200
    assert client.get("/dsm/v1/pictures", params=listing).status_code == 200


@pytest.mark.parametrize(
    "way", ["{project}/../secret.png", "{project}/IMGS/../../secret.png", "secret.png", "/etc/passwd"]
)
def test_no_way_leads_out(client, opened, tmp_path, way):
    (opened / "a.png").rename(tmp_path / "secret.png")
    path = way.format(project=opened.parent)
    for route in ("file", "thumbnail", "caption"):
        assert client.get(f"/dsm/v1/{route}", params={"path": path}).status_code == 403


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_leads_nowhere_else(client, opened, tmp_path):
    (opened / "a.png").rename(tmp_path / "secret.png")
    (opened / "a.png").symlink_to(tmp_path / "secret.png")
    assert client.get("/dsm/v1/thumbnail", params={"path": str(opened / "a.png")}).status_code == 403


def test_only_pictures_are_served(client, opened):
    answer = client.get("/dsm/v1/file", params={"path": str(opened / "a.txt")})
    assert answer.status_code == 403
    assert client.get("/dsm/v1/file", params={"path": str(opened / "a.png")}).headers["content-type"] == "image/png"


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b"\xff"])
def test_a_body_that_is_no_object_is_a_sentence(client, body):
    answer = client.post("/dsm/v1/project/open", content=body)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["remedy"]


def test_a_huge_body_is_refused(client):
    assert client.post("/dsm/v1/project/open", content=b" " * (9 * 2**20)).status_code == 400


def test_the_schema_lists_every_route(client):
    listed = client.get("/dsm/v1/schema").json()["routes"]
    assert {(item["method"], item["path"]) for item in listed} == {(route.method, route.path) for route in routes()}
    assert all(item["summary"] for item in listed)
