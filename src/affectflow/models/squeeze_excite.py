"""The squeeze-and-excitation block with less traffic to memory than timm's: the same numbers to rounding."""

import torch
from timm.models.senet import SEResNetBottleneck
from torch import Tensor
from torch.nn import functional


class SqueezeExciteBottleneck(SEResNetBottleneck):  # type: ignore[misc]
    """timm's bottleneck of the Caffe SE-ResNets (Hu et al. 2018), with the same parameters and names.

    The gate and the sum with the shortcut are one pass over the feature map, and its mean is taken in the way that
    is fast on a CPU, forwards and backwards.

    Shape:
        (N, C_in, H, W) → (N, 4 · planes, H / stride, W / stride).
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's feature map."""
        residual = self.relu(self.bn1(self.conv1(images)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        shortcut = images if self.downsample is None else self.downsample(images)
        excite = self.se_module
        gate = excite.sigmoid(excite.fc2(excite.relu(excite.fc1(_mean_over_pixels(residual)))))
        # Without a backward pass, as in frozen stages, nothing needs the residual any more: no new memory.
        needed = any(part.requires_grad for part in (residual, gate, shortcut))
        reused = None if needed else residual
        output: Tensor = self.relu(torch.addcmul(shortcut, residual, gate, out=reused))
        return output


def _mean_over_pixels(features: Tensor) -> Tensor:
    """Return the mean over H and W, (N, C, 1, 1).

    On a CPU ``mean`` in bfloat16 goes through a float32 copy, and its backward pass makes a whole map in the other
    memory format, which is then added slowly. Pooling has neither fault forwards, a sum neither backwards.
    """
    if features.is_cpu and not features.requires_grad:
        return functional.avg_pool2d(features, features.shape[2:])
    return features.sum((2, 3), keepdim=True) / features.shape[2:].numel()
