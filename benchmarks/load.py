"""Images a second that one core loads, beside ImageFolder with Pillow, on the same JPEG bytes.

Both sides decode, crop at random, resize to 224 px and flip; the peer's transforms also normalise, which ours
leaves to the device. Times are those of one core (no worker processes), so they do not depend on how many there
are.

    python -m benchmarks.load --json out.json [--quick]
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from affectflow.data.faces import Faces, decode_image
from affectflow.models import IMAGENET, Normalize
from affectflow.training.inputs import Inputs, open_inputs
from affectflow.training.loading import EpochBatches, TrainingFaces, loader
from benchmarks.measure import Report, cpu, in_turns, main, wall
from benchmarks.pictures import make_dataset

IMAGE_SIZE, BATCH_SIZE, SCALE_MIN = 224, 36, 0.7


def measure(report: Report) -> None:
    """Time all sides in turns."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="benchmark-load-") as folder:
        root = Path(folder)
        make_dataset(root, 6 * BATCH_SIZE if report.quick else 16 * BATCH_SIZE)
        inputs = open_inputs(root / "faces", root / "splits")
        normalise = Normalize(IMAGENET)
        faces, plain = inputs.faces, plain_loader(root / "folder")
        ours, uncropped = our_loader(inputs), our_loader(inputs, crops_on_device=True)
        images = len(plain) * BATCH_SIZE
        sides = {
            "plain": lambda: [target for _, target in plain],
            "ours": lambda: [target for _, target in ours],
            "ours_normalised": lambda: [normalise(pixels).shape for pixels, _ in ours],
            "ours_uncropped": lambda: [target for _, target in uncropped],
            "decoding": lambda: decode_all(faces, images),
        }
        seconds = in_turns({name: cpu(work) for name, work in sides.items()}, rounds=3 if report.quick else 7)
        workers = our_loader(inputs, workers=2)
        starts = in_turns({"start": wall(lambda: next(iter(workers)))}, rounds=3 if report.quick else 7)["start"]
    per_image = {
        name: [turn / (images if name in ("plain", "decoding") else len(ours) * BATCH_SIZE) for turn in turns]
        for name, turns in seconds.items()
    }
    rates = {name: 1 / sorted(turns)[len(turns) // 2] for name, turns in per_image.items()}
    report.figures["images_per_core_second"] = rates
    report.add_ratio(
        "crops_on_cpu",
        "decode, crop, flip on a core, beside ImageFolder",
        per_image["plain"],
        per_image["ours"],
        at_least=2.2,
        note=f"{rates['ours']:,.0f} beside {rates['plain']:,.0f} images/s a core",
    )
    report.add_ratio(
        "crops_and_norm_on_cpu",
        "the same with our normalisation on that core too",
        per_image["plain"],
        per_image["ours_normalised"],
        note=f"{rates['ours_normalised']:,.0f} images/s a core",
    )
    report.add_ratio(
        "crops_on_device",
        "decode on a core, crop, flip and norm left to the device, beside ImageFolder",
        per_image["plain"],
        per_image["ours_uncropped"],
        at_least=4.0,
        note=f"{rates['ours_uncropped']:,.0f} images/s a core",
    )
    report.add_ratio(
        "crops_on_device_of_decoding",
        "the same as a share of decoding alone",
        per_image["decoding"],
        per_image["ours_uncropped"],
        at_least=0.75,
        note=f"decoding alone {rates['decoding']:,.0f} images/s a core",
    )
    report.add(
        "epoch_start",
        "an epoch's first batch from new loading processes, two",
        sorted(starts)[len(starts) // 2],
        low=min(starts),
        high=max(starts),
        unit="s",
    )


def plain_loader(folder: Path) -> DataLoader:
    """Return the loader that one writes down with torchvision."""
    means, deviations = ([value / 255 for value in values] for values in (IMAGENET.mean, IMAGENET.std))
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(IMAGE_SIZE, scale=(SCALE_MIN, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(means, deviations),
        ]
    )
    return DataLoader(ImageFolder(str(folder), transform), BATCH_SIZE, shuffle=True, drop_last=True)


def our_loader(inputs: Inputs, *, crops_on_device: bool = False, workers: int = 0) -> DataLoader:
    """Return our loader of training faces; with 0 workers this process does their work."""
    train = inputs.splits["train"]
    dataset = TrainingFaces(
        inputs.faces,
        train.rows,
        train.target,
        image_size=IMAGE_SIZE,
        crop_scale_min=SCALE_MIN,
        seed=0,
        crops_on_device=crops_on_device,
    )
    order = EpochBatches(len(train), batch_size=BATCH_SIZE, seed=0)
    made = loader(dataset, workers=max(1, workers), batch_sampler=order)
    return made if workers else in_this_process(made)


def in_this_process(of_workers: DataLoader) -> DataLoader:
    """Return a loader of the same batches whose work is done here."""
    return DataLoader(of_workers.dataset, batch_sampler=of_workers.batch_sampler, collate_fn=of_workers.collate_fn)


def decode_all(faces: Faces, images: int) -> None:
    """Decode faces and do nothing with them."""
    for row in range(images):
        decode_image(faces.image_bytes(row % len(faces)))


if __name__ == "__main__":
    sys.exit(main("load", __doc__, measure))
