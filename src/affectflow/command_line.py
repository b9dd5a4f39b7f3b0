"""Flags of commands: a bad one ends the command with one line and exit code 2."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from affectflow.steps import USER_ERROR


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
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)  # noqa: T201
        raise SystemExit(USER_ERROR)
