"""Other sites get nothing out of the server through a visitor's browser."""

from __future__ import annotations

import pytest

from tests.helpers.served import served

SEARCH = {"text": "a", "videos": ["none"]}


@pytest.fixture
def site(tmp_path):
    with served(tmp_path, names=["gpu-box.example"]) as site:
        yield site


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.1.2.3", "gpu-box.example", "GPU-box.example:80"]
)
def test_own_names_and_addresses_are_served(site, host):
    assert site.client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a b"]
)
def test_names_that_were_made_to_point_here_are_not(site, host):
    response = site.client.get("/api/videos", headers={"Host": host})
    assert response.status_code == 421
    assert "not a name of this server" in response.json()["error"]


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:9000", "null", "http://[", "file://"])
def test_changes_from_another_origin_are_refused(site, origin):
    response = site.client.post("/api/search", json=SEARCH, headers={"Origin": origin})
    assert (response.status_code, response.json()) == (403, {"error": "the request comes from another origin"})


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}])
def test_the_page_itself_and_programs_may_change_things(site, headers):
    response = site.client.post("/api/search", json=SEARCH, headers=headers)
    assert response.status_code == 404  # it got as far as looking for the video


@pytest.mark.parametrize("path", ["/api/videos", "/media/f-0", "/page.js"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "navigate"])
def test_other_sites_cannot_read_or_embed_anything(site, path, mode):
    response = site.client.get(path, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode})
    assert response.status_code == 403


def test_a_link_to_the_page_works(site):
    response = site.client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/videos", "/media/none", "/nothing"])
def test_every_response_has_the_headers_that_confine_it(site, path):
    headers = site.client.get(path, headers={"Origin": "http://localhost:8000"}).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
