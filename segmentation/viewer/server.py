"""The viewer's page for this machine alone: 127.0.0.1, a random port, and a secret in the address."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from segmentation.viewer.cases import Case
from segmentation.viewer.site import ASSETS, asset, error_script, frame_script, index_script
from standard_space.errors import LungcastError, UsageError

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".LICENSE": "text/plain"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; font-src data:; worker-src blob:; base-uri 'none'; form-action 'none'"
)
"""The page may load from its own address and nothing else."""

_FRAME = re.compile(r"data/case(\d{1,6})-frame(\d{1,6})\.js", re.ASCII)

GONE_AFTER_SECONDS = 3.0
"""The page gives a sign of life every second."""


class ViewerServer:
    """Serves cases until it is told to stop.

    Others on the machine can reach its port too: without the secret in the address they get nothing, and a page
    from elsewhere gets nothing under another name of this machine.

    Parameters
    ----------
    cases : sequence of Case
        Their volumes are read when they are asked for.
    title : str
    most : int
        Voxels along each axis; see `segmentation.viewer.volumes.reduced`.
    port : int
        0 takes a free one.

    Raises
    ------
    UsageError
        The port is taken.
    """

    def __init__(self, cases: Sequence[Case], *, title: str, most: int, port: int = 0) -> None:
        self._cases, self._title, self._most = cases, title, most
        self._secret = secrets.token_urlsafe(16)
        self._reading = threading.Lock()
        self._scripts: dict[tuple[int, int], bytes] = {}
        self._seen: float | None = None
        try:
            self._http = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise UsageError(
                "the port cannot be used", got=port, expected=error.strerror, remedy="leave --port out"
            ) from None
        self._http.daemon_threads = True
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://127.0.0.1:{self._http.server_port}/{self._secret}/"

    def __enter__(self) -> ViewerServer:
        self._thread.start()
        return self

    def __exit__(self, *exit_arguments: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def wait(self) -> None:
        """Serve until interrupted."""
        while True:
            time.sleep(3600)

    def wait_for_one_visit(self, patience_s: float) -> bool:
        """Serve until the first visitor has gone, or until nobody came within a number of seconds.

        Returns
        -------
        bool
            Whether somebody came.
        """
        begun = time.monotonic()
        while True:
            time.sleep(0.1)
            now, seen = time.monotonic(), self._seen
            if seen is None and now - begun > patience_s:
                return False
            if seen is not None and now - seen > GONE_AFTER_SECONDS and not self._reading.locked():
                return True

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """Return what lies at a path behind the secret, with its kind; None for nothing."""
        self._seen = time.monotonic()
        if path == "alive":
            return b"", "text/plain"
        if path in ("", "index.html"):
            return asset("index.html"), _TYPES[".html"]
        folder, _, name = path.partition("/")
        if folder == "assets" and name in ASSETS:
            return asset(name), _TYPES[name[name.rindex(".") :]]
        if path == "data/index.js":
            return index_script(self._cases, title=self._title, served=True).encode(), _TYPES[".js"]
        number = _FRAME.fullmatch(path)
        if number is not None:
            case, frame = int(number[1]), int(number[2])
            if case < len(self._cases) and frame < len(self._cases[case].frames):
                return self._script(case, frame), _TYPES[".js"]
        return None

    def _script(self, case: int, frame: int) -> bytes:
        # One at a time: volumes are large, and not every kernel may run twice at once.
        with self._reading:
            if (case, frame) not in self._scripts:
                try:
                    script, _ = frame_script(self._cases, case, frame, self._most)
                except LungcastError as error:
                    script = error_script(case, frame, error)
                self._scripts[case, frame] = script.encode()
                while sum(map(len, self._scripts.values())) > _KEPT_BYTES and len(self._scripts) > 1:
                    del self._scripts[next(iter(self._scripts))]
            self._seen = time.monotonic()
            return self._scripts[case, frame]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        viewer = self

        class Handler(BaseHTTPRequestHandler):
            server_version, sys_version = "lungcast", ""
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                here = f"127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
                secret, _, path = self.path.split("?")[0].lstrip("/").partition("/")
                right = secrets.compare_digest(secret.encode(), viewer._secret.encode())
                found = viewer.answer(path) if right and self.headers.get("Host") == here else None
                if found is None:
                    self._send(404, b"nothing here\n", "text/plain")
                else:
                    self._send(200, *found)

            def _send(self, status: int, content: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Content-Security-Policy", _POLICY)
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Requests are nobody's news."""

        return Handler


_KEPT_BYTES = 2**30
"""Of frames already read; the oldest go first."""
