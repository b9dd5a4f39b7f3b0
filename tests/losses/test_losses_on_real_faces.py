"""The recipe of Section 4.3 on real faces: every setting on the head alone, collapse when stages 4 and 5 train."""

import copy
import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from affectflow.labels import expression_code
from affectflow.losses import LOSSES, ClassStatistics, build_loss, center_diagnostics, cluster_state
from affectflow.models import (
    IMAGENET,
    ExpressionModel,
    create_backbone,
    load_pretrained,
    merge_backbone_args,
    normalize_batch,
)

SIDE, FACES_A_CLASS = 96, 36
FROZEN_STAGES = 3  # as in the paper


@pytest.fixture(scope="module")
def images():
    """A VGGFace2 network, up to 36 faces a class, their targets, and class weights N_min / N_j."""
    data = os.environ.get("AFFECTFLOW_TEST_DATA")
    if not data:
        pytest.skip("AFFECTFLOW_TEST_DATA names no folder of real test data")
    file = Path(data) / "weights" / "vggface2_mobilenetv1_100.safetensors"
    backbone = create_backbone("mobilenetv1_100", merge_backbone_args(file, "mobilenetv1_100", {})).eval()
    load_pretrained(backbone, file, "mobilenetv1_100")
    with (Path(data) / "ferplus" / "labels.csv").open() as stream:
        rows = [(row["path"], expression_code(row["label"])) for row in csv.DictReader(stream)]
    counts = np.bincount([code for _, code in rows], minlength=8)
    chosen = [row for j in range(8) for row in [r for r in rows if r[1] == j][:FACES_A_CLASS]]
    images = torch.stack([_read(Path(data) / "ferplus" / path) for path, _ in chosen])
    weights = torch.tensor(counts.min() / counts, dtype=torch.float32)
    return backbone, images, torch.tensor([code for _, code in chosen]), weights


@pytest.fixture(scope="module")
def faces(images):
    """Features of the frozen network, targets and class weights."""
    backbone, pixels, target, weights = images
    with torch.no_grad():
        features = torch.cat([backbone(normalize_batch(part, IMAGENET)) for part in pixels.split(32)])
    return features, target, weights


def _read(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB").resize((SIDE, SIDE)))).permute(2, 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("init", ["normal", "zeros", "class_means"])
@pytest.mark.parametrize("update", ["paper", "gradient"])
@pytest.mark.parametrize("name", LOSSES)
def test_200_steps_on_real_faces_stay_finite_and_learn(faces, name, update, init):
    features, target, weights = faces
    torch.manual_seed(0)
    model = ExpressionModel(create_backbone("mobilenetv1_100"))
    model.backbone = torch.nn.Identity()
    loss = build_loss(
        name, class_weights=weights, num_classes=8, feature_dim=512, center_update=update, center_init=init
    )
    if loss.needs_class_means:
        statistics = ClassStatistics(8, 512)
        statistics.update(model(features)[1], target)
        loss.set_centers(statistics.means)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    totals = []
    for _ in range(200):
        batch = torch.randint(0, len(target), (36,))
        logits, seen = model(features[batch])
        value = loss(logits, seen, target[batch])
        optimizer.zero_grad()
        value.total.backward()
        optimizer.step()
        loss.step_centers(seen, target[batch])
        totals.append(value.total.detach())
    totals = torch.stack(totals)
    assert totals.isfinite().all()
    assert totals[-20:].mean() < totals[:20].mean()


class LastStages(nn.Module):
    """Stages 4 and 5 with the head, fed with what the frozen stages give."""

    def __init__(self, model):
        super().__init__()
        self.model = model.eval()  # the BatchNorm of these weights is folded
        self.blocks = model.backbone.blocks[FROZEN_STAGES:]
        self.add = nn.ModuleList([model.feature, model.output])

    def forward(self, maps):
        features = self.model.backbone.forward_head(self.blocks(maps))
        features = self.model.activation(self.model.feature(features))
        return self.model.output(features), features


@pytest.mark.slow
@pytest.mark.parametrize("init", ["zeros", "normal"])
def test_with_trained_stages_zeros_collapse_on_real_faces_and_normal_centers_are_off(images, init):
    backbone, pixels, target, weights = images
    torch.manual_seed(0)
    model = ExpressionModel(copy.deepcopy(backbone))
    with torch.no_grad():
        stem = nn.Sequential(backbone.conv_stem, backbone.bn1, *backbone.blocks[:FROZEN_STAGES])
        maps = torch.cat([stem(normalize_batch(part, IMAGENET)) for part in pixels.split(32)])
    network = LastStages(model)
    loss = build_loss(
        "weighted_cluster+weighted_softmax",
        class_weights=weights,
        num_classes=8,
        feature_dim=512,
        center_init=init,
    )
    parameters = [*network.blocks.parameters(), *network.add.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=3e-3, momentum=0.9, weight_decay=5e-4)
    for _ in range(40):
        batch = torch.randint(0, len(target), (36,))
        logits, features = network(maps[batch])
        optimizer.zero_grad()
        loss(logits, features, target[batch]).total.backward()
        optimizer.step()
        loss.step_centers(features, target[batch])
    with torch.no_grad():
        logits, features = network(maps)
    statistics = ClassStatistics(8, 512)
    statistics.update(features, target)
    found = center_diagnostics(statistics, loss.auxiliary.centers)
    assert cluster_state(found) == {"zeros": "collapsed", "normal": "off"}[init]
    one_class = int(logits.argmax(dim=1).bincount().max()) == len(target)
    assert one_class == (init == "zeros")
    if init == "zeros":
        assert float(found["s_plus_alpha"].mean()) < 1.1  # S is gone
