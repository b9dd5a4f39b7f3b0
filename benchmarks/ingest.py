"""Speed and memory of reading face pictures, beside a plain Pillow loop.

Pictures of 1,000 px with the spectrum of photographs are made here, with face boxes of 800 px. Both sides read the
same files from the same disk, in one run, in turns: ours through the whole of ``ingest`` (checks, digests, shards,
manifest), the loop with open, convert, crop, resize, save. Where memory counts, a case has processes of its own.

    python -m benchmarks.ingest --json out.json [--quick]
"""

import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
from benchmarks.measure import Report, cpu, in_turns, main, own_process, peak_bytes, wall
from benchmarks.pictures import photograph

SIDE, BOX, FACE, QUALITY = 1000, 800, 256, 92
PICTURES = 64
LIST_ROWS = 450_000


def measure(report: Report) -> None:
    """Run all cases."""
    quick = report.quick
    with tempfile.TemporaryDirectory(prefix="benchmark-ingest-") as folder:
        root = Path(folder)
        speed_case(report, root, images=64 if quick else 256, rounds=2 if quick else 5)
        processes_case(report, root, images=512 if quick else 3072, rounds=1 if quick else 5)
        memory_case(report, root, images=100 if quick else 400)
        long_list_case(report, root / "list", rows=20_000 if quick else LIST_ROWS)


def speed_case(report: Report, root: Path, *, images: int, rounds: int) -> None:
    """Time one process of ours and the plain loop in turns, on a core, and compare their pixels."""
    source = write_source(root / "speed", images)
    new = (root / f"speed-{number}" for number in itertools.count())

    def plain() -> None:
        plain_loop(source, next(new), images)

    plain()
    sides = {"ours": cpu(lambda: ingest_all(source, next(new), workers=1)), "plain": cpu(plain)}
    seconds = in_turns(sides, rounds=rounds)
    ours, theirs = (images / float(np.median(seconds[name])) for name in sides)
    report.figures["seconds"] = seconds
    report.add_ratio(
        "ratio_to_pillow",
        f"faces of {BOX} px from pictures of {SIDE} px, on a core, beside a plain Pillow loop",
        seconds["plain"],
        seconds["ours"],
        at_least=2.0,
        note=f"{ours:,.0f} beside {theirs:,.0f} faces/s a core",
    )
    report.add(
        "mean_absolute_difference",
        "mean difference of the faces' pixels from the loop's, of 255",
        pixel_difference(source, root / "speed-0"),
        unit="",
        at_most=3.0,
    )


def plain_pillow(path: Path, offset: int, out: Path) -> None:
    """Cut one face as one would write it down: open, convert, crop, resize with antialiasing, save."""
    with Image.open(path) as picture:
        face = picture.convert("RGB").crop((offset, offset, offset + BOX, offset + BOX))
    face.resize((FACE, FACE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=QUALITY)


def plain_loop(source: Path, out: Path, number: int) -> None:
    """Cut so many faces, one after the other."""
    out.mkdir(exist_ok=True)
    for face in range(number):
        plain_pillow(source / IMAGES / "1" / f"{face % PICTURES}.jpg", _offset(face), out / f"{face}.jpg")


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


def processes_case(report: Report, root: Path, *, images: int, rounds: int) -> None:
    """Time one and two processes in turns, without their start, which is paid once; see if time is linear.

    Beside them one and two plain loops that share nothing: more than these gain by the second no program can.
    """
    source = write_source(root / "processes", images)
    new = (root / f"processes-{number}" for number in itertools.count())
    linear: list[float] = []

    def a_quarter(workers: int) -> float:
        clock = Clock()
        ingest_all(source, next(new), workers=workers, clock=clock)
        if workers == 1:
            linear.append(clock.last_quarter_to_second)
        return clock.seconds_per_quarter

    def loops(number: int) -> None:
        jobs = [pool.submit(plain_loop, source, root / f"loop-{job}", images // 8) for job in range(number)]
        for job in jobs:
            job.result()

    with ProcessPoolExecutor(2) as pool:
        loops(2)  # the processes have started
        sides = {"one": lambda: a_quarter(1), "two": lambda: a_quarter(2)}
        sides |= {"one_loop": wall(lambda: loops(1)), "two_loops": wall(lambda: loops(2))}
        seconds = in_turns(sides, rounds=rounds, warm_up=False)
    one, two = (images / 4 / float(np.median(seconds[name])) for name in ("one", "two"))
    report.add_ratio(
        "ratio_of_two_loops",
        "two plain loops in processes that share nothing, beside one: what the machine gives",
        [2 * turn for turn in seconds["one_loop"]],
        seconds["two_loops"],
    )
    report.add_ratio(
        "ratio_of_two_processes",
        "two processes beside one, by the clock, without their start",
        seconds["one"],
        seconds["two"],
        at_least=1.8,
        note=f"{two:,.0f} beside {one:,.0f} faces/s",
    )
    report.add(
        "last_quarter_to_second",
        "time of the last quarter of a run over that of the second, on a core",
        np.median(linear),
        at_most=1.15,
    )


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


def memory_case(report: Report, root: Path, *, images: int) -> None:
    """Ingest a source and one ten times as large, each in its own process, and compare their peaks."""
    sources = [write_source(root / f"memory-{number}", number) for number in (images, 10 * images)]
    small, large = (own_process("benchmarks.ingest", "images", source)["peak_bytes"] for source in sources)
    report.add(
        "memory_ratio_at_10_times",
        f"peak memory of {10 * images:,} faces over that of {images:,}",
        large / small,
        at_most=1.1,
        note=f"{large / 1e6:,.0f} beside {small / 1e6:,.0f} MB over three processes",
    )


def images_case(source: str) -> dict[str, Any]:
    """Ingest a source in this process and two others; return the sum of their peaks."""
    ingest_all(Path(source), Path(source) / "out", workers=2)
    of_largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"peak_bytes": peak_bytes() + 2 * of_largest_child}


def long_list_case(report: Report, source: Path, *, rows: int) -> None:
    """Read lists as long as AffectNet's in a process of their own."""
    write_long_list(source, rows)
    found = own_process("benchmarks.ingest", "list", source)
    report.figures["list"] = found
    lists = f"lists of {rows:,} rows"
    report.add("list_seconds", f"read and check {lists}", found["list_seconds"], unit="s", at_most=20.0)
    report.add("split_seconds", f"split and weigh {lists}", found["split_seconds"], unit="s", at_most=5.0)
    gigabytes = found["list_peak_bytes"] / 1e9
    report.add("list_peak_bytes", f"peak memory of {lists}", gigabytes, unit="GB", at_most=1.5)


def list_case(folder: str) -> dict[str, Any]:
    """Read and check a long list, then split and weigh what it names, in this process."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    listing = list_faces(Path(folder), "manual")
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
    """Return a file of 1,000 px of noise that compresses as photographs do; made once."""
    file = folder / f"picture-{seed}.jpg"
    if file.exists():
        return file
    photograph(SIDE, seed).save(file, "JPEG", quality=90)
    return file


def _offset(number: int) -> int:
    return 60 + number % 97


if __name__ == "__main__":
    sys.exit(main("ingest", __doc__, measure, {"images": images_case, "list": list_case}))
