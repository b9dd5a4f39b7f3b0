"""2,000 damaged files: every reader accepts, quarantines or refuses in one line, quickly, in bounded memory.

``make test-faults`` runs 100,000 and more (``fuzz_run.py``). Faults that were found are tests of their own.
"""

import random
from pathlib import Path

import pytest
from fuzz_limits import limits
from fuzz_targets import Target, run_case, targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_pipeline import SmallPipeline

#: In all, over the readers.
CASES = 2000

NAMES = (
    "csv list",
    "AffectNet list",
    "npy annotation",
    "JPEG picture",
    "PNG picture",
    "BMP picture",
    "TIFF picture",
    "GIF picture",
    "WEBP picture",
    "PPM picture",
    "manifest.parquet, bytes",
    "manifest.parquet, cells",
    "quarantine.parquet, bytes",
    "quarantine.parquet, cells",
    "images-00000.arrow, bytes",
    "images-00000.arrow, cells",
    "splits.parquet, bytes",
    "splits.parquet, cells",
    "predictions.parquet, bytes",
    "predictions.parquet, cells",
    "history.parquet, bytes",
    "history.parquet, cells",
    "dataset.json",
    "splits.json",
    "class_weights.json",
    "model.json",
    "history.json",
    "predictions.json",
    "metrics.json",
    "tracking.json",
    "weights .safetensors",
    "weights .pth",
    "weights .pkl",
    "model.safetensors",
    "checkpoint, bytes",
    "checkpoint, entries",
    "ingest's kept shard",
    "ingest's record",
)


@pytest.fixture(scope="module")
def readers(pipeline: SmallPipeline) -> dict[str, Target]:
    found = targets(pipeline)
    assert tuple(found) == NAMES
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_accepted_or_refused_in_one_line(
    name: str, readers: dict[str, Target], fast_folder: Path
) -> None:
    target = readers[name]

    @settings(
        max_examples=-(-CASES // len(NAMES)),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**63))
    def read(seed: int) -> None:
        run_case(target, target.case(random.Random(seed)), fast_folder)

    with limits():
        read()


@pytest.mark.parametrize("name", NAMES)
def test_a_good_file_is_accepted(name: str, readers: dict[str, Target], fast_folder: Path) -> None:
    """Or else nothing behind the first check would be tested."""
    target = readers[name]
    assert run_case(target, target.seeds[0], fast_folder)


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None, database=None, derandomize=True)
def test_bytes_of_no_format_are_no_picture(data: bytes) -> None:
    from affectflow.data.crops import make_crop
    from affectflow.data.quarantine import FaceError

    with pytest.raises(FaceError):
        make_crop(data, None, face_size=32, margin=0, jpeg_quality=90)
