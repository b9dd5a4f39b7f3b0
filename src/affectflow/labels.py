"""AffectNet's expression codes, and the names under which other datasets know them."""

from types import MappingProxyType

from affectflow.errors import DataError, what_got_wanted

#: Names in code order: ``EXPRESSIONS[5] == "disgust"``. Only these eight are trained on.
EXPRESSIONS: tuple[str, ...] = (
    "neutral",
    "happy",
    "sad",
    "surprise",
    "fear",
    "disgust",
    "anger",
    "contempt",
)

#: AffectNet's other codes. Their rows are counted and left out, which is no fault of theirs.
EXCLUDED_EXPRESSIONS = MappingProxyType({8: "none", 9: "uncertain", 10: "no-face"})

NUM_EXPRESSIONS = len(EXPRESSIONS)

_SYNONYMS = {
    "neutrality": "neutral",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "afraid": "fear",
    "fearful": "fear",
    "disgusted": "disgust",
    "angry": "anger",
    "contemptuous": "contempt",
    "uncertainty": "uncertain",
    "no face": "no-face",
    "no_face": "no-face",
    "noface": "no-face",
    "nf": "no-face",
    "unknown": "uncertain",
}
_CODES = {name: code for code, name in enumerate(EXPRESSIONS)} | {
    name: code for code, name in EXCLUDED_EXPRESSIONS.items()
}


def expression_code(label: str | int | float) -> int:
    """Return AffectNet's code (0–10) for a code or a class name.

    Args:
        label: a code as a number or text (``3``, ``"3"``, ``"3.0"``), or a name in any case, the usual
            synonyms included (``"Happiness"`` is ``happy``). Alphabetical class order is never assumed.

    Raises:
        DataError: the label is neither one of the codes 0–10 nor a known name.

    Example:
        >>> expression_code("Happiness"), expression_code("5.0"), expression_code("none")
        (1, 5, 8)
    """
    text = str(label).strip().lower()
    name = _SYNONYMS.get(text, text)
    if name in _CODES:
        return _CODES[name]
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number in range(NUM_EXPRESSIONS + len(EXCLUDED_EXPRESSIONS)):
        return int(number)
    raise DataError(
        what_got_wanted(
            "label",
            got=repr(str(label)),
            wanted=f"a code from 0 to 10 or a name such as {', '.join(EXPRESSIONS)}",
            do="map this label to one of them in the list, or remove its rows",
        )
    )
