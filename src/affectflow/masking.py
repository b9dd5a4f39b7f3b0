"""Keeps credentials out of what is printed, logged and tracked."""

import os
import re

MASK = "***"

#: Environment variables of these names hold secrets; those that end in _FILE or _PATH hold where one lies.
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY|API_?KEY|PRIVATE_KEY", re.IGNORECASE
)
_PLACE_NAME = re.compile(r"_(FILE|PATH|DIR|URL|URI)$", re.IGNORECASE)
#: Shorter values are words that stand everywhere.
_SHORTEST = 6

_PATTERNS = (
    # user:password@ or token@ in any address
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), f"{MASK}@"),
    # what signs a request: of presigned addresses, and of headers
    (re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s'\"]+", re.IGNORECASE), rf"\1{MASK}"),
    (
        re.compile(
            r"((?:authorization['\"]?\s*[:=]\s*['\"]?)?\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}", re.IGNORECASE
        ),
        rf"\1{MASK}",
    ),
)


def mask(text: str) -> str:
    """Return text with every credential replaced that the environment or an address in the text holds.

    Example:
        >>> mask("MLflow at https://me:pass-word@host/x: no answer")
        'MLflow at https://***@host/x: no answer'
    """
    for secret in _secrets():
        text = text.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _secrets() -> list[str]:
    """Return the secrets of the environment, the longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and _SECRET_NAME.search(name) and not _PLACE_NAME.search(name)
    }
    return sorted(found, key=len, reverse=True)
