"""Tintype against PyTorch on this machine's CPU, float32, both sides in turn.

    cargo build --release --bin tintype
    python3 tests/peers/cpu.py [--rounds 5] [--threads 2] [--only REGEX] [--tintype FILE] [--out FILE]

Needs torch (2.4 or later), numpy and safetensors. Each line of the table is measured by `tintype bench` and by its
module here (`*_pytorch.py`, eager), one after the other in every round, so that what else the machine does disturbs
both. Prints a Markdown table of the medians, with the ratio and its least and greatest in a round; above 1 Tintype is
faster. `--only` takes the lines whose work, the first column, the expression finds. `--out` gets the seconds of every
round as JSON. Ends with an error where a side fails, or lacks lines that the other has.
"""

import argparse
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What `tintype bench --only` narrows down.
LISTS = ("operations", "convolutions", "optimizer")


@dataclass(frozen=True)
class Run:
    """What one call of `tintype bench` measures, and the module of PyTorch's side."""

    title: str
    module: str
    network: str
    what: str
    batches: tuple = (1, 4)
    # Timed rounds and warm-up calls of either side in each round of this script.
    repeats: tuple = (3, 2)

    def work(self, name):
        return f"{self.title}: {name}"

    def lines(self):
        module = importlib.import_module(self.module)
        return [line for batch in self.batches for line in module.lines(self.what, self.network, batch)]

    def tintype(self, args, wanted):
        """Tintype's report."""
        rounds, warm_up = self.repeats
        command = [
            str(args.tintype), "bench", self.what, "--network", self.network, "--device", "cpu", "--precision", "f32",
            "--batch", ",".join(map(str, self.batches)), "--rounds", str(rounds), "--warm-up", str(warm_up), "--json",
        ]
        if self.what in LISTS and args.only.pattern:
            command += [word for name in wanted for word in ("--only", name)]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(args.threads)}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}")
        report = json.loads(done.stdout)
        if report["plain"] or report["precision"] != "f32":
            sys.exit(f"Tintype measured something else: {report['precision']}, plain: {report['plain']}")
        return report

    def pytorch(self, call):
        """PyTorch's seconds."""
        from bench_pytorch import timed

        rounds, warm_up = self.repeats
        return timed(call, "cpu", rounds, warm_up)[0]


ONCE = (1, 1)
EMOJI = ("Emoji Hi-DiT", "emoji_pytorch", "emoji")
VAVAE = ("VA-VAE f16d32, 256²", "vavae_pytorch", "sit-xl-1")
SIT = ("SiT-XL/1", "sit_pytorch", "sit-xl-1")
OPERATIONS = "operations_pytorch"
# `tintype bench` takes one batch size at a time for `decode`, `encode`, `sample` and `inception`.
RUNS = [
    Run(*EMOJI, "forward"),
    Run(*EMOJI, "train"),
    Run(*EMOJI, "optimizer", (1,)),
    *(Run(*EMOJI, "decode", (batch,)) for batch in (1, 4)),
    *(Run(*EMOJI, "sample", (batch,), ONCE) for batch in (1, 4)),
    *(Run(*VAVAE, what, (batch,), ONCE) for what in ("encode", "decode") for batch in (1, 4)),
    Run("Features for FID, 299²", "inception_pytorch", "emoji", "inception", (8,), ONCE),
    *(Run(*SIT, what, (1,), ONCE) for what in ("forward", "forward-f16")),
    Run("LightningDiT-XL/1", OPERATIONS, "lightningdit-xl-1", "operations"),
    Run("SiT-XL/1", OPERATIONS, "sit-xl-1", "operations"),
    Run("HDiT, ImageNet-128", OPERATIONS, "hdit-imagenet-128", "operations"),
    Run("Convolutions and pooling", "convolutions_pytorch", "emoji", "convolutions", repeats=ONCE),
]


@dataclass(frozen=True)
class Row:
    """Seconds of a line, round by round."""

    work: str
    tintype: list
    pytorch: list

    @property
    def ratio(self):
        return statistics.median(self.pytorch) / statistics.median(self.tintype)

    @property
    def spread(self):
        """The least and the greatest ratio of a round."""
        ratios = [theirs / ours for ours, theirs in zip(self.tintype, self.pytorch)]
        return min(ratios), max(ratios)

    def markdown(self):
        ours, theirs = (shown(statistics.median(side)) for side in (self.tintype, self.pytorch))
        return f"| {self.work} | {ours} | {theirs} | {self.ratio:.2f} | {self.spread[0]:.2f} to {self.spread[1]:.2f} |"


def shown(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.2f} ms"


def in_turn(run, args):
    """Rows of the lines that both sides have and that are wanted, what only one side has, and Tintype's report."""
    lines = run.lines()
    known = {line.name for line in lines}
    wanted = [line for line in lines if args.only.search(run.work(line.name))]
    if not wanted:
        return [], [], None
    calls = {line.name: line.make() for line in wanted}
    ours, theirs, lacking = {}, {}, set()
    for number in range(args.rounds):
        print(f"{run.title}: {run.what}, round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
        report = run.tintype(args, calls)
        found = {result["name"]: result["seconds"] for result in report["results"]}
        lacking |= {f"only PyTorch's side has {run.work(name)}" for name in calls.keys() - found.keys()}
        lacking |= {f"only Tintype's side has {run.work(name)}" for name in found.keys() - known}
        for name, call in calls.items():
            if name in found:
                ours.setdefault(name, []).append(found[name])
                theirs.setdefault(name, []).append(run.pytorch(call))
    rows = [Row(run.work(name), ours[name], theirs[name]) for name in ours]
    return rows, sorted(lacking), report


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return int(text)


def expression(text):
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error


def arguments():
    parser = argparse.ArgumentParser(description="Tintype against PyTorch on this machine's CPU.")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds of both sides; medians are printed")
    parser.add_argument("--threads", type=positive, default=2, help="threads of either side")
    parser.add_argument("--only", type=expression, default="", metavar="REGEX", help="lines whose work it finds")
    parser.add_argument("--tintype", type=Path, default=ROOT / "target/release/tintype", help="the program")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON with the seconds of every round")
    args = parser.parse_args()
    args.tintype = args.tintype.resolve()
    if not args.tintype.is_file():
        parser.error(f"there is no {args.tintype}: cargo build --release --bin tintype")
    return args


def main():
    args = arguments()
    # Before torch is loaded, which reads it then.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print("| work | Tintype | PyTorch | ratio | ratios of rounds |\n|---|---|---|---|---|", flush=True)
    rows, lacking, about = [], [], None
    for run in RUNS:
        more, missing, report = in_turn(run, args)
        rows, lacking, about = rows + more, lacking + missing, report or about
        for row in more:
            print(row.markdown(), flush=True)
    if about is None:
        sys.exit(f"no line has {args.only.pattern!r}")
    programs, device = [about["program"], f"PyTorch {torch.__version__}"], about["device"]
    print(f"\n{' and '.join(programs)}, {device}, {args.threads} threads, float32; medians of {args.rounds} rounds in "
          "turn; above 1 Tintype is faster.")
    if args.out:
        found = [dict(vars(row), ratio=row.ratio, spread=row.spread) for row in rows]
        about = dict(programs=programs, device=device, threads=args.threads, rounds=args.rounds, rows=found)
        args.out.write_text(json.dumps(about, indent=2))
    if lacking:
        sys.exit("\n".join(lacking))


if __name__ == "__main__":
    main()
