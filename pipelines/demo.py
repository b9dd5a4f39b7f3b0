"""The demo: ``make demo`` trains a small model on drawn faces, or on your own, in a few minutes on two cores.

It runs the pipeline ``train_one`` with settings that fit a small machine: a small backbone from scratch, small
pictures, and as many validation and test faces as the rarest expression allows.
"""

from collections import Counter
from pathlib import Path

from affectflow.command_line import OneLineParser, add_message_flags
from affectflow.data.listing import list_faces
from affectflow.data.synthetic import class_counts
from affectflow.errors import USER_ERROR, AffectflowError, DataError, what_got_wanted
from affectflow.labels import EXPRESSIONS
from affectflow.progress import report_error, say
from pipelines.digests import add_digests
from pipelines.local import run_local, show_result

SYNTHETIC = "synthetic"
SYNTHETIC_IMAGES = 3000

#: Small, quick to train on two cores, and needs no weights.
BACKBONE = "resnet10t"
IMAGE_SIZE = 64
EPOCHS = 10
#: The last epochs of so short a training take half the learning rate.
HALVE_EVERY = 8

#: Of the rarest expression, half trains and a quarter each validates and tests; never more than the paper's 500.
_PAPER_PER_CLASS = 500


def main() -> int:
    """Run the demo and return the exit code."""
    parser = OneLineParser(prog="python -m pipelines.demo", description=__doc__)
    parser.add_argument(
        "--source", default=SYNTHETIC, help="folder or s3://bucket/prefix with your faces [default: drawn ones]"
    )
    parser.add_argument(
        "--layout", default="auto", help="auto, manual, automatic, npy, folder or csv [default: auto]"
    )
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for all that is made")
    add_message_flags(parser)
    flags = parser.parse_args()
    try:
        counts = count_faces(flags.source, flags.layout)
        per_class = choose_per_class(counts)
        say(
            f"{sum(counts.values()):,} faces; the rarest expression has {min(counts.values())}, too few for the "
            f"paper's 500 and 500 a class: {per_class} for validation and {per_class} for test"
            if per_class < _PAPER_PER_CLASS
            else f"{sum(counts.values()):,} faces, split as in the paper"
        )
        say(f"backbone {BACKBONE} from scratch at {IMAGE_SIZE} px, {EPOCHS} epochs: a demo, not the paper's model")
        parameters = add_digests(
            {
                "data_source": flags.source,
                "data_layout": flags.layout,
                "data_synthetic_images": SYNTHETIC_IMAGES,
                "split_val_per_class": per_class,
                "split_test_per_class": per_class,
                "train_backbone": BACKBONE,
                "train_image_size": IMAGE_SIZE,
                "train_epochs": EPOCHS,
                "train_halve_learning_rate_every": HALVE_EVERY,
                "train_learning_rate": 0.01,
                "train_checkpoint_dir": str(flags.work.absolute() / "checkpoints"),
            }
        )
        from pipelines.train_one import train_one

        show_result(run_local(train_one, parameters, work=flags.work, cache=True))
    except AffectflowError as error:
        report_error(str(error))
        return USER_ERROR
    return 0


def count_faces(source: str, layout: str) -> dict[str, int]:
    """Return the faces that a source lists, by expression."""
    if source == SYNTHETIC:
        return dict(zip(EXPRESSIONS, class_counts(SYNTHETIC_IMAGES), strict=True))
    listing = list_faces(source, layout)
    counts = Counter(face.expression for face in listing.faces)
    return {expression: counts[code] for code, expression in enumerate(EXPRESSIONS)}


def choose_per_class(counts: dict[str, int]) -> int:
    """Return how many faces of each expression validate, and how many test."""
    rarest = min(counts, key=lambda expression: counts[expression])
    if counts[rarest] < 4:
        raise DataError(
            what_got_wanted(
                f"faces of {rarest}",
                got=str(counts[rarest]),
                wanted="4 or more",
                do="add some, so that it can be trained, validated and tested",
            )
        )
    return min(counts[rarest] // 4, _PAPER_PER_CLASS)


if __name__ == "__main__":
    raise SystemExit(main())
