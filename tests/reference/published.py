#!/usr/bin/python3
"""Exported weights in the models of Hugging Face's transformers.

usage: published.py gpt2|llama WORK REFERENCE.json SIZE=N ...
    WORK is what reference.sh prepared, SIZE=N the sizes it gave the model

The published model takes WORK/init.safetensors by its names, every one of them; its loss of the
first batch is the first of REFERENCE.json. Exit code 77: transformers or PyTorch is missing.
"""
import json
import os
import sys

try:
    import numpy
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
except ImportError as missing:
    print(missing)
    sys.exit(77)

from safetensors_file import read_safetensors

LIMIT = 1e-5


def published(name, vocab, context, width, layers, heads, inner=0, kv_heads=0):
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config(
            vocab_size=vocab, n_positions=context, n_embd=width, n_layer=layers, n_head=heads))
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab, max_position_embeddings=context, hidden_size=width,
        intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, rms_norm_eps=1e-5, rope_theta=10000.0))


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    name, work, reference = sys.argv[1:4]
    sizes = {k: int(v) for k, v in (a.split("=") for a in sys.argv[4:])}
    model = published(name, **sizes).eval()
    weights = read_safetensors(os.path.join(work, "init.safetensors"))
    module = model.transformer if name == "gpt2" else model  # the head of gpt2 is wte
    module.load_state_dict(weights, strict=True)
    ids, goal = (torch.from_numpy(numpy.load(os.path.join(work, i + ".npy"))[:32].astype("i8"))
                 for i in ("ids", "next"))
    with torch.no_grad():
        logits = model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), goal.flatten()).item()
    with open(reference, encoding="ascii") as f:
        want = json.load(f)["loss"][0]
    print(f"{name}: {len(weights)} tensors, loss {loss:.6f}, the reference {want:.6f}")
    sys.exit(0 if abs(loss - want) <= LIMIT * want else 1)


main()
