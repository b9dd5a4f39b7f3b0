import pytest
import torch

from affectflow.errors import ArtifactError
from affectflow.models import IMAGENET, InputNorm, Normalize, normalize_batch

PIXELS = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_imagenet_is_the_usual_mean_and_deviation_of_pixels_from_0_to_1():
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    wanted = (PIXELS.double() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(normalize_batch(PIXELS, IMAGENET).double(), wanted, rtol=0, atol=1e-6)


def test_bgr_swaps_the_channels_before_the_mean_is_taken_off():
    norm = InputNorm((91.0, 103.0, 131.0), (1.0, 2.0, 4.0), bgr=True)
    found = normalize_batch(PIXELS, norm)
    assert torch.equal(found[:, 0], PIXELS[:, 2].float() - 91)
    assert torch.equal(found[:, 2], (PIXELS[:, 0].float() - 131) / 4)


def test_type_and_memory_format_are_those_asked_for():
    found = Normalize(IMAGENET, torch.bfloat16)(PIXELS.to(memory_format=torch.channels_last))
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_module_adds_nothing_to_a_state_dict():
    assert Normalize(IMAGENET).state_dict() == {}


@pytest.mark.parametrize("images", [PIXELS.float(), PIXELS[0], PIXELS[:, :1]])
def test_other_than_uint8_rgb_batches_are_refused(images):
    with pytest.raises(ValueError, match=r"images: got .*wanted \(N, 3, H, W\) uint8"):
        normalize_batch(images, IMAGENET)


def test_json_and_back_is_the_same():
    norm = InputNorm((91.4953, 103.8827, 131.0912), (1.0, 1.0, 1.0), bgr=True)
    assert InputNorm.from_json(norm.to_json()) == norm


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"mean": [1, 2], "std": [1, 1, 1], "bgr": False},
        {"mean": [1, 2, 3], "std": [1, 0, 1], "bgr": False},
        None,
    ],
)
def test_json_that_is_no_norm_is_refused(value):
    with pytest.raises(ArtifactError, match="input_norm: got"):
        InputNorm.from_json(value)
