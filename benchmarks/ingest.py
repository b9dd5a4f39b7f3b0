"""Speed and memory of reading face pictures, beside a plain Pillow loop.

Pictures of 1,000 px with the spectrum of photographs are made here, with face boxes of 800 px. Both sides read the
same files from the same disk, in one run, in turns: ours through the whole of ``ingest`` (checks, digests, shards,
manifest), the loop with open, convert, crop, resize, save. Where memory counts, a case has processes of its own.

    python -m benchmarks.ingest --json out.json [--quick]
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from affectflow.data.class_weights import compute_class_weights
from affectflow.data.cropping import CropSettings, cut_faces
from affectflow.data.crops import Crop, decode_image
from affectflow.data.ingest import ingest
from affectflow.data.layouts.manual import COLUMNS, IMAGES, LIST_FILES, LISTS
from affectflow.data.listing import list_faces
from affectflow.data.quarantine import FaceError
from affectflow.data.split_policies import draw_splits
from affectflow.labels import EXPRESSIONS

SIDE, BOX, FACE, QUALITY = 1000, 800, 256, 92
PICTURES = 64
LIST_ROWS = 450_000

#: What is wanted of each figure: at least, or at most.
AT_LEAST = {"ratio_to_pillow": 2.0, "ratio_of_two_processes": 1.8}
AT_MOST = {
    "mean_absolute_difference": 3.0,
    "list_seconds": 20.0,
    "split_seconds": 5.0,
    "list_peak_bytes": 1.5e9,
    "memory_ratio_at_10_times": 1.1,
    "last_quarter_to_second": 1.15,
}


def main() -> int:
    """Run all cases, print them, write the JSON; exit code 1 when a figure misses what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="fewer pictures, to see that it runs: under a minute")
    parser.add_argument("--case", choices=("list", "images"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case = list_case if arguments.case == "list" else images_case
        print(json.dumps(case(arguments.folder)))
        return 0

    quick = arguments.quick
    with tempfile.TemporaryDirectory(prefix="benchmark-ingest-") as folder:
        root = Path(folder)
        figures: dict[str, Any] = {
            "machine": {"processor": _processor(), "cores": os.cpu_count()},
            "speed": speed_case(root, images=64 if quick else 256, rounds=2 if quick else 5),
            "processes": processes_case(root, images=512 if quick else 3072, rounds=1 if quick else 2),
            "memory": memory_case(root, images=100 if quick else 400),
        }
        write_long_list(root / "list", 20_000 if quick else LIST_ROWS)
        figures["list"] = in_own_process("list", root / "list")
    missed = [*_missed(figures)]
    figures["missed"] = missed
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return int(bool(missed) and not quick)


def speed_case(root: Path, *, images: int, rounds: int) -> dict[str, Any]:
    """Time one process of ours and the plain loop in turns, and compare their pixels."""
    source = write_source(root / "speed", images)
    paths = [f"{number % PICTURES}.jpg" for number in range(images)]
    ours, loop = Turns(), Turns()
    for turn in range(rounds + 1):
        with ours.turn():
            ingest_all(source, root / f"speed-ours-{turn}", workers=1)
        out = root / f"speed-loop-{turn}"
        out.mkdir()
        with loop.turn():
            for number, path in enumerate(paths):
                plain_pillow(source / IMAGES / "1" / path, _offset(number), out / f"{number}.jpg")
    return {
        "images": images,
        "rounds": rounds,
        "ours_images_per_core_second": images / ours.cpu_seconds,
        "pillow_images_per_core_second": images / loop.cpu_seconds,
        "ratio_to_pillow": loop.cpu_seconds / ours.cpu_seconds,
        "ratio_to_pillow_by_the_clock": loop.seconds / ours.seconds,
        "mean_absolute_difference": pixel_difference(source, root / "speed-loop-0"),
    }


class Turns:
    """Takes the times of one side's turns; the first fills caches and imports modules, and is left out."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._cpu: list[float] = []

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Time a turn."""
        seconds, cpu = time.perf_counter(), time.process_time()
        yield
        self._seconds.append(time.perf_counter() - seconds)
        self._cpu.append(time.process_time() - cpu)

    @property
    def seconds(self) -> float:
        """Median by the clock."""
        return float(np.median(self._seconds[1:]))

    @property
    def cpu_seconds(self) -> float:
        """Median of a core's time, which does not count what else the machine does."""
        return float(np.median(self._cpu[1:]))


def plain_pillow(path: Path, offset: int, out: Path) -> None:
    """Cut one face as one would write it down: open, convert, crop, resize with antialiasing, save."""
    with Image.open(path) as picture:
        face = picture.convert("RGB").crop((offset, offset, offset + BOX, offset + BOX))
    face.resize((FACE, FACE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=QUALITY)


def pixel_difference(source: Path, plain: Path) -> float:
    """Return the mean absolute difference of the faces that both sides stored, of 255."""
    listing = list_faces(source, "manual")
    differences = []
    for number, crop in enumerate(cut_faces(listing.source, listing.faces[:PICTURES], settings(), workers=1)):
        if isinstance(crop, FaceError):
            raise SystemExit(f"a picture of the benchmark cannot be used: {crop}")
        theirs = np.asarray(Image.open(plain / f"{number}.jpg")).astype(int)
        differences.append(np.abs(decode_image(crop.image).astype(int) - theirs).mean())
    return float(np.mean(differences))


def processes_case(root: Path, *, images: int, rounds: int) -> dict[str, Any]:
    """Time one and two processes in turns, without their start, which is paid once; see if time is linear."""
    source = write_source(root / "processes", images)
    quarters: dict[int, list[float]] = {1: [], 2: []}
    linear = []
    for turn in range(rounds):
        for workers in (1, 2):
            clock = Clock()
            ingest_all(source, root / f"processes-{workers}-{turn}", workers=workers, clock=clock)
            quarters[workers].append(clock.seconds_per_quarter)
            if workers == 1:
                linear.append(clock.last_quarter_to_second)
    one, two = (images / 4 / float(np.median(quarters[workers])) for workers in (1, 2))
    return {
        "images": images,
        "rounds": rounds,
        "one_images_per_second": one,
        "two_images_per_second": two,
        "ratio_of_two_processes": two / one,
        "last_quarter_to_second": float(np.median(linear)),
    }


class Clock:
    """Goes through results and takes the times at which quarters of them are done."""

    def __call__(self, results: Iterator[Crop | FaceError], total: int) -> Iterator[Crop | FaceError]:
        """Yield the results."""
        quarters = {total * quarter // 4 for quarter in (1, 2, 3, 4)}
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        for number, result in enumerate(results, start=1):
            if number in quarters:
                self.seconds.append(time.perf_counter())
                self.cpu_seconds.append(time.process_time())
            yield result

    @property
    def seconds_per_quarter(self) -> float:
        """Mean of the second to the last quarter: processes start in the first."""
        return (self.seconds[-1] - self.seconds[0]) / 3

    @property
    def last_quarter_to_second(self) -> float:
        """How much more of a core's time the last quarter took: 1 where time is linear in the number of faces."""
        _, *ends = self.cpu_seconds
        return (ends[-1] - ends[-2]) / (ends[0] - self.cpu_seconds[0])


def memory_case(root: Path, *, images: int) -> dict[str, Any]:
    """Ingest a source and one ten times as large, each in its own process, and compare their peaks."""
    sources = [write_source(root / f"memory-{number}", number) for number in (images, 10 * images)]
    small, large = (in_own_process("images", source) for source in sources)
    return {
        "images": [images, 10 * images],
        "peak_bytes": [small["peak_bytes"], large["peak_bytes"]],
        "memory_ratio_at_10_times": large["peak_bytes"] / small["peak_bytes"],
    }


def images_case(source: Path) -> dict[str, float]:
    """Ingest a source in this process and two others; return the sum of their peaks."""
    ingest_all(source, source / "out", workers=2)
    of_largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"peak_bytes": peak_bytes() + 2 * of_largest_child}


def list_case(source: Path) -> dict[str, Any]:
    """Read and check a long list, then split and weigh what it names, in this process."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    listing = list_faces(source, "manual")
    read, cpu_read = time.perf_counter(), time.process_time()
    groups = np.array([face.image_id for face in listing.faces])
    expression = np.array([face.expression for face in listing.faces])
    per_class = min(500, int(np.bincount(expression).min()) // 4)
    begun_split = time.perf_counter()
    split = draw_splits(groups, expression, val_per_class=per_class, test_per_class=per_class, seed=0)
    done = time.perf_counter()
    counts = np.bincount(expression[split == "train"], minlength=len(EXPRESSIONS)).tolist()
    compute_class_weights(dict(zip(EXPRESSIONS, counts, strict=True)))
    return {
        "rows": len(listing) + sum(listing.excluded.values()),
        "faces": len(listing.faces),
        "list_seconds": read - begun,
        "split_seconds": done - begun_split,
        "list_cpu_seconds": cpu_read - cpu_begun,
        "list_peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """Return the most memory that this process had; getrusage would count the process that started it as well."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def in_own_process(case: str, folder: Path) -> dict[str, Any]:
    """Run a case in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--case", case, "--folder", str(folder)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return figures


def ingest_all(source: Path, out: Path, *, workers: int, clock: Clock | None = None) -> None:
    """Run ours from the lists to the files of the artifact."""
    out.mkdir()
    listing = list_faces(source, "manual")
    ingest(listing, out, settings(), max_quarantined=0.0, workers=workers, progress=clock)


def settings() -> CropSettings:
    """Return what both sides do: no margin, so that the face is the box."""
    return CropSettings(face_size=FACE, margin=0.0, jpeg_quality=QUALITY)


def write_source(root: Path, images: int) -> Path:
    """Write pictures and lists in AffectNet's layout; rows share :data:`PICTURES` files with boxes that differ."""
    (root / IMAGES / "1").mkdir(parents=True)
    (root / LISTS).mkdir()
    for number in range(min(PICTURES, images)):
        (root / IMAGES / "1" / f"{number}.jpg").hardlink_to(picture(root.parent, number))
    rows = [
        f"1/{number % PICTURES}.jpg,{_offset(number)},{_offset(number)},{BOX},{BOX},,{number % 8},0.5,0.{number}"
        for number in range(images)
    ]
    _write_lists(root, rows[:-1], rows[-1:])
    return root


def write_long_list(root: Path, rows: int) -> None:
    """Write lists as long as AffectNet's, with landmarks, codes and values as there; no pictures."""
    (root / IMAGES).mkdir(parents=True)
    (root / LISTS).mkdir()
    random = np.random.default_rng(0)
    codes = random.choice(11, rows, p=np.array([75, 135, 26, 15, 7, 5, 25, 5, 33, 12, 83]) / 421).tolist()
    landmarks = [";".join(f"{value:.2f}" for value in random.uniform(0, 1000, 136)) for _ in range(100)]
    values = random.uniform(-1, 1, (rows, 2)).tolist()
    lines = (
        f"{row % 1000}/{row:056x}.jpg,134.0,134.0,899,899,{landmarks[row % 100]},{code},{val:.6f},{aro:.6f}"
        for row, (code, (val, aro)) in enumerate(zip(codes, values, strict=True))
    )
    _write_lists(root, itertools.islice(lines, rows - min(5500, rows // 10)), lines)


def _write_lists(root: Path, training: Iterable[str], validation: Iterable[str]) -> None:
    for name, first, rows in zip(LIST_FILES, ([",".join(COLUMNS)], []), (training, validation), strict=True):
        with (root / LISTS / name).open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in itertools.chain(first, rows))


def picture(folder: Path, seed: int) -> Path:
    """Return a file of 1,000 px of noise with the spectrum of photographs, and some grain; made once."""
    file = folder / f"picture-{seed}.jpg"
    if file.exists():
        return file
    random = np.random.default_rng(seed)
    total = random.normal(0, 2, (SIDE, SIDE, 3)).astype(np.float32)
    for octave in range(2, 9):
        cells = 2**octave
        for channel in range(3):
            field = Image.fromarray(random.normal(0, 160 / cells, (cells, cells)).astype(np.float32))
            total[..., channel] += np.asarray(field.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file


def _offset(number: int) -> int:
    return 60 + number % 97


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _missed(figures: dict[str, Any]) -> Iterator[str]:
    found = {name: value for case in figures.values() for name, value in case.items()}
    yield from (
        f"{name}: {found[name]:.3g}, wanted {bar:g} or more" for name, bar in AT_LEAST.items() if found[name] < bar
    )
    yield from (
        f"{name}: {found[name]:.3g}, wanted {bar:g} or less" for name, bar in AT_MOST.items() if found[name] > bar
    )


if __name__ == "__main__":
    sys.exit(main())
