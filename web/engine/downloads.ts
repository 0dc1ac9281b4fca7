import type { FromDownloader, ToDownloader } from "./messages.js";
import { look, remove, sizeOf } from "./store.js";
import type { Abilities, FetchProgress, KeptFile, RemoteFile } from "./types.js";

interface Options {
  onProgress?: (progress: FetchProgress) => void;
  /** Stops it. What has arrived is kept, and the next attempt goes on from there. */
  signal?: AbortSignal;
}

/**
 * Files of other sites in the browser's private file system: fetched before anybody loads them, and whether or
 * not a model is at work, in a worker of their own.
 *
 * ```ts
 * const downloads = await Downloads.start();
 * await downloads.fetch(file, { onProgress: ({ bytes, total }) => console.log(bytes, total) });
 * const model = await downloads.open(file);
 * ```
 *
 * Only `fetch` and `size` make requests.
 */
export class Downloads {
  private worker = new Worker(new URL("./downloader.js", import.meta.url), { type: "module" });
  private failed: (error: Error) => void = () => undefined;
  private failure: Promise<never>;

  private constructor() {
    this.failure = new Promise((_, reject) => (this.failed = reject));
    this.failure.catch(() => undefined);
    this.worker.onerror = ({ message }) => this.failed(new Error(`The downloads stopped (${message || "their script cannot be loaded"}). Reload the page.`));
  }

  /** Starts the worker. */
  static async start(): Promise<Downloads> {
    const downloads = new Downloads();
    downloads.abilities = (await downloads.ask({ call: "abilities" })) as Abilities;
    return downloads;
  }

  /** What the engine can load. */
  abilities!: Abilities;

  /** Fetches what is missing of a file, checks it and keeps it. */
  async fetch(file: RemoteFile & { most?: number }, options: Options = {}): Promise<void> {
    await this.ask({ call: "fetch", file: plain(file) }, options);
  }

  /** A file that is kept whole, checked; null where there is none, or it is damaged. */
  async open(file: RemoteFile, options: Options = {}): Promise<File | null> {
    return (await this.ask({ call: "open", file: plain(file) }, options)) as File | null;
  }

  /** What is kept of a file; null for nothing. */
  kept(file: RemoteFile): Promise<KeptFile | null> {
    return look(plain(file));
  }

  /** Removes what is kept of a file. */
  remove(file: RemoteFile): Promise<void> {
    return remove(plain(file));
  }

  /** Asks the server for a file's size in bytes. */
  size(file: RemoteFile, signal?: AbortSignal): Promise<number> {
    return sizeOf(plain(file).url, signal);
  }

  /** Ends the worker. */
  close() {
    this.failed(new Error("The downloads were closed."));
    this.worker.terminate();
  }

  private ask(message: ToDownloader, { onProgress, signal }: Options = {}): Promise<unknown> {
    signal?.throwIfAborted();
    const { port1: here, port2: there } = new MessageChannel();
    const stop = () => here.postMessage("stop");
    signal?.addEventListener("abort", stop);
    const answer = new Promise((resolve, reject) => {
      here.onmessage = ({ data }: MessageEvent<FromDownloader>) => {
        if ("progress" in data) onProgress?.(data.progress);
        else if ("done" in data) resolve(data.done);
        else reject(Object.assign(new Error(data.error), { name: data.name }));
      };
    });
    this.worker.postMessage(message, [there]);
    return Promise.race([answer, this.failure]).finally(() => {
      signal?.removeEventListener("abort", stop);
      here.close();
    });
  }
}

/** Addresses are the page's; the worker has another. */
function plain<T extends RemoteFile>(file: T): T & { url: string } {
  return { ...file, url: new URL(file.url, document.baseURI).href };
}
