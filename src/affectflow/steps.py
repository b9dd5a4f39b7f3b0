"""What every step does the same way: check its settings; end a user's error as one line and exit code 2."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from affectflow.errors import AffectflowError, SettingsError, what_got_wanted
from affectflow.preflight import check_surroundings

Result = TypeVar("Result")
SettingsT = TypeVar("SettingsT", bound="StepSettings")

USER_ERROR = 2


class StepSettings(BaseModel):
    """Base of a step's settings: types and ranges; defaults live in the component's signature."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def check_settings(model: type[SettingsT], **values: Any) -> SettingsT:
    """Return ``values`` as a checked settings object.

    Raises:
        SettingsError: one line for the first value that does not fit, naming its flag.
    """
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + "-".join(str(part) for part in first["loc"][:1]).replace("_", "-")
        wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise SettingsError(
            what_got_wanted(
                flag if first["loc"] else "settings",
                got=repr(first["input"]),
                wanted=wanted,
                do="see --help for what it may be",
            )
        ) from None


def run_step(run: Callable[..., Result], **arguments: Any) -> Result:
    """Check what lies around a step and call its ``run``; what the user can mend ends it with one line and code 2.

    Both the command line and KFP's executor come through here, so a step fails the same way in both.
    """
    try:
        check_surroundings(arguments)
        return run(**arguments)
    except AffectflowError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(USER_ERROR) from None
