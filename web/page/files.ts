// Files that a person drops or chooses: which is the network, which the autoencoder.

import type { LoadOptions } from "../engine/index.js";

type Role = "model" | "vae" | "stats" | "config";

/** Load options for the files of a model; the error is a sentence. */
export async function sort(files: readonly File[]): Promise<Pick<LoadOptions, "model" | "vae" | "stats" | "config">> {
  const sorted: Partial<Record<Role, File>> = {};
  for (const file of files) {
    const role = await roleOf(file);
    const other = sorted[role];
    if (other) throw new Error(`Both ${other.name} and ${file.name} look like ${NAMES[role]}. Drop one of each.`);
    sorted[role] = file;
  }
  const { model, config, ...rest } = sorted;
  if (!model) throw new Error("The network's weights are missing. Drop them together with the autoencoder.");
  return { model, ...rest, ...(config && { config: await config.text() }) };
}

const NAMES: Record<Role, string> = {
  model: "the network",
  vae: "the autoencoder",
  stats: "the statistics of the latents",
  config: "the network's configuration",
};

/** A tensor of every decoder of a RAE, and of nothing else. */
const RAE = "trainable_cls_token";

/** Looks at the names of a file's tensors. */
async function roleOf(file: File): Promise<Role> {
  if (/\.(json|ya?ml)$/i.test(file.name)) return "config";
  if (/\.(pt|ckpt|pth|bin)$/i.test(file.name)) return (await isRae(file)) ? "vae" : byName(file.name);
  if (!/\.safetensors$/i.test(file.name)) {
    throw new Error(`${file.name} is no model: weights end in .safetensors, .pt or .pth, configurations in .json or .yaml.`);
  }
  const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  let names: string[];
  try {
    if (length > file.size) throw new Error("it is truncated");
    names = Object.keys(JSON.parse(await file.slice(8, 8 + length).text()) as object);
  } catch (error) {
    throw new Error(`${file.name} is damaged (${(error as Error).message}). Copy or download it again.`);
  }
  if (names.some((name) => /^(decoder|post_quant_conv)\./.test(name) || name === RAE)) return "vae";
  if (names.some((name) => ["latents_scale", "mean", "var"].includes(name))) return "stats";
  return "model";
}

/** By what a PyTorch file is called: its tensors are for the engine to read. */
function byName(name: string): Role {
  if (/stat/i.test(name)) return "stats";
  return /vae|autoencoder|first_stage|^diffusion_pytorch_model/i.test(name) && !/dit|sit/i.test(name.replace(/vavae|va-vae/gi, "")) ? "vae" : "model";
}

/** Bytes in which a PyTorch file has the names of its tensors: they come before the numbers. */
const BEGINNING = 1 << 20;

/** Whether it is a RAE's decoder, which its authors call `model.pt`. */
async function isRae(file: File): Promise<boolean> {
  return (await file.slice(0, BEGINNING).text()).includes(RAE);
}
