"""Show what the steps of a local run say, without what KFP says around it; all of it goes to a log file."""

import contextlib
import io
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from typing_extensions import override

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_STARTED = re.compile(r"Executing task '(?P<task>[^']+)'")
_STEP_BEGINS, _STEP_ENDS = "Streamed logs:", "finished with status"
#: KFP indents what a step prints by four spaces; the executor prefixes its own lines.
_STEP_LINE = re.compile(r"^    (?!\[KFP Executor)(?P<text>.*\S.*)$")
_ERROR = re.compile(r"^error: (?P<line>.*)$")
_FAILED_MODEL = re.compile(r"^failed: (?P<model>[^:]*)")


class StepOutput(io.TextIOBase):
    """Stands in for standard output while KFP runs a pipeline.

    Args:
        log: file for everything that is printed.

    Attributes:
        started: names of the tasks that were started; the others were done before.
        error_lines: the line of each step that failed, without ``error:``, in order.
        failed_models: those that a comparison calls failed.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.started: list[str] = []
        self.error_lines: list[str] = []
        self.failed_models: list[str] = []
        self._line = ""
        self._in_step = False
        self._in_executor_input = False

    def __enter__(self) -> Self:
        self._stream = self.log.open("w", encoding="utf-8")
        self._terminal = sys.stdout
        self._redirect = contextlib.redirect_stdout(self)
        self._redirect.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._redirect.__exit__(kind, error, trace)
        self._stream.close()

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, text: str) -> int:
        self._stream.write(_COLOURS.sub("", text))
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._show(_COLOURS.sub("", line))
        return len(text)

    def _show(self, line: str) -> None:
        if started := _STARTED.search(line):
            self.started.append(started["task"])
            self._print(f"── {started['task']}")
        elif _STEP_BEGINS in line:
            self._in_step = True
        elif _STEP_ENDS in line:
            self._in_step = False
        elif "Got executor_input:" in line:
            self._in_executor_input = True
        elif self._in_executor_input:
            self._in_executor_input = line != "    }"
        elif self._in_step and (step_line := _STEP_LINE.match(line)):
            self._show_step_line(step_line["text"])

    def _show_step_line(self, text: str) -> None:
        if failed := _ERROR.match(text):
            self.error_lines.append(failed["line"])
        elif model := _FAILED_MODEL.match(text):
            self.failed_models.append(model["model"])
        self._print(f"   {text}")

    def _print(self, line: str) -> None:
        self._terminal.write(line + "\n")
        self._terminal.flush()
