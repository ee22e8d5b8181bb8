"""The transformers of models/ as modules of PyTorch, at the sizes that reference.sh gives them.

Names and layouts of the parameters are those of Hugging Face's GPT2Model and LlamaForCausalLM
and of timm's VisionTransformer, which are those of the .mdl files. Attention is written out:
scores, mask, softmax, sum. What a loss is made of is in float32, also under autocast.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F


def attention(q, k, v, heads, kv_heads=None, causal=False, base=0):
    """q [batch, positions, heads * width], k and v [batch, positions, kv_heads * width]"""
    batch, t, size = q.shape
    width, kv_heads = size // heads, kv_heads or heads
    q = q.view(batch, t, heads, width).transpose(1, 2)
    k = k.view(batch, t, kv_heads, width).transpose(1, 2)
    v = v.view(batch, t, kv_heads, width).transpose(1, 2)
    if base:
        q, k = rotate(q, base), rotate(k, base)
    k = k.repeat_interleave(heads // kv_heads, 1)
    v = v.repeat_interleave(heads // kv_heads, 1)
    scores = q @ k.transpose(2, 3) / math.sqrt(width)
    if causal:
        later = torch.ones(t, t, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    y = scores.softmax(-1).to(v.dtype) @ v
    return y.transpose(1, 2).reshape(batch, t, size)


def rotate(x, base):
    """Rotary embedding: elements c and c + width / 2 turn by position * base^(-2 c / width)."""
    t, width = x.shape[-2:]
    speed = base ** (-2 * torch.arange(width // 2, dtype=torch.float64) / width)
    angle = torch.arange(t, dtype=torch.float64)[:, None] * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def token_loss(logits, goal):
    return F.cross_entropy(logits.float().flatten(0, 1), goal.flatten())


class Conv1d(nn.Module):
    """A linear layer that keeps its weight as [inputs, outputs]."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x):
        return F.linear(x, self.weight.T, self.bias)


class Gpt2Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.c_attn = Conv1d(width, 3 * width)
        self.c_proj = Conv1d(width, width)

    def forward(self, x):
        q, k, v = self.c_attn(x).chunk(3, -1)
        return self.c_proj(attention(q, k, v, self.heads, causal=True))


class Gpt2Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc = Conv1d(width, 4 * width)
        self.c_proj = Conv1d(4 * width, width)

    def forward(self, x):
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Gpt2Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Gpt2Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Gpt2Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    def __init__(self, vocab=211, context=32, width=64, layers=3, heads=4):
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(context, width)
        self.h = nn.ModuleList(Gpt2Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def features(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

    def forward(self, ids, goal):
        return token_loss(F.linear(self.features(ids), self.wte.weight), goal)


class Nanogpt(Gpt2):
    """Its head has a weight of its own."""

    def __init__(self):
        super().__init__(vocab=256, context=64, width=64, layers=4, heads=4)
        self.lm_head = nn.Linear(64, 256, bias=False)

    def forward(self, ids, goal):
        return token_loss(self.lm_head(self.features(ids)), goal)


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.weight


class LlamaAttention(nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width // heads * kv_heads, bias=False)
        self.v_proj = nn.Linear(width, width // heads * kv_heads, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x):
        return self.o_proj(attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads,
                                     self.kv_heads, causal=True, base=10000.0))


class Swiglu(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    def __init__(self, width, inner, heads, kv_heads):
        super().__init__()
        self.input_layernorm = RmsNorm(width)
        self.self_attn = LlamaAttention(width, heads, kv_heads)
        self.post_attention_layernorm = RmsNorm(width)
        self.mlp = Swiglu(width, inner)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, vocab=211, width=64, inner=160, layers=3, heads=4, kv_heads=2):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(vocab, width)
        self.model.layers = nn.ModuleList(LlamaLayer(width, inner, heads, kv_heads)
                                          for _ in range(layers))
        self.model.norm = RmsNorm(width)
        self.lm_head = nn.Linear(width, vocab, bias=False)

    def forward(self, ids, goal):
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x)
        return token_loss(self.lm_head(self.model.norm(x)), goal)


class VitBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.Module()
        self.attn.qkv = nn.Linear(width, 3 * width)
        self.attn.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, 4 * width)
        self.mlp.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = self.attn.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.attn.proj(attention(q, k, v, self.heads))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x)), approximate="tanh"))


class Vit(nn.Module):
    def __init__(self, side=28, patch=4, width=32, layers=3, heads=4):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(1, width, patch, stride=patch)
        self.pos_embed = nn.Parameter(torch.empty(1, (side // patch) ** 2, width))
        self.blocks = nn.ModuleList(VitBlock(width, heads) for _ in range(layers))
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 10)

    def forward(self, image, label):
        x = self.patch_embed.proj(image / 255 - 0.5).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.fc_norm(x.mean(1))).float(), label)
