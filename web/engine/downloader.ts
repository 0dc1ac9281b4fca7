// The worker of `Downloads`: fetches files into the private file system. Of the engine it has the checksum, and
// what it can load.

import init, { Checksum, largestFile, networks } from "./wasm/tintype_web.js";
import type { FromDownloader, ToDownloader } from "./messages.js";
import { FileError, fileName, find, obtain, type Surroundings, type Wanted } from "./store.js";
import type { Abilities, FetchProgress } from "./types.js";

declare const self: DedicatedWorkerGlobalScope;

/** Seconds until the next attempt, of those in a row that brought nothing. */
const WAITS = [1, 2, 4, 8, 8];
/** Milliseconds between two reports of progress. */
const REPORTS = 100;

let ready: ReturnType<typeof init> | undefined;

self.onmessage = async ({ data, ports }: MessageEvent<ToDownloader>) => {
  const port = ports[0]!;
  const say = (message: FromDownloader) => port.postMessage(message);
  const abort = new AbortController();
  port.onmessage = () => abort.abort();
  try {
    await (ready ??= init());
    say({ done: await answer(data, abort.signal, seldom((progress) => say({ progress }))) });
  } catch (error) {
    const { message, name } = error as Error;
    say({ error: message, name });
  }
};

async function answer(message: ToDownloader, signal: AbortSignal, report: (progress: FetchProgress) => void): Promise<unknown> {
  if (message.call === "abilities") {
    return { networks: networks(), largest: largestFile(false), largestAtOnce: largestFile(true) } satisfies Abilities;
  }
  const { file } = message;
  const around: Surroundings = {
    checksum: () => new Checksum(),
    keep: true,
    memory: false,
    signal,
    progress: (phase, bytes, total) => report({ phase, bytes, total }),
  };
  if (message.call === "fetch") return fetchWhole(file, around, report);
  const blob = await find(file, around);
  return blob && new File([blob], fileName(file.url));
}

/** Fetches a file, through connections that break. */
async function fetchWhole(file: Wanted, around: Surroundings, report: (progress: FetchProgress) => void) {
  let failed = 0;
  let most = 0;
  const last: FetchProgress = { phase: "wait", bytes: 0, total: null };
  const progress: Surroundings["progress"] = (phase, bytes, total) => {
    if (phase === "download" && bytes > most) [most, failed] = [bytes, 0];
    Object.assign(last, { bytes, total });
    around.progress(phase, bytes, total);
  };
  for (;;) {
    try {
      const { notKept } = await obtain(file, { ...around, progress });
      if (notKept) throw new FileError(`${fileName(file.url)} cannot be kept: ${notKept}.`);
      return;
    } catch (error) {
      const wait = WAITS[failed++];
      if (!(error instanceof FileError && error.passing) || wait === undefined) throw error;
      report({ ...last });
      await pause(wait, around.signal);
    }
  }
}

function pause(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}

/** Leaves out what is followed at once by more of its phase. */
function seldom(report: (progress: FetchProgress) => void): (progress: FetchProgress) => void {
  let [told, phase] = [0, ""];
  let timer: ReturnType<typeof setTimeout> | undefined;
  return (progress) => {
    clearTimeout(timer);
    const tell = () => {
      [told, phase] = [performance.now(), progress.phase];
      report(progress);
    };
    const wait = progress.phase === phase ? told + REPORTS - performance.now() : 0;
    if (wait > 0) timer = setTimeout(tell, wait);
    else tell();
  };
}
