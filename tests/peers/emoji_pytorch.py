"""The emoji model in PyTorch, with the shipped weights, for `cpu.py`: forward passes, training steps, the autoencoder's
decode, and images by 50 steps of Euler-Maruyama with guidance (two rows an evaluation), where the autoencoder decodes
when the gate opens; and what follows the gradients in a training step. Needs torch and safetensors."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

from lines import Line, forward

FOLDER = Path(__file__).resolve().parents[2] / "models" / "emoji"


def timestep_features(t, dim=256):
    half = dim // 2
    freqs = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(half) / half)
    angle = t[:, None] * freqs[None]
    return torch.cat([angle.cos(), angle.sin()], 1)


class HiDiT:
    def __init__(self, w, config):
        self.w = {k: v.float() for k, v in w.items()}
        self.heads, self.depth = config["heads"], config["depth"]
        self.patch, self.tau = config["pixel_patch"], config["tau"]

    def lin(self, name, x):
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def block(self, i, h, c):
        p = f"blocks.{i}."
        s1, k1, g1, s2, k2, g2 = self.lin(p + "adaLN_modulation.1", c)[:, None].chunk(6, -1)
        b, n, d = h.shape
        x = F.layer_norm(h, (d,), eps=1e-6) * (1 + k1) + s1
        q, k, v = self.lin(p + "attn.qkv", x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        h = h + g1 * self.lin(p + "attn.proj", a)
        x = F.layer_norm(h, (d,), eps=1e-6) * (1 + k2) + s2
        x = self.lin(p + "mlp.fc2", F.gelu(self.lin(p + "mlp.fc1", x), approximate="tanh"))
        return h + g2 * x

    def forward(self, z, x, t, y):
        w, (b, ch, s, _) = self.w, z.shape
        c = self.lin("t_embedder.mlp.2", F.silu(self.lin("t_embedder.mlp.0", timestep_features(t))))
        c = F.silu(c + w["y_embedder.embedding_table.weight"][y])
        h = F.conv2d(z, w["x_embedder.proj.weight"], w["x_embedder.proj.bias"])
        h = h.flatten(2).transpose(1, 2) + w["pos_embed"]
        if x is not None:
            p, g = self.patch, x.shape[-1] // self.patch
            patches = x.view(b, 3, g, p, g, p).permute(0, 2, 4, 3, 5, 1).reshape(b, g * g, -1)
            h = h + self.lin("pixel_embedder.proj", patches)
        for i in range(self.depth):
            h = self.block(i, h, c)
        shift, scale = self.lin("final_layer.adaLN_modulation.1", c)[:, None].chunk(2, -1)
        h = F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift
        v = self.lin("final_layer.linear", h).view(b, s, s, ch).permute(0, 3, 1, 2)
        if x is None:
            return v, None
        h = h.transpose(1, 2).reshape(b, -1, s, s)
        h = F.conv2d(h, w["pixel_predictor.0.weight"], w["pixel_predictor.0.bias"], padding=1)
        h = F.silu(F.pixel_shuffle(h, 2))
        h = F.conv2d(h, w["pixel_predictor.1.weight"], w["pixel_predictor.1.bias"])
        return v, F.pixel_shuffle(h, 4)


class Decoder:
    def __init__(self, w):
        self.w = {k: v.float() for k, v in w.items()}
        self.levels = 1 + max(int(k.split(".")[2]) for k in w if k.startswith("decoder.up."))

    def conv(self, name, x):
        weight = self.w[name + ".weight"]
        return F.conv2d(x, weight, self.w[name + ".bias"], padding=weight.shape[-1] // 2)

    def norm(self, name, x):
        return F.group_norm(x, 32, self.w[name + ".weight"], self.w[name + ".bias"], 1e-6)

    def res(self, p, x):
        h = self.conv(p + ".conv1", F.silu(self.norm(p + ".norm1", x)))
        h = self.conv(p + ".conv2", F.silu(self.norm(p + ".norm2", h)))
        return (self.conv(p + ".nin_shortcut", x) if p + ".nin_shortcut.weight" in self.w else x) + h

    def attn(self, p, x):
        y = self.norm(p + ".norm", x)
        q, k, v = (self.conv(p + n, y).flatten(2).transpose(1, 2)[:, None] for n in (".q", ".k", ".v"))
        out = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + self.conv(p + ".proj_out", out)

    def forward(self, z):
        d = "decoder."
        h = self.conv(d + "conv_in", self.conv("post_quant_conv", z))
        h = self.res(d + "mid.block_2", self.attn(d + "mid.attn_1", self.res(d + "mid.block_1", h)))
        for level in reversed(range(self.levels)):
            for i in range(3):
                h = self.res(f"{d}up.{level}.block.{i}", h)
                if f"{d}up.{level}.attn.{i}.q.weight" in self.w:
                    h = self.attn(f"{d}up.{level}.attn.{i}", h)
            if level:
                h = self.conv(f"{d}up.{level}.upsample.conv", F.interpolate(h, scale_factor=2.0))
        return self.conv(d + "conv_out", F.silu(self.norm(d + "norm_out", h)))


@torch.inference_mode()
def sample(net, decoder, batch, steps=50, cfg=2.0, label=17):
    times = torch.cat([torch.linspace(1, 0.04, steps, dtype=torch.float64), torch.zeros(1).double()])
    z, x = torch.randn(batch, 16, 16, 16).double(), None
    y = torch.tensor([label] * batch + [net.w["y_embedder.embedding_table.weight"].shape[0] - 1] * batch)

    def guided(z, x, t):
        twice = lambda a: None if a is None else torch.cat([a, a]).float()
        v, image = net.forward(twice(z), twice(x), torch.full((2 * batch,), t, dtype=torch.float32), y)
        mix = lambda a: None if a is None else (a[batch:] + cfg * (a[:batch] - a[batch:])).double()
        return mix(v), mix(image)

    def step(x, v, t, dt, last):
        drift = v + 0.5 * 2 * t * (x + (1 - t) * v) / t
        x = x + drift * dt
        return x if last else x + torch.randn_like(x) * (2 * t * abs(dt)) ** 0.5

    for i in range(steps):
        t, dt, last = times[i].item(), (times[i + 1] - times[i]).item(), i + 1 == steps
        if t < net.tau and x is None:
            v, _ = guided(z, None, t)
            mean, std = net.w["bn.running_mean"], net.w["bn.running_var"].sqrt()
            clean = (z - t * v).float() * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
            x = (1 - t) * decoder.forward(clean).double() + t * torch.randn(batch, 3, 128, 128).double()
        v, image = guided(z, x, t)
        z = step(z, v, t, dt, last)
        if x is not None:
            x = image if last else step(x, (x - image) / max(t, 0.05), t, dt, last)
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def trainable(net):
    """Parameters that training changes, and their optimizer."""
    frozen = ("bn.", "pos_embed")
    parameters = [w.requires_grad_() for name, w in net.w.items() if not name.startswith(frozen)]
    return parameters, torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True)


def training(net, batch):
    """A step of `tintype bench train`: the latent stream, clipping by the global norm, AdamW."""
    parameters, optimizer = trainable(net)
    z, target, t, y = *torch.randn(2, batch, 16, 16, 16), torch.rand(batch), torch.zeros(batch, dtype=torch.long)

    def step():
        velocity, _ = net.forward(z, None, t, y)
        F.mse_loss(velocity, target).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def network():
    with safe_open(FOLDER / "hidit.safetensors", "pt") as f:
        config = json.loads(f.metadata()["config"])
    return HiDiT(load_file(FOLDER / "hidit.safetensors"), config)


def autoencoder():
    return Decoder(load_file(FOLDER / "vae-decoder.safetensors"))


def after_gradients():
    """What `tintype bench optimizer` measures."""

    def stepped(averages):
        parameters, optimizer = trainable(network())
        for p in parameters:
            p.grad = torch.rand_like(p) * 2 - 1
        average = [p.detach().clone() for p in parameters]

        def step():
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if averages:
                with torch.no_grad():
                    torch._foreach_lerp_(average, parameters, 1 - 0.9999)

        return step

    def norm():
        parameters, _ = trainable(network())
        gradients = [torch.rand_like(p) * 2 - 1 for p in parameters]
        return lambda: torch.nn.utils.get_total_norm(gradients)

    return [
        Line("gradient norm", norm),
        Line("adamw", lambda: stepped(False)),
        Line("adamw and ema", lambda: stepped(True)),
    ]


def lines(what, _network, batch):
    def velocity():
        net = network()
        z, t, y = torch.randn(batch, 16, 16, 16), torch.rand(batch), torch.zeros(batch, dtype=torch.long)
        return lambda: net.forward(z, None, t, y)

    def decode():
        decoder, z = autoencoder(), torch.randn(batch, 16, 16, 16)
        return lambda: decoder.forward(z)

    def images():
        net, decoder = network(), autoencoder()
        return lambda: sample(net, decoder, batch)

    name = f"{what} {batch}"
    return {
        "forward": lambda: [forward(name, velocity)],
        "train": lambda: [Line(name, lambda: training(network(), batch))],
        "optimizer": after_gradients,
        "decode": lambda: [forward(name, decode)],
        "sample": lambda: [Line(name, images)],
    }[what]()
