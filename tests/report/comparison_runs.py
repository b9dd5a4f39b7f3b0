"""Runs to compare: small, seeded, with a known order of skill."""

import numpy as np

from affectflow.report import FAILED, PUBLISHED_ROWS, ScoredRun

SAMPLES = 320
IDS = [f"face-{number:04d}" for number in range(SAMPLES)]
TARGET = np.arange(SAMPLES) % 8
DIGEST = "d1" * 32


def history(epochs=3):
    epoch = np.arange(1, epochs + 1)
    return {
        "epoch": epoch,
        "train_loss": 2 / epoch,
        "val_loss": 2.2 / epoch,
        "val_accuracy": 0.5 - 0.3 / epoch,
        "val_uar": 0.4 - 0.3 / epoch,
        "cluster_state": ["active"] * epochs,
        "center.between": 10.0 * epoch,
        "center.within.neutral": np.full(epochs, np.nan),
        "center.within.sad": 1.0 * epoch,
        "center.within.happy": 2.0 * epoch,
    }


def probabilities(skill, seed):
    shared = np.random.default_rng(0).normal(size=(SAMPLES, 8))
    logits = shared + 0.3 * np.random.default_rng(seed + 1).normal(size=(SAMPLES, 8))
    logits[np.arange(SAMPLES), TARGET] += skill
    shares = np.exp(logits)
    return shares / shares.sum(axis=1, keepdims=True)


def finished(number=10, *, skill=1.0, seed=0, name=None, loss=None, **changes):
    row = PUBLISHED_ROWS[number or 10]
    fields = {
        "name": name or f"{number} · seed {seed}",
        "number": number,
        "backbone": row.backbone,
        "pretrained": row.pretrained,
        "loss": loss or row.loss,
        "seed": seed,
        "settings": {"learning_rate": row.learning_rate, "seed": seed},
        "target": TARGET,
        "probability": probabilities(skill, seed),
        "image_ids": IDS,
        "groups": np.arange(SAMPLES) // 2,
        "test_set_digest": DIGEST,
        "history": history(),
        "run_id": f"run-{number}-{seed}",
    }
    return ScoredRun(**{**fields, **changes})


def failed(number=9, *, seed=0):
    row = PUBLISHED_ROWS[number]
    return ScoredRun(
        name=f"{number} · seed {seed}",
        number=number,
        backbone=row.backbone,
        pretrained=row.pretrained,
        loss=row.loss,
        seed=seed,
        status=FAILED,
        settings={"learning_rate": row.learning_rate},
        run_id="run-failed",
    )
