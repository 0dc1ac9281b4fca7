import type { FromWorker, RawEvent, RawPicture, ToWorker } from "./messages.js";
import type { Capability, LoadOptions, ModelInfo, Progress, Request, TintypeEvent, Weights } from "./types.js";

/** Something that cannot be done; the message is a sentence for people. */
export class TintypeError extends Error {
  override name = "TintypeError";
}

interface Waiting {
  onProgress?: ((progress: Progress) => void) | undefined;
  onEvent?: (event: RawEvent) => void;
  resolve: (message: FromWorker) => void;
  reject: (error: Error) => void;
}

/**
 * A model that makes pictures, in a worker of its own with its own device, so that the page never
 * waits for it.
 *
 * ```ts
 * const tintype = await Tintype.load({ model: "hidit.safetensors", vae: "vae-decoder.safetensors" });
 * for await (const event of tintype.generate({ class: "fruit", seed: 7 })) {
 *   if (event.type === "picture") context.putImageData(event.image, 0, 0);
 * }
 * ```
 */
export class Tintype {
  private worker: Worker;
  private waiting = new Map<number, Waiting>();
  private calls = 0;
  private failure: TintypeError | undefined;
  private model: ModelInfo | undefined;
  private device: Capability | undefined;
  private computing = 1;

  /** Called when {@link cores} changes. */
  onCores: ((cores: number) => void) | undefined;

  private constructor() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.hear(data);
    this.worker.onerror = (event) => this.fail(event.message || "its script cannot be loaded");
  }

  /** Starts an engine and loads a model into it. */
  static async load(options: LoadOptions): Promise<Tintype> {
    const tintype = new Tintype();
    try {
      await tintype.use(options);
      return tintype;
    } catch (error) {
      tintype.close();
      throw error;
    }
  }

  /** Loads another model in place of the one before. The device stays; `device` is not looked at. */
  async use(options: LoadOptions): Promise<ModelInfo> {
    const { onProgress, signal, ...rest } = options;
    signal?.throwIfAborted();
    const id = ++this.calls;
    const plain = {
      ...rest,
      model: absolute(options.model),
      ...(options.vae && { vae: absolute(options.vae) }),
      ...(options.stats && { stats: absolute(options.stats) }),
    };
    const abort = () => this.send({ call: "abort", id });
    signal?.addEventListener("abort", abort);
    try {
      const answer = await this.ask({ call: "load", id, options: plain }, { onProgress });
      if (!("loaded" in answer)) throw new TintypeError("the engine gave no answer");
      this.model = answer.loaded;
      this.device = answer.capability;
      return answer.loaded;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** What the loaded model is. */
  get info(): ModelInfo {
    return this.model!;
  }

  /** Whether the engine stopped for good; only a new one helps. */
  get failed(): boolean {
    return this.failure !== undefined;
  }

  /** What it computes on, and why. */
  get capability(): Capability {
    return this.device!;
  }

  /** How many cores of the processor compute: a while after a model is loaded a second one takes half of each guided
   * evaluation, where there is room. On a GPU 1. */
  get cores(): number {
    return this.computing;
  }

  /**
   * Makes pictures and tells what happens: a `step` before each step, a `picture` for each finished
   * one, and `cancelled` where {@link cancel} ended it. One request at a time. Leaving the loop
   * cancels, too.
   */
  async *generate(request: Request): AsyncGenerator<TintypeEvent, void, undefined> {
    const events: TintypeEvent[] = [];
    let wake = () => {};
    let over: FromWorker | undefined;
    let failed: Error | undefined;
    const answer = this.ask({ call: "generate", id: ++this.calls, request: given(request) }, {
      onEvent: (event) => {
        events.push(cooked(event));
        wake();
      },
    });
    answer.then(
      (message) => (over = message),
      (error: Error) => (failed = error),
    ).finally(() => wake());
    try {
      for (;;) {
        const event = events.shift();
        if (event) yield event;
        else if (failed) throw failed;
        else if (over) break;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
      if ("done" in over && !over.done) yield { type: "cancelled" };
    } finally {
      if (!over && !failed) {
        this.cancel();
        // Until then the engine would refuse the next request.
        await answer.catch(() => undefined);
      }
    }
  }

  /** Ends the request in hand after its step; pictures that are finished stay. */
  cancel(): void {
    this.send({ call: "cancel" });
  }

  /** Ends the worker and frees the device. */
  close(): void {
    this.fail("it was closed");
  }

  private send(message: ToWorker) {
    if (!this.failure) this.worker.postMessage(message);
  }

  private ask(
    message: ToWorker & { id: number },
    listeners: Pick<Waiting, "onEvent" | "onProgress">,
  ): Promise<FromWorker> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      this.waiting.set(message.id, { ...listeners, resolve, reject });
      this.send(message);
    });
  }

  private hear(message: FromWorker) {
    if ("failed" in message) return this.fail(message.failed);
    if ("cores" in message) {
      this.computing = message.cores;
      return this.onCores?.(message.cores);
    }
    const waiting = this.waiting.get(message.id);
    if (!waiting) return;
    if ("progress" in message) return waiting.onProgress?.(message.progress);
    if ("event" in message) return waiting.onEvent?.(message.event);
    this.waiting.delete(message.id);
    if ("error" in message) {
      const error = new TintypeError(message.error);
      error.name = message.name;
      waiting.reject(error);
    } else {
      waiting.resolve(message);
    }
  }

  private fail(reason: string) {
    // A broken engine would keep its model in memory, and its second worker.
    this.worker.terminate();
    this.failure ??= new TintypeError(`The engine stopped (${reason}). Load the model again.`);
    for (const { reject } of this.waiting.values()) reject(this.failure);
    this.waiting.clear();
  }
}

/** Addresses are the page's; the worker has another. */
function absolute(weights: Weights): Weights {
  if (weights instanceof Blob) return weights;
  if (typeof weights === "string" || weights instanceof URL) return new URL(weights, document.baseURI).href;
  return { ...weights, url: new URL(weights.url, document.baseURI).href };
}

/** What a request can have. */
const FIELDS: Record<keyof Request, true> = {
  class: true,
  seed: true,
  index: true,
  count: true,
  blend: true,
  toSeed: true,
  steps: true,
  sampler: true,
  cfg: true,
  cfgInterval: true,
  cfgChannels: true,
  shift: true,
  times: true,
  cfgAdaptive: true,
  karras: true,
  tau: true,
  compare: true,
  preview: true,
};

/** A request without what is undefined, which the engine takes for a value. It does not see what it has no name for. */
export function given(request: Request): Request {
  const unknown = Object.keys(request).find((name) => !Object.hasOwn(FIELDS, name));
  if (unknown !== undefined) throw new TintypeError(`A request has no field “${unknown}”.`);
  return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined));
}

function cooked(event: RawEvent): TintypeEvent {
  const image = ({ pixels, width, height }: RawPicture) => new ImageData(pixels, width, height);
  if (event.type === "step") return { ...event, previews: event.previews.map(image) };
  return {
    ...event,
    image: image(event.image),
    latent: event.latent && image(event.latent),
    png: new Blob([event.png], { type: "image/png" }),
  };
}
