"""Kubernetes' API as the SDK of Kubeflow Trainer calls it, with Trainer behind it: a job's nodes really run.

Each node is a process on this machine with the command, and the environment for torchrun, that Trainer would give
its pod. What is not here: scheduling, images, volumes, webhooks.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

GROUP = "/apis/trainer.kubeflow.org/v1alpha1"
CREATED = "2026-01-01T00:00:00Z"


class TrainerServer(ThreadingHTTPServer):
    """Attributes: the jobs by name; every request; ``fail_next``: how many requests to answer with 503 first."""

    daemon_threads = True

    def __init__(self, runtime: dict[str, Any], folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runtime, self.folder = runtime, folder
        self.jobs: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, list[subprocess.Popen[bytes]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.fail_next = 0
        self.refuse_jobs_with = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def kubeconfig(self) -> Path:
        """Write a file that leads the SDK here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "team"}}],
            "users": [{"name": "test", "user": {"token": "none"}}],
        }
        file = self.folder / "kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return file

    def start_job(self, job: dict[str, Any]) -> None:
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        job["metadata"] |= {"namespace": "team", "creationTimestamp": CREATED}
        self.jobs[name] = job
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.processes[name] = []
        for rank in range(trainer["numNodes"]):
            environment = {**os.environ, **{each["name"]: each["value"] for each in trainer.get("env", [])}}
            environment |= {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            }
            assert trainer["command"][0] == "torchrun"
            command = [sys.executable, "-m", "torch.distributed.run", *trainer["command"][1:]]
            with self.log(name, rank).open("wb") as log:
                process = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
            self.processes[name].append(process)

    def log(self, name: str, rank: int) -> Path:
        return self.folder / f"{name}-{rank}.log"

    def phase(self, name: str, rank: int) -> str:
        code = self.processes[name][rank].poll()
        return "Running" if code is None else "Succeeded" if code == 0 else "Failed"

    def described(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        phases = [self.phase(name, rank) for rank in range(len(self.processes[name]))]
        kind = "Failed" if "Failed" in phases else "Complete" if set(phases) == {"Succeeded"} else ""
        status = {"conditions": [{"type": kind, "status": "True", "reason": "", "message": "",
                                  "lastTransitionTime": CREATED}]} if kind else {}  # fmt: skip
        return {**job, "status": status}

    def pods(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {
                    "name": f"{name}-node-{rank}",
                    "creationTimestamp": CREATED,
                    "labels": {
                        "jobset.sigs.k8s.io/replicatedjob-name": "node",
                        "batch.kubernetes.io/job-completion-index": str(rank),
                    },
                },
                "spec": {"containers": [{"name": "node", "image": "x"}]},
                "status": {"phase": self.phase(name, rank)},
            }
            for rank in range(len(self.processes.get(name, [])))
        ]

    def end_job(self, name: str) -> None:
        """End the nodes as Kubernetes ends pods: by SIGTERM, which torchrun hands on, and later by force."""
        for process in self.processes[name]:
            process.terminate()
        for process in self.processes[name]:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.jobs.pop(name, None)

    def close(self) -> None:
        for name in list(self.jobs):
            self.end_job(name)
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: TrainerServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        url, server = urlsplit(self.path), self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.requests.append((method, url.path))
        if server.fail_next:
            server.fail_next -= 1
            return self._status(503, "ServiceUnavailable")
        match (method, *url.path.removeprefix(GROUP).strip("/").split("/")):
            case ("GET", "namespaces", _, "trainingruntimes", name):
                if name != server.runtime["metadata"]["name"]:
                    return self._status(404, "NotFound")
                return self._send(server.runtime)
            case ("POST", "namespaces", _, "trainjobs"):
                job = json.loads(body)
                if server.refuse_jobs_with:
                    return self._status(server.refuse_jobs_with, "Forbidden")
                if job["metadata"]["name"] in server.jobs:
                    return self._status(409, "AlreadyExists")
                server.start_job(job)
                return self._send(server.described(job["metadata"]["name"]))
            case ("GET", "namespaces", _, "trainjobs", name) if name in server.jobs:
                return self._send(server.described(name))
            case ("DELETE", "namespaces", _, "trainjobs", name) if name in server.jobs:
                server.end_job(name)
                return self._send({})
            case ("GET", "api", "v1", "namespaces", _, "pods"):
                name = next((name for name in server.jobs if name in url.query), "")
                return self._send({"kind": "PodList", "apiVersion": "v1", "items": server.pods(name)})
            case ("GET", "api", "v1", "namespaces", _, "pods", pod, "log"):
                name, _, rank = pod.rpartition("-node-")
                return self._stream(name, int(rank), follow="follow=True" in url.query)
        return self._status(404, "NotFound")

    def _stream(self, name: str, rank: int, *, follow: bool) -> None:
        """Send what a node has said, and what it goes on to say until it ends."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with self.server.log(name, rank).open("rb") as log:
            while True:
                running = self.server.phase(name, rank) == "Running"
                if content := log.read():
                    self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
                elif not (follow and running):
                    self.wfile.write(b"0\r\n\r\n")
                    return
                else:
                    time.sleep(0.05)

    def _status(self, code: int, reason: str) -> None:
        self._send({"kind": "Status", "status": "Failure", "reason": reason, "code": code}, code)

    def _send(self, value: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
