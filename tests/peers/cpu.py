"""Tintype against PyTorch on this machine's CPU, float32, both sides in turn.

    cargo build --release --bin tintype
    python3 tests/peers/cpu.py [--rounds 5] [--threads 2] [--tintype FILE] [--only GROUP] [--out FOLDER]

Needs torch (2.4 or later), numpy and safetensors. Each line of the table is measured by `tintype bench` and by its
module here (`*_pytorch.py`, eager), one after the other in every round, so that what else the machine does disturbs
both. Prints a Markdown table of the medians. `--out` gets it as `table.json`, and each side's results as files that
`tintype bench --compare` reads. Ends with an error where a side fails or has lines that the other lacks.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """What one call of `tintype bench` measures, and the module of PyTorch's side."""

    group: str
    module: str
    title: str
    network: str
    what: str
    batches: tuple
    # Timed rounds and warm-up calls of either side in each round of this script.
    repeats: tuple = (3, 2)

    @property
    def file(self):
        """In the names of files: no two runs with lines of one name share it."""
        return self.network if self.group == "operations" else self.group

    def tintype(self, program, threads):
        """Tintype's report."""
        rounds, warm_up = self.repeats
        command = [
            str(program), "bench", self.what, "--network", self.network, "--device", "cpu", "--precision", "f32",
            "--batch", ",".join(map(str, self.batches)), "--rounds", str(rounds), "--warm-up", str(warm_up), "--json",
        ]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}")
        return json.loads(done.stdout)

    def lines(self):
        """PyTorch's side: name, count, unit and call of each line."""
        module = importlib.import_module(self.module)
        return [line for batch in self.batches for line in module.lines(self.what, self.network, batch)]

    def pytorch(self, lines):
        """PyTorch's results, in the form of Tintype's."""
        from bench_pytorch import timed

        rounds, warm_up = self.repeats
        found = []
        for name, count, unit, call in lines:
            seconds, fastest, slowest = timed(call, "cpu", rounds, warm_up)
            found.append(dict(name=name, seconds=seconds, spread=[fastest, slowest], rate=count / seconds, unit=unit))
        return found


ONCE = (1, 1)
EMOJI = ("emoji", "emoji_pytorch", "Emoji Hi-DiT", "emoji")
VAVAE = ("vavae", "vavae_pytorch", "VA-VAE f16d32, 256²", "sit-xl-1")
OPERATIONS = ("operations", "operations_pytorch")
RUNS = [
    Run(*EMOJI, "forward", (1, 4)),
    Run(*EMOJI, "train", (1, 4)),
    Run(*EMOJI, "decode", (1,)),
    Run(*EMOJI, "sample", (1,), ONCE),
    Run(*VAVAE, "encode", (1,), ONCE),
    Run(*VAVAE, "decode", (1,), ONCE),
    Run("inception", "inception_pytorch", "Features for FID, 299²", "emoji", "inception", (8,), ONCE),
    Run(*OPERATIONS, "LightningDiT-XL/1", "lightningdit-xl-1", "operations", (1, 4)),
    Run(*OPERATIONS, "SiT-XL/1", "sit-xl-1", "operations", (1, 4)),
    Run(*OPERATIONS, "HDiT, ImageNet-128", "hdit-imagenet-128", "operations", (1, 4)),
]


def median(rounds):
    """One result of several rounds' results of one line."""
    of = lambda key: statistics.median(result[key] for result in rounds)
    spread = [min(result["seconds"] for result in rounds), max(result["seconds"] for result in rounds)]
    return dict(
        name=rounds[0]["name"], seconds=of("seconds"), spread=spread, rate=of("rate"), unit=rounds[0]["unit"],
    )


def in_turn(run, args):
    """Medians of both sides' rounds, line by line, and what Tintype says of itself."""
    lines = run.lines()
    rounds = []
    for number in range(args.rounds):
        print(f"{run.title}: {run.what}, round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
        report = run.tintype(args.tintype, args.threads)
        if report["plain"] or report["precision"] != "f32":
            sys.exit(f"Tintype measured something else: {report['precision']}, plain: {report['plain']}")
        sides = [{result["name"]: result for result in side} for side in (report["results"], run.pytorch(lines))]
        if sides[0].keys() != sides[1].keys():
            sys.exit(f"{run.title}: only one side has {sorted(sides[0].keys() ^ sides[1].keys())}")
        rounds.append(sides)
    names = list(rounds[0][0])
    return [[median([sides[side][name] for sides in rounds]) for name in names] for side in (0, 1)], report


def shown(run, result):
    if run.what == "inception":
        return f"{result['rate']:.2f} images/s"
    seconds = result["seconds"]
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.2f} ms"


def markdown(rows):
    print("| work | Tintype | PyTorch | ratio |\n|---|---|---|---|")
    for run, (ours, theirs) in rows:
        ratio = ours["rate"] / theirs["rate"]
        print(f"| {run.title}: {ours['name']} | {shown(run, ours)} | {shown(run, theirs)} | {ratio:.2f} |")


def write(folder, rows, programs, device, args):
    """The table, and each side's results."""
    folder.mkdir(parents=True, exist_ok=True)
    table = [
        dict(work=run.title, network=run.network, name=ours["name"], tintype=ours, pytorch=theirs,
             ratio=ours["rate"] / theirs["rate"])
        for run, (ours, theirs) in rows
    ]
    about = dict(programs=programs, device=device, threads=args.threads, rounds=args.rounds)
    (folder / "table.json").write_text(json.dumps(dict(about, rows=table), indent=2))
    for file, network in {(run.file, run.network) for run, _ in rows}:
        for side, name in enumerate(("tintype", "pytorch")):
            results = [results[side] for run, results in rows if run.file == file]
            report = dict(program=programs[side], device=device, precision="f32", network=network, results=results)
            (folder / f"{name}-{file}.json").write_text(json.dumps(report, indent=2))


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return int(text)


def main():
    parser = argparse.ArgumentParser(description="Tintype against PyTorch on this machine's CPU.")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds of both sides; medians are printed")
    parser.add_argument("--threads", type=positive, default=2, help="threads of either side")
    parser.add_argument("--tintype", type=Path, default=ROOT / "target/release/tintype", help="the program")
    parser.add_argument("--only", choices=sorted({run.group for run in RUNS}), help="one group of lines")
    parser.add_argument("--out", type=Path, default=ROOT / "target/peers", help="folder for JSON")
    args = parser.parse_args()
    args.tintype = args.tintype.resolve()
    if not args.tintype.is_file():
        parser.error(f"there is no {args.tintype}: cargo build --release --bin tintype")
    # Before torch is loaded, which reads it then.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = []
    for run in RUNS:
        if args.only in (None, run.group):
            sides, report = in_turn(run, args)
            rows += [(run, pair) for pair in zip(*sides)]
    programs, device = (report["program"], f"PyTorch {torch.__version__}"), report["device"]
    print(f"{programs[0]} and {programs[1]}, {device}, {args.threads} threads, float32; medians of {args.rounds} "
          "rounds in turn; above 1 Tintype is faster.\n")
    markdown(rows)
    write(args.out, rows, programs, device, args)


if __name__ == "__main__":
    main()
