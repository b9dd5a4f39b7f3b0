"""A page of pictures with what a model says they show: one HTML file, by expression, the surest first."""

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from affectflow.html import Page, data_uri

#: Of each expression, so that a page of a large folder can still be opened.
SHOWN_AN_EXPRESSION = 200

#: Probabilities under each picture.
_NAMED = 3

_STYLE = """
.faces { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, 9rem); }
.faces figure { margin: 0; } .faces img { width: 7rem; height: 7rem; object-fit: contain; background: none; }
.faces figcaption { font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; color: var(--ink); }
.p { display: grid; grid-template-columns: 4.4rem 1fr 2.4rem; gap: .3rem; align-items: center; }
.p i { height: 8px; background: var(--bar); border-radius: 2px; } .p span:last-child { text-align: right; }
@media print { .faces figure { break-inside: avoid; } }
"""


def prediction_sheet(
    title: str,
    names: Sequence[str],
    probability: npt.NDArray[np.float64],
    classes: Sequence[str],
    *,
    picture: Callable[[int], bytes],
    note: str,
) -> str:
    """Return the page as HTML.

    Args:
        title: of the page.
        names: of the pictures, (N,).
        probability: (N, C).
        classes: names in the order of the columns, (C,).
        picture: position → small encoded picture.
        note: a sentence above the pictures.
    """
    page = Page(title, style=_STYLE)
    page.paragraph(note)
    page.paragraph("An expression that is displayed is weak evidence of what someone feels.")
    said = probability.argmax(axis=1)
    counts = np.bincount(said, minlength=len(classes)).tolist()
    page.bars(dict(zip(classes, counts, strict=True)), label="Pictures by the most probable expression")
    for code, name in enumerate(classes):
        within = np.flatnonzero(said == code)
        if not len(within):
            continue
        surest = within[np.argsort(-probability[within, code], kind="stable")][:SHOWN_AN_EXPRESSION]
        shown = "" if len(surest) == len(within) else f", the surest {len(surest)} shown"
        page.heading(f"{name} ({len(within):,}{shown})")
        faces = "".join(_figure(names[i], probability[i], classes, picture(int(i))) for i in surest)
        page.html(f'<div class="faces">{faces}</div>')
    return page.render()


def _figure(name: str, probability: npt.NDArray[np.float64], classes: Sequence[str], image: bytes) -> str:
    best = np.argsort(-probability, kind="stable")[:_NAMED]
    bars = "".join(
        f'<span class="p"><span>{escape(classes[code])}</span>'
        f'<i style="width:{100 * probability[code]:.0f}%"></i><span>{probability[code]:.0%}</span></span>'
        for code in best
    )
    alternative = f"{name}, said to be {classes[best[0]]}"
    return (
        f'<figure><img alt="{escape(alternative)}" src="{data_uri(image)}">'
        f"<figcaption>{escape(name)}{bars}</figcaption></figure>"
    )
