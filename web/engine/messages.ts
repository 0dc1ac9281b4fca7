// What the page and its worker say to each other.

import type { Capability, LoadOptions, ModelInfo, PictureEvent, Progress, Request, StepEvent } from "./types.js";

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
