"""The page in the system's Chromium: a visitor chooses, uploads, asks, searches and plays."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from reserve.serve.limits import Limits
from tests.helpers.fake_answering import FakeAnswering
from tests.helpers.served import write_video

pytest.importorskip("av", reason="needs the extra video")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright of the extra dev")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH")
UNSAFE = "<img src=x onerror=document.title='hacked'>"


@contextmanager
def running(app) -> Iterator[str]:
    """Serves an application in a thread; yields its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder to serve, and files to upload."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "served").mkdir()
    write_video(folder / "served" / "first.webm", seconds=12, codec="libvpx")
    write_video(folder / "served" / "old.avi", codec="mpeg4", sound=False)
    shutil.copy(folder / "served" / "first.webm", folder / f"{UNSAFE}.webm")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has no sandbox
        yield browser
        browser.close()


@pytest.fixture
def site(files, tmp_path):
    """The URL of a server, and its fake model."""
    from reserve.serve.app import make_app
    from reserve.serve.uploads import Storage
    from reserve.serve.video_files import FolderVideos
    from reserve.serve.worker import Worker

    model = FakeAnswering()
    with closing(Storage(tmp_path / "own", Limits())) as storage:
        app = make_app(model, Worker(8), storage, videos=FolderVideos(files / "served"))
        with running(app) as url:
            yield url, model


@pytest.fixture
def page(browser, site):
    """The page with a video shown. Fails on what the console reports, but for responses that a test expects."""
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(site[0])
    page.wait_for_selector("#player:not([hidden])")
    yield page
    page.close()
    assert [text for text in complaints if "status of 415" not in text] == []


def choose(page, name):
    page.get_by_label("Video", exact=True).select_option(name)


def wait_until(page, condition):
    """Waits for a condition in JavaScript. The page's policy forbids what playwright's own function does."""
    give_up = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < give_up, condition
        page.wait_for_timeout(20)


def play_time(page):
    return page.evaluate("document.querySelector('#player').currentTime")


def test_a_search_shows_moments_that_play_when_chosen(page):
    page.get_by_label("Moments that sound or look like").fill("a red circle")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector("#moments-found button")
    bars = page.locator("#timeline .moment")
    assert bars.count() == page.locator("#moments-found button").count() == 6
    heights = [bar["height"] for bar in (bars.nth(n).bounding_box() for n in range(6))]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1]
    bars.nth(4).focus()
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelector('#player').currentTime > 8.1")
    assert not page.evaluate("document.querySelector('#player').paused")
    assert play_time(page) < 12
    page.locator("#moments-found button").nth(5).click()
    wait_until(page, "document.querySelector('#player').currentTime < 3")
    wait_until(page, "!document.querySelector('#player').seeking")
    playhead = page.locator("#timeline .playhead").evaluate("element => parseFloat(element.style.left)")
    assert 0 <= playhead < 30


def test_answers_are_ranked_and_play_where_they_fit_best(page, site):
    page.get_by_label("Question").fill("who is ___?")
    page.get_by_label("Answers, one a line").fill(f"ann\n{UNSAFE}\n")
    page.get_by_label("To, s").fill("9.5")
    page.get_by_role("button", name="Ask", exact=True).click()
    first = page.locator("#answers-found button").first
    assert UNSAFE in first.inner_text()
    assert "fits best at 0:01 – 0:03" in first.inner_text()
    assert site[1].asked == [("who is <|MASK|>?", ("ann", UNSAFE), 0.0, 9.5)]
    page.locator("#timeline .answer").click()
    wait_until(page, "document.querySelector('#player').currentTime > 1")
    assert page.title() == "Reserve"


def test_an_upload_is_shown_searched_by_sound_and_deleted(page, files):
    with page.expect_response(lambda response: response.status == 201):
        page.set_input_files("#file", files / f"{UNSAFE}.webm")
    wait_until(page, "document.querySelector('#video-choice').selectedOptions[0].text.startsWith('<img')")
    page.get_by_role("button", name="Find sounds like the 5 s at 0:00").click()
    page.wait_for_selector("#moments-found button")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    wait_until(page, "document.querySelector('#video-choice').options.length === 2")
    assert page.title() == "Reserve"


def test_errors_are_shown(page, files):
    page.set_input_files("#file", files / "broken.mp4")
    alert = page.locator("#video-error")
    alert.wait_for()
    assert alert.inner_text().startswith("broken.mp4: ")
    page.get_by_label("Question").fill("how far is ___?")
    page.get_by_label("Answers, one a line").fill("a\nb")
    page.get_by_role("button", name="Ask", exact=True).click()
    alert = page.locator("#ask .error")
    alert.wait_for()
    assert alert.inner_text() == "first.webm: it ends too soon"


def test_a_video_that_is_not_played_says_so_and_is_searched(page):
    choose(page, "old.avi")
    page.wait_for_selector("#video-note:not([hidden])")
    assert "browsers do not play .avi files" in page.locator("#video-note").inner_text()
    assert page.get_by_role("button", name="Find sounds like").is_disabled()
    page.get_by_label("Moments that sound or look like").fill("a red circle")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator("#moments-found button").first.click()
    assert page.locator("#timeline .moment").count() == 3


def test_a_search_of_all_videos_goes_to_another_one(page):
    page.get_by_label("In", exact=True).select_option("all videos")
    page.get_by_label("Moments that sound or look like").fill("a red circle")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector("#moments-found button")
    page.locator("#moments-found button", has_text="old.avi").first.click()
    page.wait_for_selector("#video-note:not([hidden])")
    page.locator("#moments-found button", has_text="first.webm").first.click()
    wait_until(page, "document.querySelector('#player').currentTime > 10")


def test_a_request_that_waits_can_be_cancelled_and_is_not_computed(page, site):
    model = site[1]
    model.gate.clear()
    page.get_by_label("Moments that sound or look like").fill("a red circle")
    page.get_by_role("button", name="Search", exact=True).click()  # runs until the gate opens
    wait_until(page, "document.querySelector('#search .status').innerText.includes('Reading')")
    page.get_by_label("Question").fill("who is ___?")
    page.get_by_label("Answers, one a line").fill("a\nb")
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_until(page, "document.querySelector('#ask .status').innerText.includes('Waiting for 1 request')")
    page.locator("#ask").get_by_role("button", name="Cancel").click()
    page.wait_for_selector("#ask .status", state="hidden")
    time.sleep(0.7)  # the server notices when it next has something to say
    model.gate.set()
    page.wait_for_selector("#moments-found button")
    assert model.asked == []


def test_nothing_is_cut_off(page):
    for width in (320, 400, 900, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_follows_the_visitors_colours(page):
    backgrounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == ["rgb(245, 247, 249)", "rgb(13, 17, 23)"]


def test_a_search_of_all_videos_leaves_out_what_cannot_be_read(page, files):
    broken = files / "served" / "zz.mp4"
    broken.write_bytes(b"no video")
    try:
        page.reload()
        page.wait_for_selector("#player:not([hidden])")
        page.get_by_label("In", exact=True).select_option("all videos")
        page.get_by_label("Moments that sound or look like").fill("a red circle")
        page.get_by_role("button", name="Search", exact=True).click()
        page.wait_for_selector("#moments-found button")
        assert page.locator("#search .error").inner_text().startswith("Left out: zz.mp4: ")
    finally:
        broken.unlink()


def test_an_empty_text_is_not_searched_for(page, site):
    for text in ("", "  "):
        page.get_by_label("Moments that sound or look like").fill(text)
        page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_label("Question").fill("who is ___?")
    page.get_by_label("Answers, one a line").fill("a\nb")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_selector("#answers-found button")
    assert site[1].started == 1


def test_a_video_of_which_a_part_is_read_says_so(browser, site):
    page = browser.new_page()
    page.route("**/api/videos/*", lambda route: route.fulfill(json={**route.fetch().json(), "is_cut": True}))
    page.goto(site[0])
    page.wait_for_selector("#video-note:not([hidden])")
    assert page.locator("#video-note").inner_text().startswith("Only its first 0:1")
    page.close()


def test_another_site_gets_nothing(browser, files, tmp_path):
    """The refusals are the server's own: what it answers is seen where it leaves."""
    from starlette.responses import HTMLResponse

    from reserve.serve.app import make_app
    from reserve.serve.uploads import Storage
    from reserve.serve.worker import Worker

    answered = []

    with closing(Storage(tmp_path / "own", Limits())) as storage:
        app = make_app(FakeAnswering(), Worker(8), storage)

        async def watched(scope, receive, send):
            async def note(message):
                if message["type"] == "http.response.start":
                    answered.append((scope["method"], scope["path"], message["status"]))
                await send(message)

            await app(scope, receive, note)

        with running(watched) as url, running(HTMLResponse("<p>evil</p>")) as evil:
            page = browser.new_page()
            page.goto(evil)
            for method in ("GET", "POST"):
                script = "([url, method]) => fetch(url, {method, mode: 'no-cors'}).then(r => r.type, e => String(e))"
                assert page.evaluate(script, [f"{url}api/videos", method]) == "TypeError: Failed to fetch"
            page.close()
    assert answered == [("GET", "/api/videos", 403), ("POST", "/api/videos", 403)]
