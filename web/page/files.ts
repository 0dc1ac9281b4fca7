// Files that a person drops or chooses: which is the network, which the autoencoder.

import type { LoadOptions } from "../engine/index.js";

type Role = "model" | "vae" | "stats" | "config" | "vaeConfig";

/** Load options for the files of a model; the error is a sentence. */
export async function sort(files: readonly File[]): Promise<Pick<LoadOptions, Role>> {
  const sorted: Partial<Record<Role, File>> = {};
  for (const file of files) {
    const role = await roleOf(file);
    const other = sorted[role];
    if (other) throw new Error(`Both ${other.name} and ${file.name} look like ${NAMES[role]}. Drop one of each.`);
    sorted[role] = file;
  }
  const { model, config, vaeConfig, ...rest } = sorted;
  if (!model) throw new Error("The network's weights are missing. Drop them together with the autoencoder.");
  if (vaeConfig && !rest.vae) throw new Error(`${vaeConfig.name} describes an autoencoder, and there is none. Drop it together with its weights.`);
  return { model, ...rest, ...(config && { config: await config.text() }), ...(vaeConfig && { vaeConfig: await vaeConfig.text() }) };
}

const NAMES: Record<Role, string> = {
  model: "the network",
  vae: "the autoencoder",
  stats: "the statistics of the latents",
  config: "the network's configuration",
  vaeConfig: "the autoencoder's configuration",
};

/** A tensor of every decoder of a RAE, and of nothing else. */
const RAE = "trainable_cls_token";

/** Looks at the names of a file's tensors. */
async function roleOf(file: File): Promise<Role> {
  if (/\.(json|ya?ml)$/i.test(file.name)) return (await isOfAutoencoder(file)) ? "vaeConfig" : "config";
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

/** Whether a configuration is diffusers' of an autoencoder, or transformers' ViT-MAE, which a RAE's decoder is. */
async function isOfAutoencoder(file: File): Promise<boolean> {
  let config: Record<string, unknown>;
  try {
    config = ((JSON.parse(await file.text()) as unknown) ?? {}) as Record<string, unknown>;
  } catch {
    return false; // YAML
  }
  const { _class_name: name, block_out_channels: widths, model_type: type } = config;
  const isDiffusers = typeof name === "string" ? /Autoencoder|VQ/.test(name) : widths !== undefined;
  const { decoder_hidden_size: width, decoder_num_attention_heads: heads } = config;
  return isDiffusers || type === "vit_mae" || width !== undefined || heads !== undefined;
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
