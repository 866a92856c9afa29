import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from autocompress.errors import InputError
from autocompress.report import watch_server
from autocompress.report.live_page import Content, Snapshot
from autocompress.report.watch_server import WatchServer

TOKEN = "a-token_Of-this.test"
SNAPSHOT = Snapshot(
    page=Content(plain=b"<html>the page</html>", zipped=b"zipped"),
    data=Content(plain=b'{"parts": {}}', zipped=b"zipped data"),
    version="v1",
    status=b'{"version": "v1"}',
    etag='"e1"',
)
DATA = f"/data?token={TOKEN}"
PAGE, STATUS = f"/?token={TOKEN}", f"/status?token={TOKEN}"


class FixedPage:
    n_asked: ClassVar[int] = 0

    def newest(self) -> Snapshot:
        type(self).n_asked += 1
        return SNAPSHOT

    last = newest


@pytest.fixture(scope="module")
def server() -> Iterator[WatchServer]:
    with WatchServer(FixedPage(), TOKEN) as server:  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(30)


class Answer:
    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.code, self.headers, self.content = found.status, found.headers, found.read()


def ask(server: WatchServer, path: str, method: str = "GET", **headers: Any) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return Answer(connection.getresponse())
    finally:
        connection.close()


def test_server_sends_the_page_to_who_has_the_token(server: WatchServer) -> None:
    answer = ask(server, PAGE)
    assert (answer.code, answer.content) == (200, SNAPSHOT.page.plain)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert server.url.endswith(PAGE)


def test_server_zips_for_who_understands_it(server: WatchServer) -> None:
    for path, content in ((PAGE, SNAPSHOT.page), (DATA, SNAPSHOT.data)):
        answer = ask(server, path, Accept_Encoding="br, gzip")
        assert answer.content == content.zipped
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"


def test_server_sends_data_with_its_version(server: WatchServer) -> None:
    answer = ask(server, DATA)
    assert (answer.code, answer.content) == (200, SNAPSHOT.data.plain)
    assert answer.headers["ETag"] == f'"{SNAPSHOT.version}"'


def test_server_sends_a_status_once(server: WatchServer) -> None:
    first = ask(server, STATUS)
    assert (first.code, json.loads(first.content)) == (200, {"version": "v1"})
    again = ask(server, STATUS, If_None_Match=first.headers["ETag"])
    assert (again.code, again.content) == (304, b"")
    assert ask(server, STATUS, If_None_Match='"other"').code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/status", "/data", "/?token=", "/?token=wrong", f"/?token={TOKEN}x", f"/?Token={TOKEN}",
     "/?token=%ff%ed%a0%80", "/?token=" + "a" * 5000],
)  # fmt: skip
def test_server_answers_401_without_the_token_and_reads_nothing(
    server: WatchServer, path: str
) -> None:
    before = FixedPage.n_asked
    answer = ask(server, path)
    assert answer.code == 401
    assert answer.headers["WWW-Authenticate"] == "Token"
    assert b"Open the address" in answer.content
    assert FixedPage.n_asked == before


@pytest.mark.parametrize("query", ["", f"?token={TOKEN}"])
@pytest.mark.parametrize(
    "path",
    ["/report.html", "/study.db", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2fa",
     "/status/", "/status/../", "//etc/passwd", "/./", "/%00", "http://localhost/", "/favicon.ico"],
)  # fmt: skip
def test_server_answers_404_to_every_other_path(server: WatchServer, path: str, query: str) -> None:
    answer = ask(server, path + query)
    assert answer.code == 404
    assert b"root:" not in answer.content


@pytest.mark.parametrize("path", [PAGE, "/", "/elsewhere"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_server_answers_405_to_other_methods(server: WatchServer, method: str, path: str) -> None:
    answer = ask(server, path, method)
    assert answer.code == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "127.0.0.1@evil",
     "0.0.0.0", "192.168.0.1", "127.0.0.1:x"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_server_answers_403_to_another_host(server: WatchServer, host: str, method: str) -> None:
    assert ask(server, PAGE, method, Host=host).code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8888", "LocalHost"])
def test_server_answers_through_a_forwarded_port(server: WatchServer, host: str) -> None:
    assert ask(server, PAGE, Host=host).code == 200


def test_server_sends_no_content_with_head(server: WatchServer) -> None:
    answer = ask(server, PAGE, "HEAD")
    assert (answer.code, answer.content) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(SNAPSHOT.page.plain))


@pytest.mark.parametrize(
    ("path", "method"),
    [(PAGE, "GET"), (DATA, "GET"), (STATUS, "GET"), ("/", "GET"), ("/x", "GET"), (PAGE, "POST")],
)
def test_server_sends_safe_headers_with_every_answer(
    server: WatchServer, path: str, method: str
) -> None:
    headers = ask(server, path, method).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    assert "Python" not in headers["Server"]


def test_server_refuses_what_is_no_http_and_goes_on(
    server: WatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    address = ("127.0.0.1", server.server_address[1])
    with socket.create_connection(address, timeout=30) as line:
        line.sendall(b"\x16\x03\x01 nonsense \x00\r\n\r\n")
        assert b"400" in line.recv(4096).split(b"\r\n")[0]
    socket.create_connection(address, timeout=30).close()  # hangs up at once
    with socket.create_connection(address, timeout=30) as line:  # two hosts
        line.sendall(f"GET {PAGE} HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n".encode())
        assert b"403" in line.recv(4096).split(b"\r\n")[0]
    assert ask(server, PAGE).code == 200
    assert capsys.readouterr().err == ""


def test_server_says_that_a_port_is_taken(server: WatchServer) -> None:
    port = server.server_address[1]
    with pytest.raises(InputError, match=f"Port {port} of 127.0.0.1 must be free"):
        WatchServer(FixedPage(), TOKEN, port)  # type: ignore[arg-type]


def _send(server: WatchServer, content: bytes) -> bytes:
    """What comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10) as plug:
        try:
            plug.sendall(content)
            answer = b""
            while part := plug.recv(65536):
                answer += part
        except ConnectionError:
            return b""
        return answer


def test_headers_beyond_8_kb_are_refused(server: WatchServer) -> None:
    """Each could be 6 MB, and 200 unfinished ones held 1.2 GB."""
    long = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Long: " + b"a" * 9000 + b"\r\n\r\n"
    answer = _send(server, long)
    assert b" 200 " not in answer.split(b"\r\n")[0]
    many = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 2000 + b"\r\n"
    assert b" 200 " not in _send(server, many).split(b"\r\n")[0]
    assert ask(server, PAGE).code == 200


def test_a_request_that_never_ends_is_hung_up_on(
    server: WatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_server, "_PATIENCE_S", 0.3)
    assert _send(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ") == b""
    assert ask(server, PAGE).code == 200


def test_of_too_many_connections_the_newest_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_server, "_MOST_CONNECTIONS", 2)
    with WatchServer(FixedPage(), TOKEN) as small:  # type: ignore[arg-type]
        thread = threading.Thread(target=small.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = ("127.0.0.1", small.server_address[1])
        with socket.create_connection(address), socket.create_connection(address):
            assert _send(small, b"GET / HTTP/1.1\r\n") == b""
        small.shutdown()
        thread.join(30)
