// The worker: owns the engine and the device, and does one thing after the other.

import init, { Checksum, Engine } from "./wasm/tintype_web.js";
import { Unsupported, choose } from "./capability.js";
import type { FromWorker, Half, ModelFiles, RawEvent, Rows, ToWorker, WorkerLoadOptions } from "./messages.js";
import { Pair, fits } from "./pair.js";
import { FileError, fileName, obtain } from "./store.js";
import type { Capability, ModelInfo, Progress, RemoteFile, Request, Weights } from "./types.js";

declare const self: DedicatedWorkerGlobalScope & {
  tintypeEngineFailed?: (message: string) => void;
  tintypeSecondHalf?: (half: Half) => Promise<Rows[] | null> | undefined;
};

const say = (message: FromWorker, transfer: Transferable[] = []) => self.postMessage(message, transfer);

// Called by the engine when it breaks, which it does not survive.
self.tintypeEngineFailed = (message) => {
  console.error(message);
  pair?.close();
  say({ failed: message.split("\n").at(-1) ?? message });
};

// Called by the engine at each guided evaluation on the processor.
self.tintypeSecondHalf = (half) => pair?.ask(half);

let ready: ReturnType<typeof init> | undefined;
let engine: Engine | undefined;
let capability: Capability | undefined;
/** The second worker, which has the model that is loaded. */
let pair: Pair | undefined;
/** Models that were loaded so far. */
let models = 0;
const loading = new Map<number, AbortController>();

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  switch (data.call) {
    case "load":
      return void answer(data.id, () => load(data.id, data.options));
    case "generate":
      return void answer(data.id, () => generate(data.id, data.request));
    case "abort":
      return loading.get(data.id)?.abort();
    case "cancel":
      return engine?.cancel();
  }
};

async function answer(id: number, work: () => Promise<void>) {
  try {
    await work();
  } catch (error) {
    const known = error instanceof FileError || error instanceof Unsupported || error instanceof DOMException;
    const { message } = error as Error;
    say({ id, error: message, name: known ? (error as Error).name : "TintypeError" });
  }
}

async function load(id: number, options: WorkerLoadOptions) {
  const started = performance.now();
  const abort = new AbortController();
  loading.set(id, abort);
  const report = (phase: Progress["phase"], bytes: number, total: number | null) => {
    say({ id, progress: { phase, bytes, total, seconds: (performance.now() - started) / 1000 } });
  };
  try {
    // The engine comes first: the checksum is in it, and it says soonest what cannot work.
    capability ??= await choose(options.device ?? "auto");
    ready ??= init();
    await ready;
    engine ??= await Engine.open(capability.device === "webgpu");

    const wanted = { model: options.model, vae: options.vae, stats: options.stats };
    const { files, notKept } = await fetchAll(wanted, options.cache ?? true, abort.signal, report);
    abort.signal.throwIfAborted();

    const sizes = Object.values(files).map((file) => file?.blob.size ?? 0);
    const total = sizes.reduce((a, b) => a + b);
    const read = new Map<string, number>();
    let told = 0;
    const { average, config, vaeConfig, precision } = options;
    const all: ModelFiles = { ...files, average, config, vaeConfig, precision };
    // Tells that from here on the model before is gone, whatever comes.
    report("upload", 0, total);
    // It has the model before, and there may be no memory for three.
    pair?.close();
    const info = engine.load(all, (name: string, bytes: number) => {
      read.set(name, bytes);
      if (performance.now() - told < 50) return;
      told = performance.now();
      report("upload", [...read.values()].reduce((a, b) => a + b), total);
    }) as ModelInfo;
    const model = ++models;
    report("upload", total, total);
    info.notKept = notKept;
    info.secondsPerEvaluation = capability.device === "cpu" ? await secondsPerEvaluation(engine, info) : null;
    say({ id, loaded: info, capability });
    // It loads beside the first picture, which does not wait for it. By now there may be another model.
    const halves = capability.device === "cpu" && info.guided && !info.oneStep;
    if (halves && model === models && options.cores !== 1 && fits(total, navigator)) {
      pair = new Pair(all, (cores) => say({ cores }));
    }
  } finally {
    loading.delete(id);
  }
}

type Role = "model" | "vae" | "stats";
type Files = Pick<ModelFiles, Role>;

async function fetchAll(
  wanted: Partial<Record<Role, Weights | undefined>>,
  keep: boolean,
  signal: AbortSignal,
  report: (phase: Progress["phase"], bytes: number, total: number | null) => void,
) {
  const entries = Object.entries(wanted).filter(([, file]) => file) as [Role, Weights][];
  const files: Files = {};
  const amounts = new Map<Role, { bytes: number; total: number | null }>();
  for (const [role, file] of entries) {
    const total = file instanceof Blob ? 0 : (remote(file).bytes ?? null);
    amounts.set(role, { bytes: 0, total });
  }
  const sum = (phase: Progress["phase"]) => {
    const all = [...amounts.values()];
    const total = all.some((a) => a.total === null) ? null : all.reduce((n, a) => n + a.total!, 0);
    report(phase, all.reduce((n, a) => n + a.bytes, 0), total);
  };
  let notKept = "";
  const addressed = (file: RemoteFile) => ({ ...file, url: String(file.url) });
  const beside = entries.flatMap(([, file]) => (file instanceof Blob ? [] : [addressed(remote(file))]));
  for (const [role, file] of entries) {
    if (file instanceof Blob) {
      files[role] = { name: file.name, blob: file };
      continue;
    }
    const { url, bytes, sha256 } = remote(file);
    const obtained = await obtain({ url: String(url), bytes, sha256 }, {
      checksum: () => new Checksum(),
      beside,
      keep,
      memory: true,
      signal,
      progress: (phase, bytes, total) => {
        amounts.set(role, { bytes, total });
        sum(phase);
      },
    });
    files[role] = { name: fileName(String(url)), blob: obtained.blob };
    notKept ||= obtained.notKept;
  }
  return { files, notKept };
}

function remote(file: string | URL | RemoteFile): RemoteFile {
  return typeof file === "string" || file instanceof URL ? { url: file } : file;
}

async function generate(id: number, request: Request) {
  if (!engine) throw new Error("no model is loaded");
  const done = await engine.generate(request, (event: RawEvent, transfer: Transferable[]) => {
    say({ id, event }, transfer);
  });
  say({ id, done });
}

/** Times an evaluation on the processor: that of the second step, for the first is slower. Ends before the third. */
async function secondsPerEvaluation(engine: Engine, { samplers, defaults, classes }: ModelInfo): Promise<number> {
  let before = 0;
  let seconds = 0;
  // What has no Euler steps has one sampler, of an evaluation a step.
  const sampler = samplers.includes("euler") ? "euler" : defaults.sampler;
  const first = classes.length > 0 ? 0 : null;
  await engine.generate({ class: first, preview: false, sampler, steps: 3, cfg: 1 }, (event: RawEvent) => {
    if (event.type !== "step") return;
    const now = performance.now();
    if (event.step === 2) {
      seconds = (now - before) / 1000;
      engine.cancel();
    }
    before = now;
  });
  return seconds;
}
