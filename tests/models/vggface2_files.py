"""Files in the very forms of the published VGGFace2 SE-ResNet-50 weights, with random values.

The names are written out from the network's plan (Stages 2–5 of 3, 4, 6 and 3 blocks), not from the mapping
that the tests are about.
"""

import struct

import numpy as np
import torch

BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
NORM = ("weight", "bias", "running_mean", "running_var")


def random_state(backbone, seed=0):
    """Random values for every entry: none of them at its start, so that a swapped pair shows."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in backbone.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif tensor.ndim == 1:
            state[name] = 0.5 + 0.1 * torch.randn(tensor.shape, generator=generator)
        else:
            state[name] = torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5
    return state


def caffe_names(classifier="classifier"):
    """Name in the ``dag`` and ``oxford`` files → timm's, 331 entries."""
    names = {"conv1_7x7_s2.weight": "layer0.conv1.weight"}
    names |= {f"conv1_7x7_s2_bn.{e}": f"layer0.bn1.{e}" for e in NORM}
    for stage, blocks in BLOCKS.items():
        for block in range(blocks):
            old, new = f"conv{stage}_{block + 1}", f"layer{stage - 1}.{block}"
            convs = [("1x1_reduce", "conv1", "bn1"), ("3x3", "conv2", "bn2"), ("1x1_increase", "conv3", "bn3")]
            if block == 0:
                convs.append(("1x1_proj", "downsample.0", "downsample.1"))
            for part, conv, norm in convs:
                names[f"{old}_{part}.weight"] = f"{new}.{conv}.weight"
                names |= {f"{old}_{part}_bn.{e}": f"{new}.{norm}.{e}" for e in NORM}
            for part, fc in (("1x1_down", "fc1"), ("1x1_up", "fc2")):
                names |= {f"{old}_{part}.{e}": f"{new}.se_module.{fc}.{e}" for e in ("weight", "bias")}
    return names | {f"{classifier}.{e}": f"last_linear.{e}" for e in ("weight", "bias")}


def numpy_names():
    """Name in the ``numpy-pickle`` file → timm's, 331 entries."""
    names = {"conv1.weight": "layer0.conv1.weight"} | {f"bn1.{e}": f"layer0.bn1.{e}" for e in NORM}
    for stage, blocks in BLOCKS.items():
        for block in range(blocks):
            at = f"layer{stage - 1}.{block}"
            for i in (1, 2, 3):
                names[f"{at}.conv{i}.weight"] = f"{at}.conv{i}.weight"
                names |= {f"{at}.bn{i}.{e}": f"{at}.bn{i}.{e}" for e in NORM}
            for old, new in (("conv4", "se_module.fc1"), ("conv5", "se_module.fc2")):
                names |= {f"{at}.{old}.{e}": f"{at}.{new}.{e}" for e in ("weight", "bias")}
        names[f"layer{stage - 1}.0.downsample.0.weight"] = f"layer{stage - 1}.0.downsample.0.weight"
        names |= {f"layer{stage - 1}.0.downsample.1.{e}": f"layer{stage - 1}.0.downsample.1.{e}" for e in NORM}
    return names | {f"fc.{e}": f"last_linear.{e}" for e in ("weight", "bias")}


def caffe_state(state, classifier="classifier"):
    """The entries of a ``dag`` or ``oxford`` file; its classifier is a 1×1 convolution."""
    entries = {old: state[new] for old, new in caffe_names(classifier).items()}
    entries[f"{classifier}.weight"] = entries[f"{classifier}.weight"][:, :, None, None]
    return entries


def numpy_state(state):
    return {old: state[new].numpy() for old, new in numpy_names().items()}


def python2_pickle(arrays):
    """The bytes that Python 2's pickle writes for ``{name: array}`` at protocol 2, text as 8-bit strings."""
    out = [b"\x80\x02}("]
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        out += [
            _text(name),
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _text("b") + b"\x87R",
            b"(K\x01(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t",
            b"cnumpy\ndtype\n" + _text(array.dtype.str[1:]) + b"K\x00K\x01\x87R",
            b"(K\x03" + _text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89" + _text(array.tobytes()) + b"tb",
        ]
    return b"".join([*out, b"u."])


def _text(value):
    data = value.encode() if isinstance(value, str) else value
    return b"T" + struct.pack("<i", len(data)) + data
