"""What is logged to an MLflow server, kept until the server has it: training waits for no server.

Every entry (metrics, params, tags, files, …) is written to a journal first, in a folder or a bucket, and sent
from there in order by a thread. While the server is away, slow or answers 403 or 500, entries wait. What is left
when the step has ended is sent when the step runs again, or by ``python -m affectflow.tracking_journal DIR``.

Entries carry their own time, and MLflow takes the same metric, param, tag or file twice as once, so an entry that
is sent again after a kill shows once. A model, which it would take twice, is looked for first.
"""

import contextlib
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from affectflow.errors import AffectflowError, StorageError, StorageMissingError, TrackingError, what_got_wanted
from affectflow.progress import report_error, say, warn
from affectflow.storage import Storage, join, open_storage
from affectflow.tracked_run import MlflowRun, Run, run_url

#: Journals' folders begin with this.
PREFIX = "tracking-"

#: Seconds that a step waits at its end for entries to be taken, counted from the last that was.
PATIENCE_VARIABLE = "AFFECTFLOW_RETRY_SECONDS"
_PATIENCE = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0

_RUN, _DELIVERED = "run.json", "delivered"
#: MLflow's codes for what no repetition would mend. All else may pass: away, busy, 403 of a proxy, 500.
_REFUSED = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}
)


class Journal:
    """The entries of one run in a storage, each a file; numbers give their order.

    Args:
        place: a folder or ``s3://bucket/prefix``.
        name: of the journal in it.
        once: whether a metric of a step that is there already is left out, as training says some again when it
            goes on after a kill.
    """

    def __init__(self, place: str, name: str, *, once: bool = False) -> None:
        self._once = once
        self._storage: Storage = open_storage(place)
        self._folder = name
        self.address = join(place, name)
        self.run_id, self.experiment_id = self._read_run()
        names = [file for file in self._storage.files(name) if file.endswith(".json") and file != _RUN]
        self.last = max((int(file.removesuffix(".json")) for file in names), default=0)
        self.delivered = int(self._read(_DELIVERED) or 0)
        self._known = {
            (metric, entry["step"])
            for number in range(1, self.last + 1)
            if (entry := self.entry(number))["kind"] == "metrics"
            for metric in entry["values"]
        }

    def begin(self, run_id: str, experiment_id: str) -> None:
        """Name the run that the entries are for."""
        self.run_id, self.experiment_id = run_id, experiment_id
        self._write(_RUN, json.dumps({"run_id": run_id, "experiment_id": experiment_id}))

    def append(self, kind: str, *, file: Path | None = None, **payload: Any) -> None:
        """Add an entry, with a file or a folder of files."""
        if kind == "metrics" and self._once:
            values = {
                name: value
                for name, value in payload["values"].items()
                if (name, payload["step"]) not in self._known
            }
            if not values:
                return
            self._known |= {(name, payload["step"]) for name in values}
            payload["values"] = values
        number = self.last + 1
        for path in _files(file):
            self._storage.put(join(self._folder, f"{number:06d}", path.name), path)
        self._write(f"{number:06d}.json", json.dumps({"kind": kind, **payload}))
        self.last = number

    def entry(self, number: int) -> dict[str, Any]:
        """Return an entry."""
        try:
            entry = json.loads(self._read(f"{number:06d}.json"))
            if not isinstance(entry["kind"], str):
                raise TypeError(entry["kind"])
        except (ValueError, KeyError, TypeError) as error:
            raise TrackingError(
                what_got_wanted(
                    join(self.address, f"{number:06d}.json"),
                    got=f"no entry ({type(error).__name__})",
                    wanted="one as it was written",
                    do="delete the journal; what is not yet in MLflow is then lost to it",
                )
            ) from None
        return dict(entry)

    @contextlib.contextmanager
    def files(self, number: int) -> Iterator[Path]:
        """Give a folder with an entry's files."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = join(self._folder, f"{number:06d}")
            for name in self._storage.files(folder):
                self._storage.get(join(folder, name), Path(temporary) / name)
            yield Path(temporary)

    def mark_delivered(self, number: int) -> None:
        """Note that the server has all entries up to this one."""
        self.delivered = number
        self._write(_DELIVERED, str(number))

    def delete(self) -> None:
        """Delete the journal: the server has all of it."""
        self._storage.delete(self._folder)

    def _read_run(self) -> tuple[str, str]:
        try:
            found = json.loads(self._read(_RUN) or "{}")
            return str(found.get("run_id", "")), str(found.get("experiment_id", ""))
        except (ValueError, AttributeError):
            return "", ""

    def _read(self, name: str) -> str:
        try:
            return self._storage.read(join(self._folder, name)).decode("utf-8", "replace")
        except StorageMissingError:
            return ""

    def _write(self, name: str, text: str) -> None:
        self._storage.write(join(self._folder, name), text.encode())


def _files(file: Path | None) -> list[Path]:
    if file is None:
        return []
    return sorted(path for path in file.iterdir() if path.is_file()) if file.is_dir() else [file]


class Delivery:
    """Sends a journal's entries in a thread of its own, until :meth:`close`.

    Attributes:
        refused: entries that the server will never take.
    """

    def __init__(self, journal: Journal) -> None:
        self.refused = 0
        self._journal = journal
        self._changed = threading.Condition()
        self._closing = self._stopped = self._is_away = False
        self._last_success = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tell that an entry was added."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> int:
        """Wait for what is left as long as it gets through, and return how many entries are left."""
        patience = float(os.environ.get(PATIENCE_VARIABLE, _PATIENCE))
        self._last_success = time.monotonic()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        while self._thread.is_alive() and time.monotonic() - self._last_success < patience:
            self._thread.join(0.1)
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        return self._journal.last - self._journal.delivered

    def _work(self) -> None:
        pause = _FIRST_PAUSE
        while (number := self._next()) is not None:
            try:
                deliver(self._journal, number)
            except _RefusedError as error:
                self.refused += 1
                warn(f"MLflow refuses entry {number} of {self._journal.address}: {error}")
            except Exception as error:
                self._note_away(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, timeout=pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if not self._mark(number):
                return
            pause = _FIRST_PAUSE

    def _next(self) -> int | None:
        """Return the next entry's number when there is one, None when there will be none."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._closing or self._journal.delivered < self._journal.last
            )
            if self._stopped or self._journal.delivered >= self._journal.last:
                return None
            return self._journal.delivered + 1

    def _mark(self, number: int) -> bool:
        try:
            self._journal.mark_delivered(number)
        except StorageError as error:
            warn(str(error))
            return False
        self._last_success = time.monotonic()
        if self._is_away:
            self._is_away = False
            say("MLflow takes entries again")
        return True

    def _note_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            line = (str(error).splitlines() or [type(error).__name__])[0][:200]
            warn(f"MLflow takes no entries ({line}); they wait in {self._journal.address}, and the step goes on")


class _RefusedError(Exception):
    """The server will not take an entry, however often it is sent."""


def deliver(journal: Journal, number: int) -> None:
    """Send one entry. Whatever is raised but :class:`_RefusedError` may pass."""
    from mlflow.exceptions import MlflowException

    run = MlflowRun(journal.run_id)
    entry = journal.entry(number)
    kind = entry.pop("kind")
    try:
        if kind in _PLAIN:
            _PLAIN[kind](run, **entry)
        else:
            with journal.files(number) as folder:
                _WITH_FILES[kind](run, folder, **entry)
    except MlflowException as error:
        if error.error_code in _REFUSED:
            raise _RefusedError(str(error).splitlines()[0][:300]) from None
        raise


def _send_file(run: MlflowRun, folder: Path, *, artifact_folder: str) -> None:
    for path in _files(folder):
        run.log_file(path, folder=artifact_folder)


def _send_model(run: MlflowRun, folder: Path) -> None:
    if not run.has_model():
        run.log_model(folder)


_PLAIN: dict[str, Callable[..., None]] = {
    "params": MlflowRun.log_params,
    "tags": MlflowRun.set_tags,
    "delete_tag": MlflowRun.delete_tag,
    "metrics": MlflowRun.log_metrics,
    "dataset": MlflowRun.log_dataset,
    "status": MlflowRun.end,
}
_WITH_FILES: dict[str, Callable[..., None]] = {"files": _send_file, "model": _send_model}


class JournalledRun(Run):
    """A run whose entries go through a journal; see the module.

    Args:
        journal: with its run named.
    """

    def __init__(self, journal: Journal) -> None:
        self.run_id = journal.run_id
        self._journal = journal
        self._delivery = Delivery(journal)

    @override
    def log_params(self, values: Mapping[str, Any], *, prefix: str) -> None:
        self._append("params", values=dict(values), prefix=prefix)

    @override
    def set_tags(self, values: Mapping[str, str]) -> None:
        self._append("tags", values=dict(values))

    @override
    def delete_tag(self, name: str) -> None:
        self._append("delete_tag", name=name)

    @override
    def log_metrics(self, values: Mapping[str, float], *, step: int = 0, at: int | None = None) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._append("metrics", values=finite, step=step, at=at or int(time.time() * 1000))

    @override
    def log_file(self, path: str | Path, *, folder: str = "") -> None:
        self._append("files", file=Path(path), artifact_folder=folder)

    @override
    def log_folder(self, path: str | Path, *, folder: str) -> None:
        self._append("files", file=Path(path), artifact_folder=folder)

    @override
    def log_dataset(self, *, name: str, digest: str, source: str, context: str, counts: list[int]) -> None:
        self._append("dataset", name=name, digest=digest, source=source, context=context, counts=counts)

    @override
    def log_model(self, model_folder: str | Path) -> None:
        self._append("model", file=Path(model_folder))

    @override
    def url(self) -> str:
        return run_url(self._journal.experiment_id, self.run_id) if self._journal.experiment_id else ""

    @override
    def end(self, status: str) -> None:
        self._append("status", status=status)

    @override
    def close(self) -> None:
        left = self._delivery.close()
        if left:
            warn(
                f"MLflow has not taken {left} entries; they wait in {self._journal.address}. Send them with "
                f"python -m affectflow.tracking_journal {self._journal.address.rpartition('/')[0]}"
            )
        elif not self._delivery.refused:
            with contextlib.suppress(StorageError):
                self._journal.delete()

    def _append(self, kind: str, **payload: Any) -> None:
        self._journal.append(kind, **payload)
        self._delivery.wake()


def deliver_all(place: str) -> tuple[int, int]:
    """Send what waits in all journals under a place.

    Returns:
        How many entries were sent, and how many still wait or were refused.
    """
    sent = left = 0
    for name in sorted(open_storage(place).folders()):
        if not name.startswith(PREFIX):
            continue
        journal = Journal(place, name)
        if not journal.run_id:
            continue
        before = journal.delivered
        delivery = Delivery(journal)
        waiting = delivery.close()
        sent += journal.delivered - before - delivery.refused
        left += waiting + delivery.refused
        if not waiting:
            journal.delete()
    return sent, left


def main() -> None:
    """Send what waits in the journals under a folder: ``python -m affectflow.tracking_journal DIR``."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        report_error("wanted one folder or s3:// address, that of --checkpoint-dir or of the step's outputs")
        raise SystemExit(2)
    try:
        sent, left = deliver_all(sys.argv[1])
    except AffectflowError as error:
        report_error(str(error))
        raise SystemExit(2) from None
    say(f"sent {sent} entries; {left} are left")
    raise SystemExit(2 if left else 0)


if __name__ == "__main__":
    main()
