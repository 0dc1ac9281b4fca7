// Files that a person drops or chooses: which is the network, which the autoencoder.

import type { LoadOptions } from "../engine/index.js";

type Role = "model" | "vae" | "stats";

/** Load options for the files of a model; the error is a sentence. */
export async function sort(files: readonly File[]): Promise<Pick<LoadOptions, "model" | "vae" | "stats" | "config">> {
  const sorted: Partial<Record<Role, File>> & { config?: string } = {};
  for (const file of files) {
    if (/\.(json|ya?ml)$/i.test(file.name)) {
      sorted.config = await file.text();
      continue;
    }
    const role = await roleOf(file);
    const other = sorted[role];
    if (other) throw new Error(`Both ${other.name} and ${file.name} look like ${NAMES[role]}. Drop one of each.`);
    sorted[role] = file;
  }
  const { model, ...rest } = sorted;
  if (!model) throw new Error("The network's weights are missing. Drop them together with the autoencoder.");
  return { model, ...rest };
}

const NAMES: Record<Role, string> = {
  model: "the network",
  vae: "the autoencoder",
  stats: "the statistics of the latents",
};

/** Looks at the names of a file's tensors. */
async function roleOf(file: File): Promise<Role> {
  if (/\.(pt|ckpt|pth|bin)$/i.test(file.name)) return byName(file.name);
  if (!/\.safetensors$/i.test(file.name)) {
    throw new Error(`${file.name} is no model: weights end in .safetensors or .pt, configurations in .json or .yaml.`);
  }
  const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  let names: string[];
  try {
    if (length > file.size) throw new Error("it is truncated");
    names = Object.keys(JSON.parse(await file.slice(8, 8 + length).text()) as object);
  } catch (error) {
    throw new Error(`${file.name} is damaged (${(error as Error).message}). Copy or download it again.`);
  }
  if (names.some((name) => /^(decoder|post_quant_conv)\./.test(name))) return "vae";
  if (names.some((name) => name === "latents_scale" || name === "mean")) return "stats";
  return "model";
}

/** PyTorch's files tell their tensors only to the engine. */
function byName(name: string): Role {
  if (/stat/i.test(name)) return "stats";
  return /vae|autoencoder|first_stage|^diffusion_pytorch_model/i.test(name) && !/dit|sit/i.test(name.replace(/vavae|va-vae/gi, "")) ? "vae" : "model";
}
