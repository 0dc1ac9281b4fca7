"""Operations of autoencoders and of Inception in PyTorch, for `cpu.py`: what `tintype bench convolutions` measures. Needs
torch."""

import torch
import torch.nn.functional as F

from lines import forward

CHANNELS, SIDE, GROUPS = 256, 128, 32


def lines(_what, _network, batch):
    def image(channels, side):
        return torch.randn(batch, channels, side, side)

    def group_norm():
        x, weight, bias = image(CHANNELS, SIDE), torch.ones(CHANNELS), torch.zeros(CHANNELS)
        return lambda: F.silu(F.group_norm(x, GROUPS, weight, bias, 1e-6), inplace=True)

    def convolution(side, before=lambda x: x, **options):
        x = image(CHANNELS, side)
        weight, bias = torch.randn(CHANNELS, CHANNELS, 3, 3) / (9 * CHANNELS) ** 0.5, torch.randn(CHANNELS)
        return lambda: F.conv2d(before(x), weight, bias, **options)

    def max_pool():
        x = image(64, 147)
        return lambda: F.max_pool2d(x, 3, 2)

    def average_pool():
        x = image(288, 35)
        return lambda: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    # The autoencoder's downsampling: zeros right and bottom only.
    smaller = lambda: convolution(SIDE, lambda x: F.pad(x, (0, 1, 0, 1)), stride=2)
    larger = lambda: convolution(SIDE // 2, lambda x: F.interpolate(x, scale_factor=2.0), padding=1)
    makes = {
        "group norm and silu": group_norm,
        "convolution": lambda: convolution(SIDE, padding=1),
        "convolution, stride 2": smaller,
        "nearest and convolution": larger,
        "max pool": max_pool,
        "average pool": average_pool,
    }
    return [forward(f"{name} {batch}", make) for name, make in makes.items()]
