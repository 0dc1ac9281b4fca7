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
  | { failed: string };

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
