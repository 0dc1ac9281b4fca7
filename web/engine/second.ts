// The second worker: a processor's second core. With an engine and a model of its own it computes the second half of
// guidance while the first worker computes the first one.

import init, { Engine } from "./wasm/tintype_web.js";
import type { FromSecond, ToSecond } from "./messages.js";

declare const self: DedicatedWorkerGlobalScope & { tintypeEngineFailed?: (message: string) => void };

const say = (message: FromSecond) => self.postMessage(message);

// Called by the engine when it breaks, which it does not survive.
self.tintypeEngineFailed = (message) => say({ failed: message.split("\n").at(-1) ?? message });

let engine: Engine | undefined;

self.onmessage = async ({ data }: MessageEvent<ToSecond>) => {
  try {
    if ("files" in data) {
      await init();
      engine = await Engine.open(false);
      engine.load(data.files, () => {});
      say({ ready: true });
    } else {
      say({ id: data.id, results: await engine!.evaluate(data.half) });
    }
  } catch (error) {
    say({ failed: (error as Error).message });
  }
};
