"""SiT-XL/1 in PyTorch with random weights, for `cpu.py`: forward passes with weights of 32 or 16 bits in memory. Needs
torch."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from bench_pytorch import HiDiT
from lines import forward


def keep_in_float16(network):
    """Weights of 16 bits that a layer widens when it runs, so that both sides compute in float32."""
    network.half()
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.forward = lambda x, layer=layer: F.linear(x.float(), layer.weight.float(), layer.bias.float())


def lines(what, _network, batch):
    def make():
        network = HiDiT().eval()
        if what == "forward-f16":
            keep_in_float16(network)
        z, t, y = torch.randn(batch, 32, 16, 16), torch.rand(batch), torch.zeros(batch, dtype=torch.long)
        return lambda: network(z, t, y)

    name = {"forward": "forward", "forward-f16": "forward, float16 weights"}[what]
    return [forward(f"{name} {batch}", make)]
