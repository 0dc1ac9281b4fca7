// What the page and its worker say to each other.

import type { Capability, LoadOptions, ModelInfo, Origin, Progress, Request } from "./types.js";

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

export type RawEvent =
  | {
      type: "step";
      step: number;
      steps: number | null;
      time: number;
      pixelsAtWork: boolean;
      first: number;
      previews: RawPicture[];
    }
  | {
      type: "picture";
      index: number;
      image: RawPicture;
      latent: RawPicture | null;
      origin: Origin;
      png: Uint8Array<ArrayBuffer>;
      name: string;
    };

export type FromWorker =
  | { id: number; progress: Progress }
  | { id: number; loaded: ModelInfo; capability: Capability }
  | { id: number; event: RawEvent }
  | { id: number; done: boolean }
  | { id: number; error: string; name: string }
  | { failed: string };
