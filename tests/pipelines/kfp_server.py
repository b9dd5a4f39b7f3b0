"""A small HTTP server that speaks KFP's API v2beta1 as the SDK calls it, and remembers what it was asked."""

import json
import threading
from email.message import EmailMessage
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

API = "/apis/v2beta1"


class KfpServer(ThreadingHTTPServer):
    """Attributes: what is stored, every request's headers, and what tests set before they ask."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pipelines: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.token = ""
        self.states = ["RUNNING", "SUCCEEDED"]
        self.break_next_looks = 0
        self.refuse_runs_with = ""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: KfpServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = self.server
        server.requests.append((method, url.path, {key.lower(): value for key, value in self.headers.items()}))
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            # As careless as a server can be: it sends the token back.
            return self._send(401, {"code": 16, "message": f"refused {self.headers.get('Authorization')}"})
        path = url.path.removeprefix(API).strip("/").split("/")
        match (method, *path):
            case ("GET", "healthz"):
                return self._send(200, {"multi_user": False})
            case ("GET", "pipelines"):
                return self._send(200, {"pipelines": _matching(server.pipelines, query)})
            case ("POST", "pipelines"):
                return self._store(server.pipelines, "pipeline_id", json.loads(body))
            case ("GET", "pipelines", pipeline_id, "versions"):
                mine = [version for version in server.versions if version["pipeline_id"] == pipeline_id]
                return self._send(200, {"pipeline_versions": _matching(mine, query)})
            case ("POST", "pipelines", "upload_version"):
                version = {"pipeline_id": query["pipelineid"], "display_name": query["name"]}
                version["pipeline_spec"] = next(yaml.safe_load_all(_uploaded(self.headers["Content-Type"], body)))
                return self._store(server.versions, "pipeline_version_id", version)
            case ("GET", "experiments"):
                return self._send(200, {"experiments": _matching(server.experiments, query)})
            case ("POST", "experiments"):
                return self._store(server.experiments, "experiment_id", json.loads(body))
            case ("POST", "runs"):
                if server.refuse_runs_with:
                    return self._send(400, {"code": 3, "message": server.refuse_runs_with})
                return self._store(server.runs, "run_id", json.loads(body))
            case ("GET", "runs", run_id):
                if server.break_next_looks:
                    server.break_next_looks -= 1
                    return self._send(503, {"code": 14, "message": "away"})
                state = server.states.pop(0) if len(server.states) > 1 else server.states[0]
                tasks = [
                    {"display_name": "fine-tune", "state": state},
                    {"display_name": "x", "state": "SUCCEEDED"},
                ]
                return self._send(200, {"run_id": run_id, "state": state, "run_details": {"task_details": tasks}})
        return self._send(404, {"code": 5, "message": f"{method} {url.path}"})

    def _store(self, kept: list[dict[str, Any]], id_name: str, value: dict[str, Any]) -> None:
        value[id_name] = f"{id_name}-{len(kept)}"
        kept.append(value)
        self._send(200, {key: part for key, part in value.items() if key != "pipeline_spec"})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _matching(values: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
        assert predicate["operation"] == 1
        values = [value for value in values if value[predicate["key"]] == predicate["stringValue"]]
    return [{key: part for key, part in value.items() if key != "pipeline_spec"} for value in values]


def _uploaded(content_type: str, body: bytes) -> bytes:
    message = BytesParser().parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    part = message.get_payload()[0]
    assert isinstance(part, EmailMessage | type(message))
    return part.get_payload(decode=True)
