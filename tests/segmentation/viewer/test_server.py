from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest

from segmentation.viewer import server as module
from segmentation.viewer.cases import Case, Frame
from segmentation.viewer.server import ViewerServer
from segmentation.viewer.volumes import View
from standard_space.errors import DataError, UsageError
from standard_space.geometry import Geometry

WHERE = Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def a_case(reads: list[int]) -> Case:
    def read() -> View:
        reads.append(1)
        return View(WHERE, np.full(WHERE.shape, -800, np.int16), -200.0)

    def broken() -> View:
        raise DataError("the file is damaged", where="scan.h5")

    return Case("P1", "Two.", [Frame("a", "observed", 0.0, read), Frame("b", "observed", 1.0, broken)])


@pytest.fixture
def reads() -> list[int]:
    return []


@pytest.fixture
def server(reads: list[int]) -> Iterator[ViewerServer]:
    with ViewerServer([a_case(reads)], title="lungcast: test", most=64) as running:
        yield running


def get(server: ViewerServer, path: str, host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of a request below the secret address."""
    parts = urlsplit(server.address)
    assert parts.hostname == "127.0.0.1"
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("GET", path, headers={"Host": host or parts.netloc})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def below(server: ViewerServer, path: str) -> str:
    return urlsplit(server.address).path + path


def test_it_serves_page_assets_and_data(server: ViewerServer, reads: list[int]) -> None:
    with urllib.request.urlopen(server.address) as page:
        assert b"<title>lungcast</title>" in page.read()
    for name in ("viewer.js", "curves.js", "viewer.css", "niivue.umd.js", "niivue.LICENSE"):
        status, body, _ = get(server, below(server, f"assets/{name}"))
        assert status == 200
        assert body
    _, index, _ = get(server, below(server, "data/index.js"))
    told = json.loads(index.decode().removeprefix("lungcast.index(").rstrip(";\n)"))
    assert told["served"] is True
    assert told["cases"][0]["frames"][1]["day"] == 1.0
    assert reads == []  # nothing is read before it is looked at
    _, frame, _ = get(server, below(server, "data/case0-frame0.js"))
    assert frame.startswith(b"lungcast.frame(0, 0, {")
    get(server, below(server, "data/case0-frame0.js"))
    assert reads == [1]


def test_a_scan_that_cannot_be_read_is_told_on_the_page(server: ViewerServer) -> None:
    status, frame, _ = get(server, below(server, "data/case0-frame1.js"))
    assert status == 200
    assert b"scan.h5: the file is damaged" in frame


@pytest.mark.parametrize(
    "path",
    [
        "assets/../server.py",
        "assets/",
        "data/case0-frame2.js",
        "data/case1-frame0.js",
        "data/case-frame.js",
        "etc",
    ],
)
def test_nothing_else_is_there(server: ViewerServer, path: str) -> None:
    assert get(server, below(server, path))[0] == 404


def test_without_the_secret_or_under_another_name_there_is_nothing(server: ViewerServer) -> None:
    assert get(server, "/")[0] == 404
    assert get(server, "/guess/index.html")[0] == 404
    assert get(server, below(server, ""), host="evil.example")[0] == 404
    assert len(urlsplit(server.address).path) > 20


def test_the_page_may_load_from_its_own_address_only(server: ViewerServer) -> None:
    headers = get(server, below(server, ""))[2]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_port_that_is_taken_is_refused(server: ViewerServer) -> None:
    port = urlsplit(server.address).port
    assert port is not None
    with pytest.raises(UsageError, match="port cannot be used"):
        ViewerServer([], title="", most=64, port=port)


def test_one_visit_ends_when_the_visitor_has_gone(
    server: ViewerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GONE_AFTER_SECONDS", 0.5)
    threading.Timer(0.2, lambda: get(server, below(server, ""))).start()
    begun = time.monotonic()
    assert server.wait_for_one_visit(20.0)
    assert 0.6 < time.monotonic() - begun < 10


def test_one_visit_that_never_comes(server: ViewerServer) -> None:
    assert not server.wait_for_one_visit(0.3)


def test_oldest_frames_are_forgotten_first(monkeypatch: pytest.MonkeyPatch, reads: list[int]) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 1)
    with ViewerServer([a_case(reads), a_case(reads)], title="", most=64) as running:
        for path in ("data/case0-frame0.js", "data/case1-frame0.js", "data/case0-frame0.js"):
            get(running, below(running, path))
    assert len(reads) == 3
