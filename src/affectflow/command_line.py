"""Flags of commands: a bad one ends the command with one line and exit code 2."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from affectflow.errors import USER_ERROR
from affectflow.progress import report_error, set_verbosity


class OneLineParser(argparse.ArgumentParser):
    """Refuses bad flags in one line, unknown ones first, and names the flag that was probably meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:  # type: ignore[override]
        """Return the flags, as argparse does."""
        known = self._option_string_actions
        for word in sys.argv[1:] if args is None else args:
            flag = word.split("=")[0]
            if flag.startswith("--") and len(flag) > 2 and flag not in known:
                close = difflib.get_close_matches(flag, known, n=1)
                wanted = f"{close[0]} perhaps" if close else "one of its flags"
                self.error(f"unknown flag: got {flag}, wanted {wanted}")
        return super().parse_args(args)

    def error(self, message: str) -> NoReturn:
        """Print the message as one line and leave with exit code 2."""
        report_error(f"{message}; see {self.prog} --help")
        raise SystemExit(USER_ERROR)


def add_message_flags(parser: argparse.ArgumentParser) -> None:
    """Let the parser take ``--quiet`` and ``--verbose``; they act as soon as they are read."""
    group = parser.add_argument_group("messages").add_mutually_exclusive_group()
    group.add_argument("--quiet", action=_SetVerbosity, nargs=0, help="say nothing but warnings and errors")
    group.add_argument("--verbose", action=_SetVerbosity, nargs=0, help="say more: settings, times, tracebacks")


class _SetVerbosity(argparse.Action):
    """Sets the verbosity and leaves nothing among the parsed flags."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "dest": argparse.SUPPRESS, "default": argparse.SUPPRESS})

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        set_verbosity(quiet=option_string == "--quiet", verbose=option_string == "--verbose")
