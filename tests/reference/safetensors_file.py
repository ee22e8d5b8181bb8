"""Safetensors files of f32 tensors, as the trainer exports them."""
import json

import numpy
import torch


def read_safetensors(path):
    """A length, a JSON object of names, types, shapes and places, and the elements."""
    with open(path, "rb") as f:
        blob = f.read()
    length = int.from_bytes(blob[:8], "little")
    weights = {}
    for name, entry in json.loads(blob[8:8 + length]).items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", name
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        elements = numpy.frombuffer(blob[first:last], "<f4").reshape(entry["shape"])
        weights[name] = torch.from_numpy(elements.copy())
    return weights
