"""What every step does the same way: check its settings; end a user's error as one line and exit code 2."""

import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from affectflow.errors import (
    STOPPED,
    USER_ERROR,
    AffectflowError,
    SettingsError,
    StoppedError,
    what_got_wanted,
)
from affectflow.preflight import check_surroundings
from affectflow.progress import detail, report_error
from affectflow.shortage import shortage

Result = TypeVar("Result")
SettingsT = TypeVar("SettingsT", bound="StepSettings")


class StepSettings(BaseModel):
    """Base of a step's settings: types and ranges; defaults live in the component's signature."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def check_settings(model: type[SettingsT], **values: Any) -> SettingsT:
    """Return ``values`` as a checked settings object.

    Raises:
        SettingsError: one line for the first value that does not fit, naming its flag.
    """
    try:
        chosen = model(**values)
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
    detail(f"settings: {chosen.model_dump_json()}")
    return chosen


def run_step(run: Callable[..., Result], **arguments: Any) -> Result:
    """Check what lies around a step and call its ``run``; what the user can mend ends it with one line and code 2.

    A full disk and too little memory are such faults. Any other exception is our own fault: its traceback is
    printed, credentials masked, and the exit code is 1. SIGTERM after which a step can go on ends it with 143.
    Both the command line and KFP's executor come through here, so a step fails the same way in both.
    """
    start = time.monotonic()
    try:
        check_surroundings(arguments)
        result = run(**arguments)
    except AffectflowError as error:
        detail(traceback.format_exc())
        report_error(str(error))
        raise SystemExit(STOPPED if isinstance(error, StoppedError) else USER_ERROR) from None
    except Exception as error:
        if line := shortage(error):
            detail(traceback.format_exc())
            report_error(line)
            raise SystemExit(USER_ERROR) from None
        report_error(
            "a fault of affectflow itself; please report what follows\n" + traceback.format_exc().rstrip()
        )
        raise SystemExit(1) from None
    detail(f"done in {time.monotonic() - start:.1f} s")
    return result
