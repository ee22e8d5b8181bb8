"""Steps per second of the models of this benchmark in PyTorch, two threads.

Usage: torch_bench.py MODEL STEPS    MODEL: seed, cnn
The data is made before the clock starts, and nothing is logged between steps: the best case
for PyTorch. Prints the seconds of a step.
"""
import sys
import time

import torch
from torch import nn
import torch.nn.functional as F


class Seed(nn.Module):
    """models/two_gpu.mdl"""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(1000, 500)
        self.layer2 = nn.Linear(500, 100)

    def forward(self, x):
        return self.layer2(self.layer1(x))


class Cnn(nn.Module):
    """models/fashion.mdl"""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.fc1 = nn.Linear(128 * 7 * 7, 128)
        self.logits = nn.Linear(128, 10)

    def forward(self, x):
        x = x.float() / 255 - 0.5
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.logits(F.dropout(x, 0.25, self.training))


def main():
    name, steps = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(2)
    torch.manual_seed(1)
    if name == "seed":
        model = Seed()
        x, y = torch.randn(64 * 16, 1000), torch.randint(100, (64 * 16,))
        optimizer, batch = torch.optim.SGD(model.parameters(), lr=0.1), 64
    else:
        model = Cnn()
        x = torch.randint(256, (128 * 16, 1, 28, 28), dtype=torch.uint8)
        y = torch.randint(10, (128 * 16,))
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        batch = 128

    def step(i):
        at = i % 16 * batch
        loss = F.cross_entropy(model(x[at : at + batch]), y[at : at + batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    for i in range(steps // 10 + 2):
        step(i)
    start = time.perf_counter()
    for i in range(steps):
        step(i)
    print((time.perf_counter() - start) / steps)


main()
