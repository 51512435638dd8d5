"""Detectors and previews over the routes."""

import io

from PIL import Image

from tests.cropping.test_proposals import figure, noise

V1 = "/dsm/v1/"


def preview(client, path, box, **more) -> Image.Image:
    answer = client.get(V1 + "crop/preview", params={"path": str(path), "box": box, **more})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png", answer.text
    return Image.open(io.BytesIO(answer.content))


def test_a_preview_shows_the_padding_that_will_be_written(client, opened):
    figure(Image.new("RGB", (400, 800), (30, 120, 60)), (150, 200, 250, 790)).save(opened / "plain.png")
    noise((400, 800)).save(opened / "noisy.png")
    shown = preview(client, opened / "plain.png", "-200,0,600,800", color="auto")
    assert shown.size == (320, 320)
    assert all(abs(one - two) <= 2 for one, two in zip(shown.getpixel((5, 160)), (30, 120, 60), strict=True))
    assert preview(client, opened / "noisy.png", "-200,0,600,800", color="auto").getpixel((5, 160)) == (255, 255, 255)
    assert preview(client, opened / "plain.png", "-200,0,600,800", color="#102030").getpixel((5, 160)) == (16, 32, 48)
    blurred = preview(client, opened / "noisy.png", "-200,0,600,800", color="blur", side=100)
    assert blurred.size == (100, 100) and 100 < blurred.getpixel((4, 50))[0] < 180
    assert preview(client, opened / "plain.png", "-200,0,600,800", color="transparent").getpixel((5, 160))[3] == 0


def test_a_bad_preview_is_a_sentence(client, opened, tmp_path):
    outside = tmp_path / "outside.png"
    Image.new("RGB", (8, 8)).save(outside)
    (opened / "text.png").write_text("no picture")
    for path, box, color, status in (
        (outside, "0,0,8,8", "auto", 403), (opened / "a.txt", "0,0,8,8", "auto", 400),
        (opened / "a.png", "0,0,8", "auto", 400),
        (opened / "a.png", "9,9,3,3", "auto", 400), (opened / "a.png", "900,900,950,950", "auto", 400),
        (opened / "a.png", "0,0,8,8", "mauve-ish", 400), (opened / "a.png", "0,0,8," + 500 * "9", "white", 400),
        (opened / "text.png", "0,0,8,8", "auto", 400), (opened / "a.png", "0,0,999999,1", "white", 200),
    ):  # fmt: skip
        answer = client.get(V1 + "crop/preview", params={"path": str(path), "box": box, "color": color})
        assert answer.status_code == status, (path, box, answer.text)
        assert status == 200 or answer.json()["error"]["problem"]


def test_known_detectors_are_listed_and_only_they_are_fetched(client, opened, service):
    folder = service.host.folders.data / "detectors"
    folder.mkdir(parents=True)
    (folder / "mine.onnx").write_bytes(b"")
    shown = client.post(V1 + "crop/open", json={"project": str(opened.parent)}).json()["detectors"]
    assert [(one["name"], bool(one["path"])) for one in shown] == [
        ("yunet", False), ("anime-head", False), ("mine.onnx", True),
    ]  # fmt: skip
    assert all(one["licence"] and one["megabytes"] and one["repository"] for one in shown[:2])
    options = {"mode": "portrait", "detector": "yunet"}
    wrong = client.post(V1 + "crop/propose", json={"project": str(opened.parent), "options": options})
    assert wrong.status_code == 400 and "yunet is not here yet" in wrong.json()["error"]["problem"]
    wrong = client.post(V1 + "crop/detector", json={"name": "https://example.net/x.onnx"})
    assert wrong.status_code == 400 and "no detector" in wrong.json()["error"]["problem"]


def test_a_transparent_picture_is_padded_with_nothing(client, opened):
    Image.new("RGBA", (100, 200), (200, 30, 30, 128)).save(opened / "glass.png")
    shown = preview(client, opened / "glass.png", "-50,0,150,200", color="auto")
    assert (
        shown.mode == "RGBA" and shown.getpixel((5, 100))[3] == 0 and shown.getpixel((100, 100)) == (200, 30, 30, 128)
    )


def test_only_what_was_set_aside_is_brought_back(client, opened):
    project = str(opened.parent)
    act = client.post(V1 + "crop/aside", json={"project": project, "names": ["a.png"]}).json()["act"]
    caption = client.get(V1 + "caption", params={"path": str(opened / "b.png")}).json()
    change = {"path": str(opened / "b.png"), "tags": ["other"], "digest": caption["digest"]}
    assert client.put(V1 + "caption", json=change).status_code == 200
    wrong = client.post(V1 + "crop/back", json={"project": project, "act": act})
    assert wrong.status_code == 409 and (opened / "b.txt").read_text("utf-8") == "other"
    act = client.post(V1 + "crop/aside", json={"project": project, "names": ["c.png"]}).json()["act"]
    assert client.post(V1 + "crop/back", json={"project": project, "act": act}).status_code == 200
    assert (opened / "c.png").is_file() and not (opened / "a.png").exists()
