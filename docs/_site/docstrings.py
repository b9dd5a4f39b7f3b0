"""Make the docstrings' own notation readable on the site: formulas become MathML, roles become code.

MathML is drawn by browsers themselves, so no script has to be fetched.
"""

import re

import griffe
from latex2mathml.converter import convert

_FORMULA = re.compile(r"^\.\. math::[ ]*(?P<first>.*)\n?(?P<more>(?:[ ]{3,}.*\n?)*)", re.MULTILINE)
_ROLE = re.compile(r":(?:func|class|meth|data|mod|attr|exc):`~?(?P<name>[^`]+)`")


class ReadableDocstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)


def readable(text: str) -> str:
    """Return a docstring's text with formulas as MathML and roles as code."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # griffe's own word for doctests
    text = _FORMULA.sub(lambda match: f"{_mathml(match['first'] + ' ' + match['more'])}\n\n", text)
    return _ROLE.sub(lambda match: f"`{match['name'].rpartition('.')[2]}`", text.replace("``", "`"))


def _mathml(formula: str) -> str:
    return str(convert(" ".join(formula.split()), display="block"))
