"""FID of two folders of images, computed without Tintype: Pillow, PyTorch, numpy and scipy.

    python fid_pytorch.py WEIGHTS.safetensors FOLDER FOLDER [--cache-a DIR --cache-b DIR] [--limit N]

    pip install numpy 'Pillow<13' safetensors scipy torch

Images are resized as in TensorFlow 1, features extracted by FID's Inception-v3 in PyTorch (float32), and
the distance computed with scipy's matrix square root. Given cache folders of `tintype evaluate --cache`, the
distance is also computed from Tintype's features, which separates errors of the network from errors of the
statistics. Pillow stays below 13, which resizes in another order than the versions behind published numbers.
"""
import argparse, glob, json, os, time

import numpy as np
import scipy.linalg
import torch
from PIL import Image
from safetensors.torch import load_file

from inception_pytorch import Inception


def tf1_bilinear(image, size=299):
    """[H, W, 3] of 0…255 → [3, size, size], pixel 0 on pixel 0."""
    x = torch.from_numpy(np.array(image.convert("RGB"))).float()
    def taps(n):
        source = torch.arange(size, dtype=torch.float32) * (np.float32(n) / np.float32(size))
        low = source.floor().long()
        return low, (low + 1).clamp(max=n - 1), source - low
    (y0, y1, ty), (x0, x1, tx) = taps(x.shape[0]), taps(x.shape[1])
    tx, ty = tx[None, :, None], ty[:, None, None]
    top = x[y0][:, x0] + (x[y0][:, x1] - x[y0][:, x0]) * tx
    bottom = x[y1][:, x0] + (x[y1][:, x1] - x[y1][:, x0]) * tx
    return (top + (bottom - top) * ty).permute(2, 0, 1)


def features(network, folder, limit, batch):
    files = sorted(f for e in ("png", "jpg", "jpeg") for f in glob.glob(os.path.join(folder, f"*.{e}")))[:limit]
    out, started = [], time.time()
    with torch.no_grad():
        for i in range(0, len(files), batch):
            x = torch.stack([tf1_bilinear(Image.open(f)) for f in files[i:i + batch]])
            out.append(network.features((x - 128) / 128))
    seconds = time.time() - started
    print(f"{folder}: {len(files)} images in {seconds:.1f} s ({len(files) / seconds:.1f} images/s)", flush=True)
    return torch.cat(out).numpy()


def cached(folder):
    parts = sorted(glob.glob(os.path.join(folder, "**", "part_*.safetensors"), recursive=True))
    return torch.cat([load_file(p)["features"] for p in parts]).numpy()


def fid(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    (ma, sa), (mb, sb) = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    root = scipy.linalg.sqrtm(sa @ sb)
    return float(((ma - mb) ** 2).sum() + np.trace(sa) + np.trace(sb) - 2 * np.trace(root.real))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("folders", nargs=2)
    parser.add_argument("--cache-a")
    parser.add_argument("--cache-b")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only-cached", action="store_true")
    args = parser.parse_args()
    result = {}
    if args.cache_a and args.cache_b:
        ours = [cached(args.cache_a), cached(args.cache_b)]
        result["fid_of_tintypes_features"] = fid(*ours)
        print(result, flush=True)
    if not args.only_cached:
        network = Inception(load_file(args.weights))
        theirs = [features(network, f, args.limit, args.batch) for f in args.folders]
        result["fid"] = fid(*theirs)
        if "fid_of_tintypes_features" in result:
            n = [min(len(o), len(t)) for o, t in zip(ours, theirs)]
            result["largest_feature_difference"] = max(
                float(np.abs(o[:k] - t[:k]).max()) for o, t, k in zip(ours, theirs, n))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
