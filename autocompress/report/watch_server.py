"""A report on 127.0.0.1, for whoever has its token: nothing can be changed through it."""

import contextlib
import hmac
import http
import io
import re
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs

from autocompress.errors import InputError, first_line
from autocompress.report.live_page import Content, LivePage

HOST: Final = "127.0.0.1"
# A name that somebody else's site has pointed at this machine is none of these (DNS rebinding).
_OWN_HOST: Final = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.IGNORECASE)
_METHODS: Final = "GET, HEAD"
_SAFE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_MOST_CONNECTIONS: Final = 200
_MOST_HEADER_BYTES: Final = 8192
_PATIENCE_S: Final = 60.0  # for a whole request, the wait for it included
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'"
_REASONS: Final = {
    401: "The token is missing or wrong. Open the address that `autocompress watch` has printed.",
    403: "Ask for 127.0.0.1 or localhost: this page is for the machine it runs on.",
    404: "There is nothing here but the report.",
    405: "This page can be read, and nothing else.",
}


class WatchServer(ThreadingHTTPServer):
    """Serves the page of a run, a thread for each connection.

    Nobody can hold it up: of more than 200 connections at once the newest is closed, and so is one
    that sends more than 8 kB of headers, or no whole request within a minute.

    Args:
        page: What to serve.
        token: Who does not send it in the query gets 401.
        port: Port on 127.0.0.1; 0 for a free one.

    Raises:
        InputError: If the port cannot be had.
    """

    daemon_threads = True
    request_queue_size = 128  # many readers may come at once

    def __init__(self, page: LivePage, token: str, port: int = 0) -> None:
        self.page = page
        self.token = token.encode()
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(
                f"Port {port} of {HOST} must be free, but: {first_line(error)}.",
                "Choose another `port`, or leave it out for a free one.",
            ) from error

    @property
    def url(self) -> str:
        """Address of the page, with the token."""
        return f"http://{HOST}:{self.server_address[1]}/?token={self.token.decode()}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, if there are not too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who hangs up is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Headers(io.BufferedIOBase):
    """The stream of a connection, which ends after `n_left` bytes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.n_left = _MOST_HEADER_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line, or the part of it that is within the limit."""
        wanted = self.n_left if size is None or size < 0 else min(size, self.n_left)
        line = bytes(self._stream.readline(wanted))
        self.n_left -= len(line)
        return line

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection. The path is only looked up, and never becomes the name of a file."""

    server: WatchServer
    protocol_version = "HTTP/1.1"
    server_version = "autocompress"
    sys_version = ""
    timeout = _PATIENCE_S

    def setup(self) -> None:
        """Read headers up to a limit."""
        super().setup()
        self.rfile = self._headers = _Headers(self.rfile)

    def handle_one_request(self) -> None:
        """Answer a request that comes whole and in time."""
        self._headers.n_left = _MOST_HEADER_BYTES
        self._alarm = threading.Timer(_PATIENCE_S, self._hang_up)
        self._alarm.daemon = True
        self._alarm.start()
        try:
            super().handle_one_request()
        finally:
            self._alarm.cancel()

    def parse_request(self) -> bool:
        """Read the headers; refuses what exceeds the limit."""
        is_right = super().parse_request()
        self._alarm.cancel()
        if is_right and self._headers.n_left == 0:
            self.close_connection = True
            self.send_error(431)
            return False
        return is_right

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """`http.server` looks up `do_METHOD`, and would answer 501 where there is none."""
        if name.startswith("do_"):
            return self._refuse_method
        raise AttributeError(name)

    def do_GET(self) -> None:
        """The page at `/`, what it takes over at `/data`, its status at `/status`."""
        path, _, query = self.path.partition("?")
        answers = {"/": self._send_page, "/data": self._send_data, "/status": self._send_status}
        answer = answers.get(path)
        if not self._is_for_us():
            self._refuse(403)
        elif answer is None:
            self._refuse(404)
        elif not self._has_token(query):
            self._refuse(401, {"WWW-Authenticate": "Token"})
        else:
            answer()

    do_HEAD = do_GET  # noqa: N815 (the same)

    def _send_page(self) -> None:
        page = self.server.page.newest().page
        # the page states by itself what it may load and run; this cannot be said in a page
        self._send_content(page, "text/html", {"Content-Security-Policy": "frame-ancestors 'none'"})

    def _send_data(self) -> None:
        snapshot = self.server.page.newest()
        headers = {"Content-Security-Policy": _NOTHING, "ETag": f'"{snapshot.version}"'}
        self._send_content(snapshot.data, "application/json", headers)

    def _send_content(self, content: Content, kind: str, headers: dict[str, str]) -> None:
        """Zipped for who understands it: a page holds megabytes, and may be far from its reader."""
        wants_gzip = "gzip" in self.headers.get("Accept-Encoding", "")
        self._send(
            200,
            content.zipped if wants_gzip else content.plain,
            {
                "Content-Type": f"{kind}; charset=utf-8",
                "Vary": "Accept-Encoding",
                **({"Content-Encoding": "gzip"} if wants_gzip else {}),
                **headers,
            },
        )

    def _send_status(self) -> None:
        snapshot = self.server.page.last()
        headers = {"Content-Security-Policy": _NOTHING, "ETag": snapshot.etag}
        if self.headers.get("If-None-Match") == snapshot.etag:
            self._send(304, None, headers)
        else:
            self._send(200, snapshot.status, {"Content-Type": "application/json", **headers})

    def _is_for_us(self) -> bool:
        hosts = self.headers.get_all("Host", [])
        return len(hosts) == 1 and _OWN_HOST.fullmatch(hosts[0].strip()) is not None

    def _has_token(self, query: str) -> bool:
        given = parse_qs(query).get("token", [""])[0]
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.server.token)

    def _refuse_method(self) -> None:
        self.close_connection = True  # what comes with it is not read
        if self._is_for_us():
            self._refuse(405, {"Allow": _METHODS})
        else:
            self._refuse(403)

    def _refuse(self, code: int, headers: dict[str, str] | None = None) -> None:
        text = f"{code} {http.HTTPStatus(code).phrase}. {_REASONS[code]}\n"
        plain = {"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": _NOTHING}
        self._send(code, text.encode(), {**plain, **(headers or {})})

    def _send(self, code: int, content: bytes | None, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if content is not None and self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self) -> None:
        """With every answer, also to what `http.server` refuses itself."""
        for name, value in _SAFE_HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line for each request would hide the address, and hold the token."""
