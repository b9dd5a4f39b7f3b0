"""Tables 5 and 6 of Ngo & Yoon 2020 (doi:10.3390/s20092639): what was published, and how it was trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from affectflow.errors import DataError, what_got_wanted

#: The columns of both tables, in their order, under this project's names.
PUBLISHED_METRICS = (
    "accuracy",
    "f1_macro",
    "cohen_kappa",
    "krippendorff_alpha",
    "average_precision",
    "roc_auc",
)

#: The five loss settings, in the order of the tables.
LOSSES = (
    "softmax",
    "center+softmax",
    "weighted_softmax",
    "center+weighted_softmax",
    "weighted_cluster+weighted_softmax",
)

#: Test samples behind each published figure: 500 of each of 8 expressions (Table 3).
PUBLISHED_TEST_SIZE = 4000


@dataclass(frozen=True)
class PublishedRow:
    """One of the 20 published models.

    Attributes:
        number: the paper's model number, 1 to 20; up to 10 in Table 5, then in Table 6.
        backbone: ``se_resnet50`` or ``resnet50``.
        pretrained: ``none``, ``vggface2`` or ``imagenet``.
        loss: one of :data:`LOSSES`.
        learning_rate: initial one of SGD (Section 4.3), halved every 10 epochs.
        batch_size: images a step (Section 4.3).
        frozen_stages: first stages that do not train: 3 when pre-trained, 0 from scratch.
        auxiliary_lambda: weight of the center (Eq. 3) or weighted-cluster (Eq. 5) part; None where there is none.
        percent: metric of :data:`PUBLISHED_METRICS` → value in %, as printed.
    """

    number: int
    backbone: str
    pretrained: str
    loss: str
    learning_rate: float
    batch_size: int
    frozen_stages: int
    auxiliary_lambda: float | None
    percent: Mapping[str, float]

    @property
    def table(self) -> int:
        """The paper's table, 5 or 6."""
        return 5 if self.number <= 10 else 6

    def value(self, metric: str) -> float | None:
        """Return a published metric as a share in [0, 1], None for one that was not published."""
        percent = self.percent.get(metric)
        return None if percent is None else percent / 100


# A block is a backbone and its pre-training; its rows follow LOSSES, their columns PUBLISHED_METRICS.
_BLOCKS = (
    (
        "se_resnet50",
        "none",
        (
            (50.65, 46.87, 43.60, 42.60, 62.87, 90.67),
            (46.07, 39.24, 38.37, 36.89, 55.96, 87.92),
            (56.37, 56.41, 50.14, 50.09, 62.27, 90.49),
            (56.90, 57.06, 50.74, 50.71, 62.24, 90.33),
            (56.27, 56.42, 50.03, 49.97, 61.57, 90.10),
        ),
    ),
    (
        "se_resnet50",
        "vggface2",
        (
            (52.22, 49.51, 45.40, 44.54, 63.27, 90.75),
            (47.08, 40.02, 39.51, 38.27, 54.91, 86.75),
            (59.72, 59.72, 53.97, 53.93, 66.47, 91.85),
            (59.60, 59.50, 53.83, 53.82, 65.35, 91.21),
            (60.70, 60.49, 55.09, 55.06, 66.55, 91.82),
        ),
    ),
    (
        "resnet50",
        "none",
        (
            (49.85, 46.67, 42.69, 41.46, 62.80, 90.63),
            (46.62, 39.96, 39.00, 37.67, 54.08, 86.26),
            (57.40, 57.33, 51.31, 51.23, 63.05, 90.82),
            (57.20, 57.08, 51.09, 51.06, 62.61, 90.50),
            (57.37, 57.40, 51.29, 51.24, 62.79, 90.52),
        ),
    ),
    (
        "resnet50",
        "imagenet",
        (
            (51.88, 48.89, 45.00, 44.10, 61.60, 90.22),
            (48.33, 44.00, 40.94, 39.80, 56.96, 87.89),
            (58.65, 58.59, 52.74, 52.71, 64.58, 91.17),
            (58.27, 58.07, 52.31, 52.24, 63.59, 90.54),
            (59.45, 59.42, 53.66, 53.66, 65.26, 91.51),
        ),
    ),
)


def _auxiliary_lambda(loss: str) -> float | None:
    if loss.startswith("center+"):
        return 0.5
    return 1.0 if loss.startswith("weighted_cluster+") else None


def _rows() -> dict[int, PublishedRow]:
    rows: dict[int, PublishedRow] = {}
    for backbone, pretrained, block in _BLOCKS:
        scratch = pretrained == "none"
        for loss, percents in zip(LOSSES, block, strict=True):
            number = len(rows) + 1
            rows[number] = PublishedRow(
                number=number,
                backbone=backbone,
                pretrained=pretrained,
                loss=loss,
                learning_rate=0.01 if scratch else 0.001,
                batch_size=30 if scratch else 36,
                frozen_stages=0 if scratch else 3,
                auxiliary_lambda=_auxiliary_lambda(loss),
                percent=MappingProxyType(dict(zip(PUBLISHED_METRICS, percents, strict=True))),
            )
    return rows


#: Model number → row.
PUBLISHED_ROWS: Mapping[int, PublishedRow] = MappingProxyType(_rows())


def published_row(number: int) -> PublishedRow:
    """Return a row of Tables 5 and 6 by its model number.

    Raises:
        DataError: there is no such row.

    Example:
        >>> published_row(10).loss, published_row(10).percent["accuracy"]
        ('weighted_cluster+weighted_softmax', 60.7)
    """
    if number not in PUBLISHED_ROWS:
        raise DataError(
            what_got_wanted(
                "row of Tables 5 and 6", got=str(number), wanted="1 to 20", do="name one of the paper's models"
            )
        )
    return PUBLISHED_ROWS[number]
