"""One measurement of a GPT-2 in PyTorch: tokens a second and peak memory of training steps.

Usage: torch_gpt.py VOCAB CONTEXT WIDTH LAYERS HEADS BATCH [OPTION=VALUE ...]
       torch_gpt.py rate f32|bf16      GFLOP/s of matrix products, of the faster library

    precision=f32|bf16      bf16: torch.autocast, weights and AdamW stay in f32
    micro=N                 samples of a forward and backward pass (default: the batch);
                            gradients add up over the batch
    attention=masked|added|private
                            masked: nanoGPT's, with masked_fill; added: the mask is added by
                            the product that makes the scores; private: the function of
                            PyTorch 1.13 that has no public name yet
    optimizer=single|foreach
    compiled=no|yes         yes: the forward pass through torch.jit.trace
    threads=N               default 2
    steps=N  warmup=N       default 5 and 2
    clock=wall|cpu          cpu: processor time of the process, for a machine that is not idle

A step is zero_grad, forward pass, loss, backward pass and AdamW. The data is made before the
clock starts, nothing is logged between steps and nothing is copied: the best case for PyTorch.
Prints the tokens a second by the median of the steps, and the peak of resident memory in MiB.
What has to be set before a process starts, gpt.sh sets.
"""
import math
import statistics
import sys
import time

import torch
from torch import nn
import torch.nn.functional as F

OPTIONS = {"precision": "f32", "micro": "0", "attention": "added", "optimizer": "foreach",
           "compiled": "no", "threads": "2", "steps": "5", "warmup": "2", "clock": "wall"}


class Attention(nn.Module):
    def __init__(self, context, width, heads, kind):
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.heads, self.each, self.kind = heads, width // heads, kind
        past = torch.ones(context, context).tril()
        self.register_buffer("past", (past == 0) if kind == "masked" else
                             torch.zeros(context, context).masked_fill(past == 0, -math.inf))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, self.each).transpose(1, 2)
                   for y in self.c_attn(x).split(d, dim=2))
        scale = 1 / math.sqrt(self.each)
        if self.kind == "private":
            y = torch._C._nn._scaled_dot_product_attention(q, k, v, None, 0.0, False, True)[0]
        elif self.kind == "added":
            q, k, v = (y.reshape(b * self.heads, t, self.each) for y in (q, k, v))
            past = self.past.to(q.dtype)
            scores = torch.baddbmm(past.expand(b * self.heads, t, t), q, k.transpose(1, 2),
                                   alpha=scale)
            y = (scores.softmax(-1).to(v.dtype) @ v).view(b, self.heads, t, self.each)
        else:
            scores = (q @ k.transpose(2, 3) * scale).masked_fill(self.past, -math.inf)
            y = scores.softmax(-1).to(v.dtype) @ v
        return self.c_proj(y.transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    def __init__(self, context, width, heads, kind):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(context, width, heads, kind)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, vocab, context, width, layers, heads, kind):
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(context, width)
        self.h = nn.ModuleList(Block(context, width, heads, kind) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        self.register_buffer("places", torch.arange(context))

    def forward(self, ids, goal):
        x = self.wte(ids) + self.wpe(self.places)
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), goal.view(-1))


def peak_memory():
    with open("/proc/self/status", encoding="ascii") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmHWM"))


def rate(precision):
    torch.set_num_threads(2)
    x, w, bias = torch.randn(2048, 1024), torch.randn(1024, 1024), torch.zeros(1024)
    if precision == "bf16":
        x, w = x.bfloat16(), w.bfloat16()
        products = [lambda: x @ w]
    else:
        a, b = x.to_mkldnn(), w.to_mkldnn()
        products = [lambda: x @ w, lambda: torch._C._nn.mkldnn_linear(a, b, bias)]
    seconds = []
    for product in products:
        for _ in range(200):
            start = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - start)
    return 2 * 2048 * 1024 * 1024 / min(seconds) * 1e-9


def main():
    if sys.argv[1:] in (["rate", "f32"], ["rate", "bf16"]):
        print(f"{rate(sys.argv[2]):.0f}")
        return
    numbers = [int(a) for a in sys.argv[1:7] if a.isdigit()]
    given = dict(a.partition("=")[::2] for a in sys.argv[7:])
    if len(numbers) != 6 or not given.keys() <= OPTIONS.keys():
        sys.exit(__doc__)
    options = {**OPTIONS, **given}
    vocab, context, width, layers, heads, batch = numbers
    micro = int(options["micro"]) or batch
    steps, warmup = int(options["steps"]), int(options["warmup"])
    torch.set_num_threads(int(options["threads"]))
    torch.manual_seed(1)
    model = Gpt(vocab, context, width, layers, heads, options["attention"])
    data = torch.randint(vocab, (4 * batch, context + 1))
    ids, goals = data[:, :-1].contiguous(), data[:, 1:].contiguous()
    forward = model
    if options["compiled"] == "yes":
        with torch.autocast("cpu", torch.bfloat16, options["precision"] == "bf16",
                            cache_enabled=False):
            forward = torch.jit.trace(model, (ids[:micro], goals[:micro]), check_trace=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95),
                                  weight_decay=0.1, foreach=options["optimizer"] == "foreach")

    def step(i):
        optimizer.zero_grad(set_to_none=True)
        for m in range(0, batch, micro):
            at = i % 4 * batch + m
            with torch.autocast("cpu", torch.bfloat16, options["precision"] == "bf16"):
                loss = forward(ids[at:at + micro], goals[at:at + micro])
            (loss if micro == batch else loss * (micro / batch)).backward()
        optimizer.step()

    clock = time.process_time if options["clock"] == "cpu" else time.perf_counter
    seconds = []
    for i in range(warmup + steps):
        start = clock()
        step(i)
        seconds.append(clock() - start)
    print(f"{batch * context / statistics.median(seconds[warmup:]):.1f} {peak_memory():.0f}")


main()
