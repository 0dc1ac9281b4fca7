// Memory over time: runs `sample` and a toy training for some minutes each and fits a line to the resident memory
// after a warm-up. Linux only; not a part of `.ci/run`.
//
//     cargo build --release --locked && node .ci/soak.mjs [MINUTES=20] [WARM_UP=5] [sample|train]
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [minutes = 20, warmUp = 5] = process.argv.slice(2, 4).map(Number);
const only = process.argv[4];
/** More growth than this is a leak: a day of it is 0.7 GB. */
const LIMIT_MIB_PER_MINUTE = 0.5;
const program = resolve(process.env.TINTYPE ?? "target/release/tintype");
const place = mkdtempSync(join(tmpdir(), "soak-"));

/** Resident memory in MiB; null once the process has ended. */
function resident(pid) {
  try {
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return kib && Number(kib[1]) / 1024;
  } catch {
    return null;
  }
}

/** Least squares: MiB per minute. */
function slope(points) {
  const mean = (of) => points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean((p) => p[0]), mean((p) => p[1])];
  const top = points.reduce((sum, [a, b]) => sum + (a - x) * (b - y), 0);
  return top / points.reduce((sum, [a]) => sum + (a - x) ** 2, 0);
}

/** Runs a command for the time and says how its memory went. */
async function soak(name, args) {
  const child = spawn(program, args, { cwd: place, stdio: ["ignore", "ignore", "inherit"] });
  const ended = new Promise((done) => child.on("exit", (code, signal) => done(code ?? signal)));
  const started = Date.now();
  const points = [];
  while ((Date.now() - started) / 60000 < minutes && child.exitCode === null) {
    await new Promise((next) => setTimeout(next, 2000));
    const mib = resident(child.pid);
    if (mib !== null) points.push([(Date.now() - started) / 60000, mib]);
  }
  const early = child.exitCode !== null;
  child.kill("SIGTERM");
  const status = await ended;
  if (early) throw new Error(`${name} ended by itself (${status}) after ${points.length * 2} s`);
  const late = points.filter(([at]) => at >= warmUp);
  const growth = slope(late);
  const peak = Math.max(...points.map((point) => point[1]));
  console.log(`${name}: ${growth.toFixed(3)} MiB/min over ${late.length} points, peak ${peak.toFixed(0)} MiB`);
  return growth <= LIMIT_MIB_PER_MINUTE;
}

function run(...args) {
  const { status } = spawnSync(program, args, { cwd: place, stdio: "inherit" });
  if (status !== 0) throw new Error(`${args.join(" ")}: ${status}`);
}

let flat = false;
try {
  const sampled = only === "train" || await soak("sample", "sample --count 1000000 --labels random --steps 2 --out samples --device cpu".split(" "));
  run(..."sample --count 24 --labels random --steps 2 --out flat --device cpu".split(" "));
  const [folder] = spawnSync("sh", ["-c", "ls -d flat/*"], { cwd: place, encoding: "utf8" }).stdout.split("\n");
  run("prepare", folder, "--out", "store", "--size", "16");
  writeFileSync(join(place, "toy.toml"), `recipe = "hdit"
[model]
input_channels = 3
input_size = [16, 16]
patch_size = [2, 2]
depths = [1, 1]
widths = [16, 32]
self_attns = [{ type = "neighborhood", d_head = 16, kernel_size = 3 }, { type = "global", d_head = 16 }]
mapping_width = 16
mapping_depth = 1
sigma_data = 0.5
num_classes = 0
[data]
images = "store"
[run]
steps = 100000000
batch = 8
log_every = 100
checkpoint_every = 1000
[optimizer]
lr = 1e-3
betas = [0.9, 0.95]
[ema]
power = 0.6667
max_value = 0.9999
`);
  const trained = only === "sample" || await soak("train", "train toy.toml --out run --device cpu --quiet".split(" "));
  flat = sampled && trained;
} finally {
  rmSync(place, { recursive: true, force: true });
}
if (!flat) {
  console.error(`memory grows by more than ${LIMIT_MIB_PER_MINUTE} MiB/min`);
  process.exit(1);
}
