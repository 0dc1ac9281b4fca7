/** A file on a server. With a checksum it is kept under that version and checked; without one it is
 * kept under its address and checked against what first arrived. */
export interface RemoteFile {
  url: string | URL;
  /** Size in bytes, for progress before the server answers; another one is an error. */
  bytes?: number;
  /** SHA-256, 64 hexadecimal digits. */
  sha256?: string;
}

/** Weights: an address, or a file that a person chose or dropped. */
export type Weights = string | URL | RemoteFile | File;

export interface LoadOptions {
  /** The network's weights: `.safetensors` (read piece by piece) or `.pt` and `.pth` (read at once). */
  model: Weights;
  /** Which average of a PyTorch file that holds several, counted from 1 (`info.averages`); the first by default. */
  average?: number;
  /** The autoencoder of a latent model; of a RAE its decoder. */
  vae?: Weights;
  /** Statistics of the latents, where the network does not hold them (LightningDiT, DiT-DH). */
  stats?: Weights;
  /** Configuration of the network as text, where its weights do not hold it. */
  config?: string;
  /** Configuration of the autoencoder as text: diffusers' or transformers' `config.json`, where its weights do not tell all. */
  vaeConfig?: string;
  /** Where to compute; `auto` takes a GPU, and the processor where there is none. */
  device?: "auto" | "webgpu" | "cpu";
  /** Dtype of the network; by default that of the weights where the GPU has it, else `f32`.
   * `f32` makes the pictures of the command line. */
  precision?: "f32" | "f16" | "bf16";
  /** The most cores that compute on the processor: 2, where it has them and memory holds the model twice, or 1. The
   * pictures are the same. */
  cores?: 1 | 2;
  /** Whether files from a server are kept for the next visit; they are by default. */
  cache?: boolean;
  /** Told while the files arrive and go to the device. */
  onProgress?: (progress: Progress) => void;
  /** Stops loading. What has arrived of a file is kept, and the next attempt goes on from there. */
  signal?: AbortSignal;
}

export interface Progress {
  /** `download`: from the server. `verify`: checking what an earlier visit kept. `upload`: to the device. */
  phase: "download" | "verify" | "upload";
  /** Bytes so far and in all, of all files; `total` is null where a server does not tell. */
  bytes: number;
  total: number | null;
  /** Since loading began. */
  seconds: number;
}

/** A file of a server, or the part of one, in the browser's private file system. */
export interface KeptFile {
  bytes: number;
  whole: boolean;
  /** Its SHA-256, which it had when it arrived; null for a part. */
  sha256: string | null;
}

export interface FetchProgress {
  /** `download`: from the server. `verify`: checking what is there. `wait`: the connection broke, and is tried again. */
  phase: "download" | "verify" | "wait";
  /** Bytes so far and in all; `total` is null where a server does not tell. */
  bytes: number;
  total: number | null;
}

/** What the engine can load. */
export interface Abilities {
  /** The networks that it knows, by name. */
  networks: string[];
  /** Bytes of the largest file that it reads tensor by tensor (`.safetensors`). */
  largest: number;
  /** Bytes of the largest file that it reads at once (PyTorch's). */
  largestAtOnce: number;
}

/** What this browser can compute on. */
export interface Capability {
  device: "webgpu" | "cpu";
  /** What the GPU calls itself; empty on the processor. */
  adapter: string;
  /** Whether the GPU is the processor in disguise. */
  software: boolean;
  /** Whether the GPU computes in 16-bit numbers. */
  f16: boolean;
  /** A sentence for people: why not a GPU, or what is odd about it. Empty where all is well. */
  notice: string;
}

/** What a quality means for a model. */
export interface Quality {
  name: "draft" | "good" | "best";
  sampler: string;
  steps: number;
}

export interface ModelInfo {
  /** Hi-DiT, SiT, LightningDiT, DiT-DH, JiT, HDiT, iMF, pMF. */
  architecture: string;
  /** Averages that the network's file holds, in the order of their numbers; empty where there is nothing to choose. */
  averages: string[];
  /** Fingerprint of the network's weights. */
  fingerprint: string;
  /** The classes by name, with synonyms after commas, in the order of their numbers. */
  classes: string[];
  /** Width and height of the pictures. */
  imageSize: [number, number];
  /** The time below which a Hi-DiT's pixels take part; null for other networks. */
  gate: number | null;
  /** What the authors sample with. */
  defaults: {
    sampler: string;
    steps: number;
    cfg: number;
    cfgInterval: [number, number];
    cfgChannels: number | null;
    shift: number;
  };
  /** Useful ranges of the settings, `[min, max]`. */
  ranges: {
    count: [number, number];
    steps: [number, number];
    cfg: [number, number];
    shift: [number, number];
    tau: [number, number];
    blend: [number, number];
  };
  /** Whether it predicts without a class, too, and so can be guided. */
  guided: boolean;
  /** The settings that only some networks and samplers have. */
  fields: Field[];
  /** The samplers of the network. */
  samplers: string[];
  /** Evaluations of the network that a step takes without guidance, by sampler; null where the sampler chooses its
   * steps. */
  evaluations: Record<string, number | null>;
  /** Steps and sampler together, the fastest first; several may be the same. */
  qualities: Quality[];
  /** Whether it is made for one evaluation a picture, with guidance as one of its inputs: pictures can follow every
   * change. */
  oneStep: boolean;
  device: "webgpu" | "cpu";
  precision: "f32" | "f16" | "bf16";
  /** Tensors in the files that the networks have no use for. */
  unused: string[];
  /** Seconds that an evaluation without guidance takes on the processor, measured while loading; null on a GPU, whose
   * first ones say nothing about the rest. */
  secondsPerEvaluation: number | null;
  /** Why files were not kept for the next visit; empty where they were. */
  notKept: string;
}

/** A setting that only some networks, samplers and grids of times have. */
export interface Field {
  /** Its name in a request; options of k-diffusion are in `karras` there. */
  name: "times" | "shift" | "cfgInterval" | "cfgAdaptive" | keyof KarrasOptions;
  /** What it is called. */
  label: string;
  /** What it does, in a line. */
  summary: string;
  /** The smallest and the largest number, infinite where there is none; null for a choice. */
  range: [number, number] | null;
  /** What can be chosen, the network's default first; empty for numbers. */
  choices: string[];
  /** The network's default of each number of it, null where it has none; empty for a choice. */
  default: (number | null)[];
  /** Samplers that it acts on, each with the grids of times at which it does. */
  applies: Record<string, string[]>;
}

/** Another seed whose noise has a share in that of a picture. */
export interface Blend {
  seed: number | bigint;
  /** 0 is the picture's own seed alone, 1 the other one. */
  amount: number;
}

/** What to make. Options are those of `tintype generate`; what is absent is the model's default. */
export interface Request {
  /** A place in `info.classes`, or as text name, synonym, part of a name or number; without one the null class. */
  class?: string | number | null;
  /** Seed of the first picture, 0 by default. */
  seed?: number | bigint;
  /** Number of the picture under this seed. */
  index?: number;
  /** How many pictures, of consecutive seeds. */
  count?: number;
  /** Another seed whose noise has a share in that of every picture. */
  blend?: Blend;
  /** The last seed of `count` pictures, 2 or more, that lie evenly between two, in place of consecutive seeds; the
   * first is `seed`. Not with `blend`. */
  toSeed?: number | bigint;
  steps?: number;
  sampler?: string;
  /** Guidance scale; 1 is off, 0 leaves the class out. */
  cfg?: number;
  /** The times that guidance acts in, 1 is noise; of HDiT noise levels. */
  cfgInterval?: [number, number];
  cfgChannels?: number;
  /** Time shift of a flow, as LightningDiT's: below 1, more of the steps at high noise; 0 is none. */
  shift?: number;
  /** Where a flow's steps lie; `uniform` by default. */
  times?: "uniform" | "logit-normal" | "karras";
  /** Guidance ends for an image once its two predictions agree to this cosine. */
  cfgAdaptive?: number;
  /** Options of k-diffusion's samplers. */
  karras?: KarrasOptions;
  /** The time below which a Hi-DiT's pixels take part. */
  tau?: number;
  /** Whether a Hi-DiT also decodes its latent, for comparison. */
  compare?: boolean;
  /** Whether steps show the picture so far; they do by default. */
  preview?: boolean;
}

/** Options of k-diffusion's samplers, under its names; what is absent is its default. */
export interface KarrasOptions {
  eta?: number;
  s_noise?: number;
  s_churn?: number;
  s_tmin?: number;
  s_tmax?: number;
  rho?: number;
  sigma_min?: number;
  sigma_max?: number;
}

/** How a picture was made: what every PNG of Tintype carries. */
export interface Origin {
  version: string;
  /** Fingerprints of the weights. */
  model: string;
  autoencoder?: string;
  statistics?: string;
  /** Of the network of autoguidance, which a page does not load. */
  guide?: string;
  class_name: string;
  class: number | null;
  seed: number | bigint;
  index: number | bigint;
  blend?: Blend;
  settings: {
    sampler: string;
    steps: number;
    guidance: { scale: number; low: number; high: number; channels: number | null };
    shift: number;
    times?: "uniform" | "logit-normal" | "karras";
    agreement?: number;
    karras?: KarrasOptions;
    tau?: number;
    keep_latent: boolean;
  };
  precision: "f32" | "f16" | "bf16";
  device: string;
}

/** A step is about to be taken. */
export interface StepEvent {
  type: "step";
  /** Counted from 0. */
  step: number;
  /** How many there are; null for adaptive samplers. */
  steps: number | null;
  /** Time of a flow (1 is noise), noise level of a denoiser. */
  time: number;
  /** Whether a Hi-DiT's pixel stream is at work. */
  pixelsAtWork: boolean;
  /** The place in the request of the first picture in hand. */
  first: number;
  /** The pictures in hand so far. */
  previews: ImageData[];
}

/** A picture is finished. */
export interface PictureEvent {
  type: "picture";
  /** Its place in the request. */
  index: number;
  image: ImageData;
  /** The decoded latent of a Hi-DiT, where `compare` asked for it. */
  latent: ImageData | null;
  /** How it was made. */
  origin: Origin;
  /** A PNG file that carries `origin`. */
  png: Blob;
  /** A name for that file. */
  name: string;
}

/** `cancel` ended the request; nothing follows. */
export interface CancelledEvent {
  type: "cancelled";
}

export type TintypeEvent = StepEvent | PictureEvent | CancelledEvent;
