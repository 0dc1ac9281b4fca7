"""VA-VAE f16d32 in PyTorch with random weights, for `cpu.py`: encoding and decoding of 256 x 256 images. Needs torch."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from bench_pytorch import Decoder, Residual, Spatial
from lines import forward


class Downsample(nn.Conv2d):
    """Half the size, zeros right and bottom only."""

    def __init__(self, c):
        super().__init__(c, c, 3, stride=2)

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Encoder(nn.Module):
    """Images to the moments of their latents."""

    def __init__(self, z=32, ch=128, mult=(1, 1, 2, 2, 4)):
        super().__init__()
        c, layers = ch, [nn.Conv2d(3, ch, 3, padding=1)]
        for level, m in enumerate(mult):
            last = level + 1 == len(mult)
            for _ in range(2):
                layers.append(Residual(c, ch * m))
                c = ch * m
                if last:
                    layers.append(Spatial(c))
            if not last:
                layers.append(Downsample(c))
        layers += [Residual(c, c), Spatial(c), Residual(c, c), nn.GroupNorm(32, c, eps=1e-6), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(c, 2 * z, 3, padding=1), nn.Conv2d(2 * z, 2 * z, 1))

    def forward(self, x):
        return self.layers(x)


def lines(what, _network, batch):
    def make():
        network, x = {
            "encode": lambda: (Encoder(), torch.rand(batch, 3, 256, 256) * 2 - 1),
            "decode": lambda: (Decoder(), torch.randn(batch, 32, 16, 16)),
        }[what]()
        network.eval()
        return lambda: network(x)

    return [forward(f"{what} {batch}", make)]
