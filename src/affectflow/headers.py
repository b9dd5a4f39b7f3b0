"""The fields of artifacts' headers that other steps read, with their types; whole headers hold more."""

from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from affectflow.artifacts import HEADERS
from affectflow.errors import ArtifactError, what_got_wanted

HeaderT = TypeVar("HeaderT", bound="HeaderFields")


class HeaderFields(BaseModel):
    """Base of a header's fields: exact types, and further fields that are not looked at."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class NamedModel(HeaderFields):
    """What is said of a model wherever it is named."""

    row: int | None
    backbone: str
    pretrained: str
    loss: str
    seed: int
    settings: dict[str, Any]


class ServedModel(HeaderFields):
    """Of ``model.json``: how the network is fed."""

    image_size: Annotated[int, Field(ge=1, le=4096)]
    input_norm: dict[str, Any]


class _ModelInputs(HeaderFields):
    splits: str


class _Selection(HeaderFields):
    select: str


class ModelHeader(NamedModel, ServedModel):
    """Of ``model.json``, beside what builds the network again."""

    selected_epoch: int
    inputs: dict[str, str]
    cpu_threads: int | None = Field(default=None, ge=1, le=65_536)

    @model_validator(mode="after")
    def _check_inner(self) -> Self:
        _ModelInputs.model_validate(self.inputs)
        _Selection.model_validate(self.settings)
        return self


class _Interval(HeaderFields):
    value: float | None
    low: float | None
    high: float | None


class SplitScores(HeaderFields):
    """Of ``metrics.json``, for one split: every metric with its interval."""

    n: int
    per_class: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        from affectflow.metrics import METRICS

        for name in METRICS:
            _Interval.model_validate((self.model_extra or {}).get(name))
        return self


class MetricsHeader(HeaderFields):
    """Of ``metrics.json``."""

    model: NamedModel
    test_set_digest: str
    val: SplitScores
    test: SplitScores


def check_header(path: object, kind: str, header: dict[str, Any], fields: type[HeaderT]) -> HeaderT:
    """Return an artifact's header fields, checked.

    Args:
        path: the artifact's folder.
        kind: of the artifact.
        header: from :func:`affectflow.artifacts.open_artifact`.
        fields: what it must hold.

    Raises:
        ArtifactError: naming the first field that is not as it must be.
    """
    try:
        return fields.model_validate(header)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "a field"
        raise ArtifactError(
            what_got_wanted(
                f"{path}/{HEADERS[kind]}",
                got=f"{name} {first['input']!r}",
                wanted=first["msg"].removeprefix("Input should be "),
                do="run the step that writes it again, or pass the right path",
            )
        ) from None
