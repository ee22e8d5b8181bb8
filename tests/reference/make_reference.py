#!/usr/bin/python3
"""Makes NAME.json: what PyTorch gives for the models of models/ and for operations.mdl.

usage: make_reference.py BIN WORK [NAME ...]
    BIN holds mdlc, reference_data and reference_compare, WORK is a directory to build in.

For every model, reference.sh prepares the trainer, its first weights and its data. Here
stands the same model as a torch.nn.Module; it starts from those weights, sees the same
batches in the same order and takes ten steps, in float32 on one thread. Written are the
loss of every step before its update and the norm of all gradients before clipping; those of
the transformers once more as they are under torch.autocast in bfloat16, for what it matters
there to compute in half precision.

The names and layouts of the modules' parameters are those of the .mdl file, so that
load_state_dict(strict=True) takes the exported file as it is. It does for every model here:
that is how the weights get in here.
"""
import gzip
import json
import math
import os
import subprocess
import sys

import numpy
import torch
from torch import nn
from torch.nn import functional as F

from safetensors_file import read_safetensors
from torch_transformers import Gpt2, Llama, Nanogpt, Vit

HERE = os.path.dirname(os.path.abspath(__file__))
FASHION = "/usr/share/datasets/fashion-mnist/train-"
STEPS = 10


def read_idx(path, header):
    with gzip.open(path) as f:
        return numpy.frombuffer(f.read(), numpy.uint8, offset=header)


class TwoGpu(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(1000, 500)
        self.layer2 = nn.Linear(500, 100)

    def forward(self, x, y):
        return F.cross_entropy(self.layer2(self.layer1(x)), y)


class DeepMlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(784, 1024)
        self.hidden = nn.ModuleList(nn.Linear(1024, 1024) for _ in range(16))
        self.logits = nn.Linear(1024, 10)

    def forward(self, x, y):
        h = torch.relu(self.first(x))
        for layer in self.hidden:
            h = torch.relu(layer(h))
        return F.cross_entropy(self.logits(h), y)


class Bias(nn.Module):
    """What a linear layer owns whose weight is another layer's."""

    def __init__(self, n):
        super().__init__()
        self.bias = nn.Parameter(torch.empty(n))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode1 = nn.Linear(784, 256)
        self.encode2 = nn.Linear(256, 32)
        self.decode2 = Bias(256)
        self.decode1 = Bias(784)

    def forward(self, x):
        z = self.encode2(torch.tanh(self.encode1(x)))
        h = torch.tanh(F.linear(z, self.encode2.weight.T, self.decode2.bias))
        out = torch.sigmoid(F.linear(h, self.encode1.weight.T, self.decode1.bias))
        return F.mse_loss(out, torch.sigmoid(x))


class Residual(nn.Module):
    def __init__(self, inputs, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(4, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(4, channels)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class SkipCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.down1 = Residual(16, 16)
        self.shrink = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(Residual(32, 32) for _ in range(2))
        self.down2 = Residual(32, 32)
        self.merge = nn.Conv2d(48, 32, 1)
        self.logits = nn.Linear(32, 10)

    def forward(self, image, label):
        a = self.down1(torch.relu(self.stem(image)))
        b = torch.relu(self.shrink(a))
        for layer in self.middle:
            b = layer(b)
        c = torch.cat([self.down2(b) + b, F.avg_pool2d(a, 2)], 1)
        c = torch.relu(self.merge(c)) + b
        return F.cross_entropy(self.logits(c.mean((2, 3))), label)


class Fashion(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.fc1 = nn.Linear(128 * 7 * 7, 128)
        self.logits = nn.Linear(128, 10)

    def forward(self, image, label):
        x = F.max_pool2d(torch.relu(self.conv1(image / 255 - 0.5)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.conv3(x)).flatten(1)
        return F.cross_entropy(self.logits(torch.relu(self.fc1(x))), label)


class Operations(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.gn = nn.GroupNorm(4, 8)
        self.wte = nn.Embedding(11, 8)
        self.wpe = nn.Parameter(torch.empty(6, 8))
        self.places = nn.Embedding(6, 8)
        self.ln = nn.LayerNorm(8, eps=1e-3)
        self.qk = nn.Linear(8, 16)
        self.out = nn.Module()
        self.out.weight = nn.Parameter(torch.empty(16, 8))
        self.rms = nn.Module()
        self.rms.weight = nn.Parameter(torch.empty(8))
        self.logits = nn.Linear(38, 10)

    def forward(self, image, words, label, goal):
        c = F.silu(self.c1(image))
        a = F.avg_pool2d(c, 3, stride=2)
        t = self.gn(F.max_pool2d(c, 3, stride=1, padding=1)).flatten(2).transpose(1, 2)
        e = self.wte(words) + self.wpe + self.places(torch.arange(6))
        q, k = self.qk(self.ln(e)).chunk(2, -1)
        near = torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ e
        far = torch.softmax(t @ q.transpose(1, 2), -1).transpose(1, 2) @ t
        rms = e / torch.sqrt((e * e).mean(-1, keepdim=True) + 1e-5) * self.rms.weight
        mix = F.gelu(torch.cat([near, far], -1) @ self.out.weight, approximate="tanh") + rms
        top, low, mid = mix.amax(1), mix.mean(1), mix[:, :, 2:5].sum(-1)
        features = torch.cat([top, torch.sigmoid(low), torch.tanh(mid), a.flatten(1)], 1)
        guess = mix @ self.wte.weight.T
        extra = (mid.abs() - torch.exp(-mid).sqrt() + torch.log(1 + torch.exp(mid))).mean()
        return (F.cross_entropy(self.logits(features), label)
                + F.cross_entropy(guess.flatten(0, 1), words.flatten()) / 2
                + F.mse_loss(mix, goal)
                + F.binary_cross_entropy_with_logits(mix, torch.sigmoid(goal)) + 0.1 * extra)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def sgd_momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)


def adamw_warming(parameters):
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)


def sgd_nesterov(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)


def adamw_decaying(lr, betas=(0.9, 0.999), decay=0.1):
    return lambda parameters: torch.optim.AdamW(parameters, lr, betas, weight_decay=decay)


def constant(step, lr):
    return lr


def cosine_warming(step, lr):
    """Of 50 steps of warm-up only ten are taken."""
    return lr * step / 50


def cosine(step, lr):
    """What reference.sh gives the transformers, so that ten steps see all of it."""
    if step <= 4:
        return lr * step / 4
    return 1e-4 + (lr - 1e-4) * (1 + math.cos(math.pi * (step - 5) / (STEPS - 4))) / 2


def linear(step, lr):
    return lr * step / 4 if step <= 4 else lr + (0.005 - lr) * (step - 5) / (STEPS - 4)


# module, batch, optimizer, learning rate of a step, clip_norm, inputs
MODELS = {
    "two_gpu": (TwoGpu, 64, sgd, constant, None, ["x", "y"]),
    "deep_mlp": (DeepMlp, 256, sgd_momentum, constant, None, ["x", "y"]),
    "autoencoder": (Autoencoder, 64, adam, constant, None, ["x"]),
    "skip_cnn": (SkipCnn, 32, adamw, constant, 1.0, ["image", "label"]),
    "fashion": (Fashion, 128, adamw_warming, cosine_warming, None, ["image", "label"]),
    "operations": (Operations, 16, sgd_nesterov, linear, 2.0, ["image", "words", "label", "goal"]),
    "gpt2": (Gpt2, 32, adamw_decaying(6e-4, (0.9, 0.95)), cosine, 1.0, ["ids", "next"]),
    "llama": (Llama, 32, adamw_decaying(5e-4, (0.9, 0.95)), cosine, 1.0, ["ids", "next"]),
    "nanogpt": (Nanogpt, 32, adamw_decaying(2e-3, (0.9, 0.99)), cosine, 1.0, ["text", "next"]),
    "vit": (Vit, 128, adamw_decaying(1e-3, decay=0.05), cosine, 1.0, ["image", "label"]),
}
HALF = ["gpt2", "llama", "nanogpt", "vit"]


def read_inputs(name, work, inputs, count):
    if name == "fashion":
        images = read_idx(FASHION + "images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
        arrays = [images.astype(numpy.float32), read_idx(FASHION + "labels-idx1-ubyte.gz", 8)]
    else:
        arrays = [numpy.load(os.path.join(work, i + ".npy")) for i in inputs]
    # classes are indices, which PyTorch wants in 64 bits
    return [torch.from_numpy(a[:count].astype(a.dtype if a.dtype == numpy.float32 else numpy.int64))
            for a in arrays]


def train(name, work, half=False):
    module, batch, optimizer, rate, clip, inputs = MODELS[name]
    data = read_inputs(name, work, inputs, STEPS * batch)
    model = module()
    model.load_state_dict(read_safetensors(os.path.join(work, "init.safetensors")), strict=True)
    update = optimizer(model.parameters())
    lr = update.param_groups[0]["lr"]
    losses, norms = [], []
    for step in range(STEPS):
        update.param_groups[0]["lr"] = rate(step + 1, lr)
        with torch.autocast("cpu", torch.bfloat16, half):
            loss = model(*(d[step * batch:(step + 1) * batch] for d in data))
        update.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
        update.step()
        losses.append(loss.item())
        norms.append(norm.item())
    return {"loss": losses, "grad_norm": norms}


def main():
    if len(sys.argv) < 3 or any(name not in MODELS for name in sys.argv[3:]):
        sys.exit(__doc__)
    binaries, work = sys.argv[1:3]
    torch.set_num_threads(1)
    for name in sys.argv[3:] or MODELS:
        place = os.path.join(work, name)
        model = os.path.join(HERE, name + ".mdl")
        if not os.path.exists(model):
            model = os.path.join(HERE, "..", "..", "models", name + ".mdl")
        script = os.path.join(HERE, "reference.sh")
        subprocess.run(["sh", script, "prepare", model, place, binaries], check=True)
        with open(os.path.join(HERE, name + ".json"), "w", encoding="ascii") as f:
            numbers = {"model": name, "torch": torch.__version__.split("+")[0],
                       **train(name, place)}
            if name in HALF:
                numbers["bf16"] = train(name, place, half=True)
            json.dump(numbers, f, indent=1)
            f.write("\n")
        print(name)


main()
