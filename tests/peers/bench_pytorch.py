"""PyTorch side of `tintype bench`: SiT-XL/1 (Hi-DiT's backbone) and the f16d32 decoder, random weights.

    python3 tests/peers/bench_pytorch.py --out pytorch.json [--device cuda] [--no-compile] [--small]
    tintype bench --network sit-xl-1 --compare pytorch.json

Needs torch. Measures what `tintype bench` measures, under the same names: forward passes in bfloat16
(float32 on a CPU), training steps (autocast, global-norm clipping, AdamW on float32 masters), decoding,
and a sampling run of 50 Euler-Maruyama steps with guidance and, below the gate, the pixel branch.
`--small` takes two blocks and small batches: to see that the script runs where there is no GPU.
"""

import argparse
import json
import math
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.attn = Attention(d, heads)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.ada = nn.Linear(d, 6 * d)

    def forward(self, x, c):
        s1, k1, g1, s2, k2, g2 = self.ada(c)[:, None].chunk(6, -1)
        shape = x.shape[-1:]
        x = x + g1 * self.attn(F.layer_norm(x, shape, eps=1e-6) * (1 + k1) + s1)
        h = F.layer_norm(x, shape, eps=1e-6) * (1 + k2) + s2
        return x + g2 * self.fc2(F.gelu(self.fc1(h), approximate="tanh"))


class HiDiT(nn.Module):
    """Latents, and where `pixels` are given, the pixel branch of Hi-DiT on top."""

    def __init__(self, depth=28, d=1152, heads=16, channels=32, side=16, classes=1000, patch=16):
        super().__init__()
        self.side, self.patch, self.channels = side, patch, channels
        self.embed, self.t1, self.t2 = nn.Linear(channels, d), nn.Linear(256, d), nn.Linear(d, d)
        self.classes = nn.Embedding(classes + 1, d)
        self.position = nn.Parameter(torch.randn(1, side * side, d) * 0.02)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.ada, self.head = nn.Linear(d, 2 * d), nn.Linear(d, channels)
        self.pixels = nn.Linear(3 * patch * patch, d)
        stages = int(math.log2(patch // 4))
        widths = [d // 4**i for i in range(stages + 1)]
        self.convs = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths[:-1])
        self.out = nn.Conv2d(widths[-1], 48, 1)

    def forward(self, z, t, y, image=None):
        b = z.shape[0]
        f = torch.exp(-math.log(10000.0) * torch.arange(128, device=z.device) / 128)
        angle = t.float()[:, None] * f
        features = torch.cat([angle.cos(), angle.sin()], 1).to(self.t1.weight.dtype)
        c = F.silu(self.t2(F.silu(self.t1(features))) + self.classes(y))
        h = self.embed(z.flatten(2).transpose(1, 2)) + self.position
        if image is not None:
            p, s = self.patch, self.side
            patches = image.view(b, 3, s, p, s, p).permute(0, 2, 4, 3, 5, 1).reshape(b, s * s, -1)
            h = h + self.pixels(patches)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.ada(c)[:, None].chunk(2, -1)
        h = F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift
        velocity = self.head(h).transpose(1, 2).reshape(b, self.channels, self.side, self.side)
        if image is None:
            return velocity
        x = h.transpose(1, 2).reshape(b, -1, self.side, self.side)
        for conv in self.convs:
            x = F.silu(F.pixel_shuffle(conv(x), 2))
        return velocity, F.pixel_shuffle(self.out(x), 4)


class Residual(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(32, a, eps=1e-6), nn.Conv2d(a, b, 3, padding=1)
        self.n2, self.c2 = nn.GroupNorm(32, b, eps=1e-6), nn.Conv2d(b, b, 3, padding=1)
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        h = self.c2(F.silu(self.n2(self.c1(F.silu(self.n1(x))))))
        return self.skip(x) + h


class Spatial(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm, self.qkv, self.out = nn.GroupNorm(32, c, eps=1e-6), nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x):
        q, k, v = (t.flatten(2).transpose(1, 2)[:, None] for t in self.qkv(self.norm(x)).chunk(3, 1))
        return x + self.out(F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape_as(x))


class Decoder(nn.Module):
    def __init__(self, z=32, ch=128, mult=(1, 1, 2, 2, 4)):
        super().__init__()
        c = ch * mult[-1]
        self.start = nn.Sequential(
            nn.Conv2d(z, z, 1), nn.Conv2d(z, c, 3, padding=1), Residual(c, c), Spatial(c), Residual(c, c)
        )
        levels = []
        for level in reversed(range(len(mult))):
            for _ in range(3):
                levels.append(Residual(c, ch * mult[level]))
                c = ch * mult[level]
                if level == len(mult) - 1:
                    levels.append(Spatial(c))
            if level:
                levels += [nn.Upsample(scale_factor=2), nn.Conv2d(c, c, 3, padding=1)]
        self.levels = nn.Sequential(*levels)
        self.norm, self.end = nn.GroupNorm(32, c, eps=1e-6), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, z):
        return self.end(F.silu(self.norm(self.levels(self.start(z)))))


def timed(call, device, rounds=7, warm_up=3, at_least=0.05):
    """Median, fastest and slowest seconds of a call."""
    def seconds(calls):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    once = [seconds(1) for _ in range(warm_up)][-1]
    calls = max(1, min(1000, math.ceil(at_least / once)))
    times = sorted(seconds(calls) for _ in range(rounds))
    return statistics.median(times), times[0], times[-1]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--no-compile", action="store_true")
    arguments.add_argument("--small", action="store_true")
    arguments.add_argument("--steps", type=int, default=50)
    args = arguments.parse_args()
    device, dtype = args.device, torch.bfloat16 if args.device == "cuda" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = True
    compiled = (lambda m: m) if args.no_compile else torch.compile
    size = dict(depth=2, d=128, heads=2) if args.small else {}
    batches, train_batches, many = ([1, 2], [2], 2) if args.small else ([1, 64], [64, 256], 64)
    results = []

    def add(name, count, call):
        median, fastest, slowest = timed(call, device)
        results.append(dict(name=name, rate=count / median, unit="images/s", seconds=median, spread=[fastest, slowest]))
        print(f"{name:<12} {1e3 * median:10.3f} ms  {count / median:10.2f} images/s", flush=True)

    def inputs(b, kind):
        z = torch.randn(b, 32, 16, 16, device=device, dtype=kind)
        return z, torch.rand(b, device=device), torch.randint(0, 1000, (b,), device=device)

    network = HiDiT(**size).to(device, dtype).eval()
    run = compiled(network)
    with torch.no_grad():
        for b in batches:
            given = inputs(b, dtype)
            add(f"forward {b}", b, lambda: run(*given))
        decoder = Decoder().to(device, dtype).eval()
        if device == "cuda":
            decoder = decoder.to(memory_format=torch.channels_last)
        decode, z = compiled(decoder), torch.randn(many, 32, 16, 16, device=device, dtype=dtype)
        add(f"decode {many}", many, lambda: decode(z))

        def sample():
            """Hi-DiT's run: latents alone while t >= 0.3, then latents and pixels; guidance doubles the batch."""
            z, t, _ = inputs(many, torch.float32)
            y = torch.full((many,), 17, device=device)
            both_y = torch.cat([y, torch.full_like(y, 1000)])
            image, dt = None, 1.0 / args.steps
            for i in range(args.steps):
                now = 1.0 - i * dt
                t = torch.full((2 * many,), now, device=device)
                if now < 0.3 and image is None:
                    image = decode(z.to(dtype)).float()
                both = torch.cat([z, z]).to(dtype)
                if image is None:
                    v = run(both, t, both_y).float()
                else:
                    v, clean = (x.float() for x in run(both, t, both_y, torch.cat([image, image]).to(dtype)))
                    c, u = clean.chunk(2)
                    clean = u + 2.4 * (c - u)
                    image = image - dt * (image - clean) / max(now, 0.05)
                c, u = v.chunk(2)
                z = z - dt * (u + 2.4 * (c - u)) + math.sqrt(dt) * 0.1 * torch.randn_like(z)
            return ((image.clamp(-1, 1) + 1) * 127.5).byte().cpu()

        add(f"sample {many}", many, sample)
    del network, run
    network = HiDiT(**size).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device == "cuda")
    run = compiled(network)

    for b in train_batches:
        z, t, y = inputs(b, torch.float32)
        target = torch.randn_like(z)

        def step():
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = F.mse_loss(run(z, t, y).float(), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        add(f"train {b}", b, step)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    mode = "eager" if args.no_compile else "compiled"
    report = dict(program=f"PyTorch {torch.__version__} {mode}", device=name, network="hidit-xl-1-256", results=results)
    with open(args.out, "w") as file:
        json.dump(report, file, indent=2)


if __name__ == "__main__":
    main()
