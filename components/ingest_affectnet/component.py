"""KFP interface of the step that turns face pictures into a checked dataset."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Markdown, Output

from components.images import image

#: Where each group of settings begins, for --help and the reference.
GROUPS = {
    "what is read": "source",
    "how faces are cut and stored": "face_size",
    "what is set aside": "max_quarantined",
    "how it runs": "seed",
}


@dsl.component(base_image=image("ingest_affectnet"), install_kfp_package=False)
def ingest_affectnet(
    source: str,
    faces: Output[Dataset],
    class_distribution: Output[HTML],
    contact_sheet: Output[HTML],
    quarantine_sheet: Output[HTML],
    summary: Output[Markdown],
    layout: str = "auto",
    synthetic_images: int = 1500,
    face_size: int = 256,
    margin: float = 0.1,
    image_format: str = "auto",
    jpeg_quality: int = 92,
    max_quarantined: float = 0.05,
    conflicting_labels: str = "keep",
    near_duplicate_distance: int = -1,
    seed: int = 0,
    workers: int = 0,
    checkpoint_dir: str = "",
    source_digest: str = "",
):
    """Read labelled face pictures, crop the faces, and write them as a checked dataset.

    Reads AffectNet's own folders, a table with paths and labels, or a folder per class, from a disk or from S3;
    rows of the codes 8-10 are counted and left out, and what cannot be used is set aside with its reason.
    Writes faces/: manifest.parquet (a row a face), images-NNNNN.arrow, quarantine.parquet, dataset.json.
    Counts and pages go to MLflow where MLFLOW_TRACKING_URI is set.
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.ingest_affectnet --source DIR --layout csv --output-dir out/ingest

    Args:
        source: Folder or s3://bucket/prefix with the pictures and their lists, or the word synthetic for drawn faces. S3's address is read from AWS_ENDPOINT_URL.
        layout: How the source is laid out: auto, manual, automatic, npy, folder or csv.
        synthetic_images: Number of faces to draw when the source is synthetic; 100 or more.
        face_size: Longest side of a stored face in pixels; smaller faces are not enlarged. 32 to 1024.
        margin: Added around the face box, as a share of its longer side; 0 to 1.
        image_format: How faces are stored: jpeg, png (without loss), or auto, which is png for faces below 96 pixels and jpeg for others.
        jpeg_quality: Quality of the stored JPEG files; 50 to 100.
        max_quarantined: Share of rows that may be set aside before the step stops; 0 to 1.
        conflicting_labels: What to do with faces of the same pixels and different labels: keep (they can only train), or drop into the quarantine.
        near_duplicate_distance: Faces whose 64-bit perceptual hashes differ in at most so many bits count as the same content and never stand in two splits; -1 to 8, -1 for exact duplicates alone. 2 is cautious.
        seed: Seed of the drawn faces; 0 or more.
        workers: Processes that decode, 0 to 256; 0 means one a core. The result does not depend on it.
        checkpoint_dir: Folder or s3://bucket/prefix where finished shards are kept, in a sub-folder of their own, until the dataset is whole, so that a stopped run goes on from them; empty for none.
        source_digest: Digest of the source's content, so that cached results follow it; set by the launcher.

    Returns:
        faces: Manifest, image shards, quarantine and counts.
        class_distribution: Faces by expression, as a chart.
        contact_sheet: A few faces of every expression, to look at.
        quarantine_sheet: A few of what was set aside, by reason, to look at.
        summary: What was kept, left out and set aside.
    """
    from affectflow.steps import run_step
    from components.ingest_affectnet.step import run

    run_step(
        run,
        source=source,
        layout=layout,
        synthetic_images=synthetic_images,
        face_size=face_size,
        margin=margin,
        image_format=image_format,
        jpeg_quality=jpeg_quality,
        max_quarantined=max_quarantined,
        conflicting_labels=conflicting_labels,
        near_duplicate_distance=near_duplicate_distance,
        seed=seed,
        workers=workers,
        checkpoint_dir=checkpoint_dir,
        source_digest=source_digest,
        faces=faces.path,
        class_distribution=class_distribution.path,
        contact_sheet=contact_sheet.path,
        quarantine_sheet=quarantine_sheet.path,
        summary=summary.path,
    )
