// What the page and its workers say to each other.

import type { Capability, FetchProgress, LoadOptions, ModelInfo, PictureEvent, Progress, Request, StepEvent } from "./types.js";

/** Options that can change threads; addresses are absolute. */
export type WorkerLoadOptions = Omit<LoadOptions, "onProgress" | "signal">;

export type ToWorker =
  | { call: "load"; id: number; options: WorkerLoadOptions }
  | { call: "abort"; id: number }
  | { call: "generate"; id: number; request: Request }
  | { call: "cancel" };

export interface RawPicture {
  width: number;
  height: number;
  pixels: Uint8ClampedArray<ArrayBuffer>;
}

/** Events with buffers instead of images, which can change threads without a copy. */
export type RawEvent =
  | (Omit<StepEvent, "previews"> & { previews: RawPicture[] })
  | (Omit<PictureEvent, "image" | "latent" | "png"> & {
      image: RawPicture;
      latent: RawPicture | null;
      png: Uint8Array<ArrayBuffer>;
    });

export type FromWorker =
  | { id: number; progress: Progress }
  | { id: number; loaded: ModelInfo; capability: Capability }
  | { id: number; event: RawEvent }
  | { id: number; done: boolean }
  | { id: number; error: string; name: string }
  | { cores: number }
  | { failed: string };

/** A model's files, in the browser's storage or memory. */
export interface ModelFiles {
  model?: NamedFile;
  average?: number | undefined;
  vae?: NamedFile;
  stats?: NamedFile;
  config?: string | undefined;
  vaeConfig?: string | undefined;
  precision?: LoadOptions["precision"];
}

interface NamedFile {
  name: string;
  blob: Blob;
}

/** Samples of a tensor, `[samples, channels, height, width]`. */
export interface Rows {
  shape: Uint32Array;
  values: Float32Array;
}

/** What the second half of guidance is evaluated at: one stream, or a Hi-DiT's latents and pixels. */
export interface Half {
  streams: Rows[];
  times: Float32Array;
  labels: Int32Array;
  /** The time of a Hi-DiT's gate, where there are pixels. */
  gate: number | undefined;
}

export type ToSecond = { files: ModelFiles } | { id: number; half: Half };

export type FromSecond = { ready: true } | { id: number; results: Rows[] } | { failed: string };

/** A file with an absolute address. */
interface Addressed {
  url: string;
  bytes?: number;
  most?: number;
  sha256?: string;
}

/** Each with a port that brings the answer; whatever comes back through it stops the work. */
export type ToDownloader = { call: "abilities" } | { call: "fetch" | "open"; file: Addressed };

export type FromDownloader = { progress: FetchProgress } | { done: unknown } | { error: string; name: string };
