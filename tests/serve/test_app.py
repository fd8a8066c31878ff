"""The server's interface over a fake model: every rule of what it answers."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time

import pytest

from reserve.errors import BadInput
from reserve.serve.limits import Limits
from tests.helpers.html_page import Page
from tests.helpers.served import served, write_video

pytest.importorskip("av", reason="needs the extra video")
ASKED = {"question": "who is ___?", "answers": ["ann", "benjamin"]}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture
def folder(tmp_path, film):
    folder = tmp_path / "videos"
    folder.mkdir()
    os.link(film, folder / "film.mp4")
    return folder


@pytest.fixture
def site(tmp_path, folder):
    with served(tmp_path / "own", folder, Limits(upload_bytes=10**6, folder_bytes=10**7, waiting=2)) as site:
        yield site


@pytest.fixture
def video(site):
    return site.listed()["film.mp4"]["id"]


def test_the_page_loads_only_its_own_files(site):
    page = Page(site.client.get("/").text)
    wanted = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert {"/page.js", "/page.css", "/icon.svg"} == set(wanted)
    assert not any(name.startswith("on") or name == "style" for _, found in page.elements for name in found)
    for name in (*wanted, "/timeline.js", "/server.js"):
        assert site.client.get(name).status_code == 200


def test_every_control_of_the_page_has_a_label(site):
    page = Page(site.client.get("/").text)
    labelled = {found.get("for") for tag, found in page.elements if tag == "label"}
    controls = [found["id"] for tag, found in page.elements if tag in ("input", "select", "textarea")]
    assert controls
    assert set(controls) <= labelled


def test_videos_are_listed_without_their_places(site, folder):
    response = site.client.get("/api/videos")
    assert str(folder) not in response.text
    [listed] = response.json()["videos"]
    assert listed.pop("id").startswith("f-")
    assert listed == {
        "name": "film.mp4",
        "size": (folder / "film.mp4").stat().st_size,
        "uploaded": False,
        "indexed": False,
    }


def test_a_video_is_described(site, video):
    described = site.client.get(f"/api/videos/{video}").json()
    assert described["seconds"] == pytest.approx(6, abs=0.5)
    assert (described["has_sound"], described["unplayable"], described["is_cut"]) == (True, None, False)


def test_a_video_that_browsers_do_not_play_is_asked_all_the_same(site, folder):
    write_video(folder / "old.avi", codec="mpeg4", sound=False)
    video = site.listed()["old.avi"]["id"]
    described = site.client.get(f"/api/videos/{video}").json()
    assert described["unplayable"] == "browsers do not play .avi files"
    assert site.client.get(f"/media/{video}").headers["content-type"] == "video/x-msvideo"
    assert site.compute(f"/api/videos/{video}/ask", ASKED)["state"] == "done"


def test_a_damaged_video_of_the_folder_says_so_without_its_place(site, folder):
    (folder / "broken.mp4").write_bytes(b"no video at all")
    video = site.listed()["broken.mp4"]["id"]
    response = site.client.get(f"/api/videos/{video}")
    assert response.status_code == 422
    assert response.json()["error"].startswith("broken.mp4: ")


def test_a_video_is_played_in_ranges(site, video, film):
    whole = site.client.get(f"/media/{video}")
    assert whole.content == film.read_bytes()
    assert (whole.headers["accept-ranges"], whole.headers["content-type"]) == ("bytes", "video/mp4")
    part = site.client.get(f"/media/{video}", headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    assert part.content == whole.content[100:200]
    assert site.client.get(f"/media/{video}", headers={"Range": "bytes=-5"}).content == whole.content[-5:]
    assert site.client.get(f"/media/{video}", headers={"Range": "bytes=99999999-"}).status_code == 416
    assert site.client.head(f"/media/{video}").headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    "path",
    [
        "../secret.mp4",
        "..%2fsecret.mp4",
        "%2e%2e/secret.mp4",
        "..%5csecret.mp4",
        "film.mp4",
        "%00",
        "/etc/passwd",
        "f-",
    ],
)
def test_no_path_is_served(site, folder, path):
    (folder.parent / "secret.mp4").write_bytes(b"secret")
    for place in ("/media/", "/api/videos/", "/page.js/", "/"):
        response = site.client.get(place + path)
        assert (response.status_code, b"secret" in response.content) == (404, False)
        assert "error" in response.json()


def test_an_upload_can_be_watched_asked_and_deleted(site, film):
    response = site.upload(film.read_bytes(), "<img src=x>.mp4")
    assert response.status_code == 201
    video = response.json()["id"]
    assert site.listed()["<img src=x>.mp4"]["uploaded"]
    assert site.client.get(f"/media/{video}").content == film.read_bytes()
    assert site.compute(f"/api/videos/{video}/ask", ASKED)["state"] == "done"
    assert site.client.delete(f"/api/videos/{video}").status_code == 204
    assert site.client.get(f"/media/{video}").status_code == 404
    assert os.listdir(site.folder / "uploads") == []


def test_videos_of_the_folder_are_not_deleted(site, video, folder):
    assert site.client.delete(f"/api/videos/{video}").status_code == 403
    assert (folder / "film.mp4").exists()


@pytest.mark.parametrize(
    ("data", "name", "headers", "status", "error"),
    [
        (b"x" * 20, "a.mp4", {}, 415, "a.mp4: "),
        (b"", "a.mp4", {}, 415, "a.mp4: empty file"),
        (b"x", "a.html", {}, 415, "a.html: a video ends in"),
        (b"x", "a.mp4", {"Content-Type": "multipart/form-data; boundary=x"}, 415, "send one file as the body"),
        (b"x" * (10**6 + 1), "a.mp4", {}, 413, "larger than"),
    ],
)
def test_other_uploads_leave_nothing(site, data, name, headers, status, error):
    response = site.upload(data, name, **headers)
    assert response.status_code == status
    assert response.json()["error"].startswith(error) or error in response.json()["error"]
    assert str(site.folder) not in response.text
    assert os.listdir(site.folder / "uploads") == []


def test_a_stream_without_a_length_is_cut_off(site):
    response = site.upload(iter([b"x" * 600_000] * 2))
    assert response.status_code == 413
    assert os.listdir(site.folder / "uploads") == []


def test_a_visitor_who_leaves_during_an_upload_causes_no_error(site):
    messages = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(messages)

    async def send(message):
        assert message.get("status", 400) == 400

    headers = {"host": "localhost", "content-type": "application/octet-stream"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/videos",
        "query_string": b"name=film.mp4",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(site.client.app(scope, receive, send))
    assert os.listdir(site.folder / "uploads") == []


def test_answers_are_ranked(site, video):
    done = site.compute(f"/api/videos/{video}/ask", ASKED | {"start": 1, "stop": 5})
    assert done["result"]["statement"] == "who is <|MASK|>?"
    assert [answer["text"] for answer in done["result"]["answers"]] == ["benjamin", "ann"]
    assert site.model.asked == [("who is <|MASK|>?", ("ann", "benjamin"), 1.0, 5.0)]


def test_what_the_model_refuses_is_told_without_the_place(site, video):
    failed = site.compute(f"/api/videos/{video}/ask", ASKED | {"question": "how far is ___?"})
    assert failed == {"state": "failed", "error": "film.mp4: it ends too soon"}


def test_what_is_not_the_visitors_fault_goes_to_the_log(site, video, caplog):
    failed = site.compute(f"/api/videos/{video}/ask", ASKED | {"question": "a bug is ___."})
    assert failed == {"state": "failed", "error": "the server failed; its log says why"}
    assert "secret of" in caplog.text


def test_a_failure_of_the_server_itself_shows_no_trace(site, monkeypatch):
    monkeypatch.setattr(site.model, "is_indexed", lambda folder: 1 / 0)
    response = site.client.get("/api/videos")
    assert response.status_code == 500
    assert response.json() == {"error": "the server failed; its log says why"}
    assert "content-security-policy" in response.headers


@pytest.mark.parametrize(
    ("body", "headers", "status", "error"),
    [
        (b"{", {}, 400, "the body is not JSON"),
        (b"[" * 60000, {}, 400, "the body is not JSON"),
        (b"\xff", {}, 400, "the body is not JSON"),
        (b'"' + b"x" * 70000 + b'"', {}, 413, "more than 65536 bytes"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "send JSON"),
        (b"{}", {}, 400, "the question is empty"),
    ],
)
def test_bad_requests_are_answered_as_json(site, video, body, headers, status, error):
    headers = {"Content-Type": "application/json"} | headers
    response = site.client.post(f"/api/videos/{video}/ask", content=body, headers=headers)
    assert response.status_code == status
    assert error in response.json()["error"]


def test_other_methods_and_places_are_answered_as_json(site):
    assert site.client.put("/api/videos").json() == {"error": "Method Not Allowed"}
    assert site.client.get("/nothing").json() == {"error": "Not Found"}


def test_a_video_is_searched_once_it_has_an_index(site, video):
    wanted = {"text": "a red circle", "videos": [video]}
    response = site.client.post("/api/search", json=wanted)
    assert (response.status_code, response.json()) == (409, {"error": "film.mp4 has no index yet"})
    assert site.compute(f"/api/videos/{video}/index", {}) == {"state": "done", "result": None}
    assert site.listed()["film.mp4"]["indexed"]
    found = site.compute("/api/search", wanted | {"most": 2})["result"]
    assert [(moment["video"], moment["start"]) for moment in found] == [(video, 4.0), (video, 2.0)]
    sound = {"video": video, "start": 0, "stop": 5}
    assert len(site.compute("/api/search", {"sound": sound, "videos": [video]})["result"]) == 3


def test_all_videos_that_have_an_index_are_searched(site, video, folder):
    write_video(folder / "other.mp4", seconds=2)
    wanted = {"text": "a red circle", "videos": "all"}
    response = site.client.post("/api/search", json=wanted)
    assert (response.status_code, response.json()) == (409, {"error": "no video has an index yet"})
    site.compute(f"/api/videos/{video}/index", {})
    assert {moment["video"] for moment in site.compute("/api/search", wanted)["result"]} == {video}


def test_what_is_wrong_in_the_servers_folder_is_told_without_its_place(site, video, monkeypatch):
    def damaged(path, folder, progress):
        raise BadInput(f"{folder} is damaged")

    monkeypatch.setattr(site.model, "index", damaged)
    failed = site.compute(f"/api/videos/{video}/index", {})
    assert failed == {"state": "failed", "error": f"indexes/fake/{video} is damaged"}


def test_a_long_work_shows_its_progress(site, video):
    site.model.gate.clear()
    threading.Timer(0.7, site.model.gate.set).start()
    lines = site.client.post(f"/api/videos/{video}/index", json={}).text.splitlines()
    states = [json.loads(line) for line in lines]
    assert {"state": "running", "done": 0, "total": 4} in states
    assert states[-1] == {"state": "done", "result": None}


def test_more_than_may_wait_are_told_that_it_is_busy(site, video):
    site.model.gate.clear()
    lines: list[list[str]] = []

    def ask():
        lines.append(site.client.post(f"/api/videos/{video}/ask", json=ASKED).text.splitlines())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    response = site.client.post(f"/api/videos/{video}/ask", json=ASKED)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.json() == {"error": "busy: 2 requests are waiting; try again in a moment"}
    site.model.gate.set()
    for thread in threads:
        thread.join(30)
    assert sorted(json.loads(answer[0]).get("ahead", 0) for answer in lines) == [0, 1, 2]
    assert all(json.loads(answer[-1])["state"] == "done" for answer in lines)
