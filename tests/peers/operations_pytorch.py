"""Operations of transformer blocks in PyTorch, for `cpu.py`: what `tintype bench operations` measures, under the same
names. Needs torch 2.4 or later."""

import math

import torch
import torch.nn.functional as F

from lines import Line

# Tokens, width, heads, width of the feed-forward network, and the side of the neighborhood where there is one.
NETWORKS = {
    "lightningdit-xl-1": (256, 1152, 16, 3072, None),
    "sit-xl-1": (256, 1152, 16, 4608, None),
    "hdit-imagenet-128": (1024, 384, 6, 1152, 7),
}


class Neighborhood:
    """Attention of the tokens of a square image to the kernel x kernel tokens around each, the window shifted inward at
    the borders as NATTEN has it: bands of rows, each over the rows that it sees, with a mask. PyTorch has no operation
    for it; this takes a fraction of the time of gathering the keys."""

    ROWS = 8

    def __init__(self, side, kernel):
        start = (torch.arange(side) - kernel // 2).clamp(0, side - kernel)
        key = torch.arange(side)
        sees = (start[:, None] <= key) & (key < start[:, None] + kernel)  # [query, key] on one axis
        self.bands = []
        for top in range(0, side, self.ROWS):
            bottom = min(top + self.ROWS, side)
            first, last = int(start[top]), int(start[bottom - 1]) + kernel
            mask = sees[top:bottom, None, first:last, None] & sees[None, :, None, :]
            mask = mask.reshape((bottom - top) * side, (last - first) * side)
            self.bands.append((slice(top * side, bottom * side), slice(first * side, last * side), mask))

    def __call__(self, q, k, v, scale):
        bands = [
            F.scaled_dot_product_attention(q[:, :, rows], k[:, :, keys], v[:, :, keys], attn_mask=mask, scale=scale)
            for rows, keys, mask in self.bands
        ]
        return torch.cat(bands, 2)


def everywhere(q, k, v, scale):
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def attention(qkv, heads, scale, attend, prepare=None):
    """[B, N, 3 * D] → [B, N, D]"""
    b, n, _ = qkv.shape
    q, k, v = qkv.view(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4)  # [B, heads, N, d]
    if prepare is not None:
        q, k = prepare(q), prepare(k)
    return attend(q, k, v, scale).transpose(1, 2).reshape(b, n, -1)


def rotate_pairs(x, cos, sin):
    """LightningDiT's rotary embedding."""
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * cos + turned * sin


def cosine_rotary(heads, n, d):
    """HDiT's queries or keys, [B, heads, N, d]: of the length of the scale, and turned by their place in the image."""
    side, eighth = math.isqrt(n), d // 8
    scale = torch.full((heads, 1, 1), 10.0)
    centres = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), -1).view(n, 2)
    freqs = math.pi * 10 ** torch.linspace(0, 1, heads * eighth + 1)[:-1].view(eighth, heads).T  # [heads, d / 8]

    def prepare(x):
        x = x * (scale.sqrt() * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6))
        angles = (grid[:, :, None] * freqs[:, None, None, :]).flatten(2)  # [heads, N, d / 4]
        cos, sin = angles.cos(), angles.sin()
        a, b, rest = x[..., : d // 4], x[..., d // 4 : d // 2], x[..., d // 2 :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)

    return prepare


def lines(_what, network, batch):
    n, d, heads, inner, kernel = NETWORKS[network]
    head, found = d // heads, []

    def add(name, call):
        found.append(Line(f"{name} {batch}", lambda: call))

    def forward(name, call):
        add(name, torch.inference_mode()(call))

    def product(name, into, out):
        x, w, bias = torch.randn(batch, n, into), torch.randn(out, into), torch.randn(out)
        forward(name, lambda: F.linear(x, w, bias))

        def gradient():
            leaves = x.detach().requires_grad_(), w.detach().requires_grad_()
            torch.autograd.grad(F.linear(*leaves).sum(), leaves)

        add(f"{name} and its gradient", gradient)

    product("linear qkv", d, 3 * d)
    product("linear out", inner, d)

    x, qkv, condition = torch.randn(batch, n, d), torch.randn(batch, n, 3 * d), torch.randn(batch, 1, d)
    w1, b1, w2, b2 = torch.randn(inner, d), torch.randn(inner), torch.randn(d, inner), torch.randn(d)
    w12, b12 = torch.randn(2 * inner, d), torch.randn(2 * inner)

    def fc1():
        return F.gelu(F.linear(x, w1, b1), approximate="tanh")

    forward("linear and gelu", fc1)
    forward("gelu mlp", lambda: F.linear(fc1(), w2, b2))

    attend = everywhere if kernel is None else Neighborhood(math.isqrt(n), kernel)
    forward("attention", lambda: attention(qkv, heads, head**-0.5, attend))

    def attention_gradient():
        leaf = qkv.detach().requires_grad_()
        torch.autograd.grad(attention(leaf, heads, head**-0.5, attend).sum(), leaf)

    add("attention and its gradient", attention_gradient)

    frequencies = 10000 ** (-torch.arange(0, head, 2) / head)
    angles = (torch.arange(n)[:, None] * frequencies).repeat_interleave(2, -1)  # [N, head]
    cos, sin = angles.cos(), angles.sin()
    pairs = lambda x: rotate_pairs(x, cos, sin)
    if network.startswith("lightningdit"):
        forward("attention, prepared", lambda: attention(qkv, heads, head**-0.5, attend, pairs))
    if network.startswith("hdit"):
        prepare = cosine_rotary(heads, n, head)
        forward("attention, prepared", lambda: attention(qkv, heads, 1.0, attend, prepare))
    split = torch.randn(batch, heads, n, head)
    forward("rope", lambda: (pairs(split), pairs(split)))

    scores = torch.randn(batch, heads, n, n if kernel is None else kernel**2)
    forward("softmax", lambda: scores.softmax(-1))
    modulated = lambda y: torch.addcmul(condition, y, 1 + condition)
    forward("layer norm, modulated", lambda: modulated(F.layer_norm(x, (d,), eps=1e-6)))
    forward("rms norm, modulated", lambda: modulated(F.rms_norm(x, (d,), eps=1e-6)))
    forward("gated residual", lambda: torch.addcmul(x, condition, x))

    def swiglu(x):
        a, b = x.chunk(2, -1)
        return F.silu(a) * b

    def geglu(x):
        a, b = x.chunk(2, -1)
        return a * F.gelu(b)

    wide = torch.randn(batch, n, 2 * inner)
    for name, gate in (("swiglu", swiglu), ("geglu", geglu)):
        forward(name, lambda gate=gate: gate(wide))
        forward(f"{name} mlp", lambda gate=gate: F.linear(gate(F.linear(x, w12, b12)), w2, b2))
    return found
