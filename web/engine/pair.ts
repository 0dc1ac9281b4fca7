// The second worker as the first one knows it: starts it, sends it the second half of guidance, and goes on alone
// where it fails.

import type { FromSecond, Half, ModelFiles, Rows, ToSecond } from "./messages.js";

/** GiB of memory where a browser does not tell. */
const USUAL_MEMORY = 4;

/** Milliseconds that an answer may take, besides four times what the first worker takes for its own half. */
const PATIENCE = 10_000;

/** What decides; by hand in tests. */
export interface Machine {
  hardwareConcurrency: number;
  /** In GiB, 8 where there is more. */
  deviceMemory?: number;
}

/** Whether there is a core for a second worker, and memory for the model's files once more. */
export function fits(bytes: number, { hardwareConcurrency, deviceMemory }: Machine): boolean {
  // Weights of 16 bits may be twice as large in each of the two engines; half of the memory is for others.
  return hardwareConcurrency >= 2 && 4 * bytes <= ((deviceMemory ?? USUAL_MEMORY) / 2) * 2 ** 30;
}

export class Pair {
  private worker: Worker | undefined;
  private ready = false;
  private closed = false;
  private asked = 0;
  private waiting: { id: number; resolve: (results: Rows[] | null) => void } | undefined;

  /** Starts a second worker and has it load the model; `told` hears how many compute. */
  constructor(files: ModelFiles, private told: (cores: number) => void) {
    try {
      this.worker = new Worker(new URL("./second.js", import.meta.url), { type: "module" });
      this.worker.onmessage = ({ data }: MessageEvent<FromSecond>) => this.hear(data);
      this.worker.onerror = (event) => {
        // Else it would be an error of the first worker, too.
        event.preventDefault();
        this.fail(event.message || "its script cannot be loaded");
      };
      this.send({ files });
    } catch (error) {
      this.fail((error as Error).message);
    }
  }

  /** Has the second half of guidance computed, once the second worker is ready. Null is for one that never comes. */
  ask(half: Half): Promise<Rows[] | null> | undefined {
    if (!this.ready) return undefined;
    const id = ++this.asked;
    const begun = performance.now();
    // This runs after the first worker's own half, before which it hears nothing.
    setTimeout(() => {
      const patience = PATIENCE + 4 * (performance.now() - begun);
      setTimeout(() => this.waiting?.id === id && this.fail("it does not answer"), patience);
    });
    return new Promise((resolve) => {
      this.waiting = { id, resolve };
      this.send({ id, half });
    });
  }

  /** Ends the second worker; the first one computes what it was asked for. */
  close() {
    if (this.closed) return;
    this.closed = true;
    this.ready = false;
    this.worker?.terminate();
    this.told(1);
    this.settle(null);
  }

  private send(message: ToSecond) {
    this.worker?.postMessage(message);
  }

  private hear(message: FromSecond) {
    if (this.closed) return;
    if ("failed" in message) return this.fail(message.failed);
    if ("ready" in message) {
      this.ready = true;
      this.told(2);
    } else if (message.id === this.waiting?.id) {
      this.settle(message.results);
    }
  }

  private settle(results: Rows[] | null) {
    const waiting = this.waiting;
    this.waiting = undefined;
    waiting?.resolve(results);
  }

  private fail(reason: string) {
    if (this.closed) return;
    console.warn(`Tintype computes on one core, as its second worker stopped (${reason}).`);
    this.close();
  }
}
