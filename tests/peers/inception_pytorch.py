"""FID's Inception-v3 in PyTorch, as pytorch-fid computes it: for `fid_pytorch.py` with its weights, for `cpu.py` with
random ones. Needs torch."""

import torch
import torch.nn.functional as F

from lines import forward


class Inception:
    """`w`: tensors by the names of `pt_inception-2015-12-05-6726825d.pth`."""

    def __init__(self, w):
        self.w = w

    def unit(self, name, x, stride=1, padding=0):
        w, bn = self.w, f"{name}.bn."
        x = F.conv2d(x, w[f"{name}.conv.weight"], stride=stride, padding=padding)
        x = F.batch_norm(x, w[bn + "running_mean"], w[bn + "running_var"], w[bn + "weight"], w[bn + "bias"], eps=1e-3)
        return F.relu(x, inplace=True)

    def features(self, x):
        """[B, 3, 299, 299] → [B, 2048]"""
        u = self.unit
        mean = lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        row, column = (0, 3), (3, 0)
        x = u("Conv2d_1a_3x3", x, 2)
        x = u("Conv2d_2a_3x3", x)
        x = F.max_pool2d(u("Conv2d_2b_3x3", x, padding=1), 3, 2)
        x = u("Conv2d_4a_3x3", u("Conv2d_3b_1x1", x))
        x = F.max_pool2d(x, 3, 2)
        for block in ("5b", "5c", "5d"):
            b = f"Mixed_{block}.branch"
            double = u(b + "3x3dbl_2", u(b + "3x3dbl_1", x), padding=1)
            x = torch.cat([u(b + "1x1", x), u(b + "5x5_2", u(b + "5x5_1", x), padding=2),
                           u(b + "3x3dbl_3", double, padding=1), u(b + "_pool", mean(x))], 1)
        b = "Mixed_6a.branch"
        double = u(b + "3x3dbl_2", u(b + "3x3dbl_1", x), padding=1)
        x = torch.cat([u(b + "3x3", x, 2), u(b + "3x3dbl_3", double, 2), F.max_pool2d(x, 3, 2)], 1)
        for block in ("6b", "6c", "6d", "6e"):
            b = f"Mixed_{block}.branch"
            seven = u(b + "7x7_3", u(b + "7x7_2", u(b + "7x7_1", x), padding=row), padding=column)
            double = u(b + "7x7dbl_1", x)
            for i, p in zip((2, 3, 4, 5), (column, row, column, row)):
                double = u(f"{b}7x7dbl_{i}", double, padding=p)
            x = torch.cat([u(b + "1x1", x), seven, double, u(b + "_pool", mean(x))], 1)
        b = "Mixed_7a.branch"
        seven = u(b + "7x7x3_3", u(b + "7x7x3_2", u(b + "7x7x3_1", x), padding=row), padding=column)
        x = torch.cat([u(b + "3x3_2", u(b + "3x3_1", x), 2), u(b + "7x7x3_4", seven, 2), F.max_pool2d(x, 3, 2)], 1)
        for block in ("7b", "7c"):
            b = f"Mixed_{block}.branch"
            pool = mean(x) if block == "7b" else F.max_pool2d(x, 3, 1, 1)
            three, double = u(b + "3x3_1", x), u(b + "3x3dbl_2", u(b + "3x3dbl_1", x), padding=1)
            x = torch.cat([u(b + "1x1", x),
                           u(b + "3x3_2a", three, padding=(0, 1)), u(b + "3x3_2b", three, padding=(1, 0)),
                           u(b + "3x3dbl_3a", double, padding=(0, 1)), u(b + "3x3dbl_3b", double, padding=(1, 0)),
                           u(b + "_pool", pool)], 1)
        return x.mean((2, 3))


def units():
    """Every convolution's output and input channels, rows and columns of its kernel."""
    found = {
        "Conv2d_1a_3x3": (32, 3, 3, 3), "Conv2d_2a_3x3": (32, 32, 3, 3), "Conv2d_2b_3x3": (64, 32, 3, 3),
        "Conv2d_3b_1x1": (80, 64, 1, 1), "Conv2d_4a_3x3": (192, 80, 3, 3),
    }

    def block(name, branches):
        found.update({f"Mixed_{name}.branch{branch}": shape for branch, shape in branches.items()})

    def double(c):
        return {"3x3dbl_1": (64, c, 1, 1), "3x3dbl_2": (96, 64, 3, 3), "3x3dbl_3": (96, 96, 3, 3)}

    for name, c, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        block(name, {
            "1x1": (64, c, 1, 1), "5x5_1": (48, c, 1, 1), "5x5_2": (64, 48, 5, 5), **double(c), "_pool": (pool, c, 1, 1),
        })
    block("6a", {"3x3": (384, 288, 3, 3), **double(288)})
    for name, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        block(name, {
            "1x1": (192, 768, 1, 1), "_pool": (192, 768, 1, 1),
            "7x7_1": (c, 768, 1, 1), "7x7_2": (c, c, 1, 7), "7x7_3": (192, c, 7, 1),
            "7x7dbl_1": (c, 768, 1, 1), "7x7dbl_2": (c, c, 7, 1), "7x7dbl_3": (c, c, 1, 7),
            "7x7dbl_4": (c, c, 7, 1), "7x7dbl_5": (192, c, 1, 7),
        })
    block("7a", {
        "3x3_1": (192, 768, 1, 1), "3x3_2": (320, 192, 3, 3), "7x7x3_1": (192, 768, 1, 1),
        "7x7x3_2": (192, 192, 1, 7), "7x7x3_3": (192, 192, 7, 1), "7x7x3_4": (192, 192, 3, 3),
    })
    for name, c in (("7b", 1280), ("7c", 2048)):
        block(name, {
            "1x1": (320, c, 1, 1), "_pool": (192, c, 1, 1),
            "3x3_1": (384, c, 1, 1), "3x3_2a": (384, 384, 1, 3), "3x3_2b": (384, 384, 3, 1),
            "3x3dbl_1": (448, c, 1, 1), "3x3dbl_2": (384, 448, 3, 3),
            "3x3dbl_3a": (384, 384, 1, 3), "3x3dbl_3b": (384, 384, 3, 1),
        })
    return found


def random_weights():
    """Weights that keep the size of activations, norms of mean 0 and variance 1."""
    w = {}
    for name, (out, into, rows, columns) in units().items():
        w[f"{name}.conv.weight"] = torch.randn(out, into, rows, columns) * (2 / (into * rows * columns)) ** 0.5
        w[f"{name}.bn.weight"], w[f"{name}.bn.bias"] = torch.ones(out), torch.zeros(out)
        w[f"{name}.bn.running_mean"], w[f"{name}.bn.running_var"] = torch.zeros(out), torch.ones(out)
    return w


def lines(_what, _network, batch):
    def make():
        network, x = Inception(random_weights()), torch.rand(batch, 3, 299, 299) * 2 - 1
        return lambda: network.features(x)

    return [forward(f"inception {batch}", make)]
