"""Models as files, and the script that anybody would write to run one with IREE and compare.

`scripts/bench plain` runs `iree-pilot run` against it: the same file, export, flags and compiler.
"""

from __future__ import annotations

from pathlib import Path

_IMAGE = "1, 3, 64, 64"
#: The model's constructor, what it is imported from, and the shape of its input; none of them has
#: an operation that has to be decomposed for IREE, which a plain script could not get past.
_MODELS = {
    "resnet10t": ("timm", "timm.create_model('resnet10t')", _IMAGE),
    "mobilenetv3_small_050": ("timm", "timm.create_model('mobilenetv3_small_050')", _IMAGE),
    "efficientnet_b0": ("timm", "timm.create_model('efficientnet_b0')", _IMAGE),
    "vit_tiny_patch16_224": (
        "timm",
        "timm.create_model('vit_tiny_patch16_224', img_size=64)",
        _IMAGE,
    ),
    "convnext_atto": ("timm", "timm.create_model('convnext_atto')", _IMAGE),
    "mixer_s32_224": ("timm", "timm.create_model('mixer_s32_224', img_size=64)", _IMAGE),
    "resnet18": ("torchvision.models", "torchvision.models.resnet18()", _IMAGE),
    "squeezenet1_1": ("torchvision.models", "torchvision.models.squeezenet1_1()", _IMAGE),
    "mobilenet_v2": ("torchvision.models", "torchvision.models.mobilenet_v2()", _IMAGE),
    "encoder": (
        "torch",
        "torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(64, 4, 128), 4)",
        "8, 1, 64",
    ),
}
MODELS = tuple(_MODELS)
_FILE = """
import {library}, torch

def model():
    torch.manual_seed(0)
    return {made}.eval()

def inputs():
    torch.manual_seed(1)
    return (torch.randn({shape}),)
"""
#: Arguments: the model's file, iree-compile, a directory, the flags of iree-compile.
SCRIPT = """
import importlib.util, pathlib, subprocess, sys

import iree.runtime
import numpy
import torch
from iree.turbine import aot

file, compiler, directory, *flags = sys.argv[1:]
spec = importlib.util.spec_from_file_location("net", file)
net = importlib.util.module_from_spec(spec)
spec.loader.exec_module(net)
model, inputs = net.model(), net.inputs()
place = pathlib.Path(directory)
aot.export(model, args=inputs).save_mlir(str(place / "net.mlir"))
subprocess.run([compiler, place / "net.mlir", *flags, "-o", place / "net.vmfb"], check=True)
module = iree.runtime.load_vm_flatbuffer_file(str(place / "net.vmfb"), driver="local-task")
found = module.main(*(value.numpy() for value in inputs)).to_host()
with torch.no_grad():
    wanted = model(*inputs).numpy()
assert numpy.allclose(found, wanted, rtol=1e-3, atol=1e-4)
"""


def written(place: Path, name: str) -> Path:
    """The file of a model, written into a directory."""
    library, made, shape = _MODELS[name]
    file = place / f"{name}.py"
    file.write_text(_FILE.format(library=library, made=made, shape=shape))
    return file
