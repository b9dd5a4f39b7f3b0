"""A proxy in front of a server that answers as it is told: through, slowly, with a status, or not at all."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyProxy:
    """Change its attributes at any time.

    Attributes:
        url: where it listens.
        status: that every request is answered with; 0 to pass them on.
        down: whether connections are cut without an answer.
        cut_answers: whether requests are passed on, and the connection is cut before their answer.
        delay: seconds before every answer.
        faults: how many requests were not answered as the server would have.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.status, self.down, self.cut_answers, self.delay, self.faults = 0, False, False, 0.0, 0

    def heal(self) -> None:
        """Pass everything on again."""
        self.status, self.down, self.cut_answers, self.delay = 0, False, False, 0.0


@contextlib.contextmanager
def faulty_proxy(server: str) -> Iterator[FaultyProxy]:
    """Give a proxy in front of ``http://host:port``."""
    host = server.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if proxy.delay:
                proxy.faults += 1
                time.sleep(proxy.delay)
            if proxy.down or proxy.status:
                proxy.faults += 1
            if proxy.down:
                self.connection.close()
                return
            if proxy.status:
                self._answer(proxy.status, {"Content-Type": "application/json"}, b'{"message": "as told"}')
                return
            self._pass_on(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def _pass_on(self, body: bytes) -> None:
            connection = http.client.HTTPConnection(host, timeout=60)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                proxy.faults += 1
                self.connection.close()
                return
            finally:
                connection.close()
            if proxy.cut_answers:
                proxy.faults += 1
                self.connection.close()
                return
            self._answer(answer.status, dict(answer.getheaders()), content)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            with contextlib.suppress(OSError):
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        proxy = FaultyProxy(listener.server_port)
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield proxy
        listener.shutdown()
