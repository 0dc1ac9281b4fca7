// Requests as the part of an address behind "#": `#class=fruit&seed=7`.

import type { KarrasOptions, Request } from "../engine/index.js";
import { seedOf } from "./seed.js";

const NUMBERS = ["seed", "index", "steps", "cfg", "tau", "shift", "cfgChannels", "cfgAdaptive"] as const;

/** The names of k-diffusion's options. */
export const KARRAS = ["eta", "s_noise", "s_churn", "s_tmin", "s_tmax", "rho", "sigma_min", "sigma_max"] as const satisfies readonly (keyof KarrasOptions)[];

export function encode(request: Request): string {
  const fields = new URLSearchParams();
  if (request.class !== undefined && request.class !== null) fields.set("class", String(request.class));
  for (const key of NUMBERS) {
    const value = request[key];
    if (value !== undefined && !(key === "index" && value === 0)) fields.set(key, String(value));
  }
  if (request.blend !== undefined) fields.set("blend", `${request.blend.seed},${request.blend.amount}`);
  if (request.sampler !== undefined) fields.set("sampler", request.sampler);
  if (request.times !== undefined) fields.set("times", request.times);
  if (request.cfgInterval !== undefined) fields.set("cfgInterval", request.cfgInterval.join(","));
  for (const key of KARRAS) {
    const value = request.karras?.[key];
    if (value !== undefined) fields.set(key, String(value));
  }
  return `#${fields}`;
}

/** What an address asks for; null where it asks for nothing. Fields that make no sense are left out. */
export function decode(hash: string): Request | null {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const request: Request = {};
  const name = fields.get("class");
  if (name) request.class = name;
  for (const key of NUMBERS) {
    const text = fields.get(key) ?? "";
    const value = key === "seed" ? seedOf(text) : numberOf(text);
    if (value !== null) Object.assign(request, { [key]: value });
  }
  const [seed = "", amount = ""] = fields.get("blend")?.split(",") ?? [];
  const [other, share] = [seedOf(seed), numberOf(amount)];
  if (other !== null && share !== null) request.blend = { seed: other, amount: share };
  const sampler = fields.get("sampler");
  if (sampler) request.sampler = sampler;
  const times = fields.get("times");
  if (times === "uniform" || times === "logit-normal" || times === "karras") request.times = times;
  const interval = fields.get("cfgInterval")?.split(",").map(Number);
  if (interval?.length === 2 && interval.every(Number.isFinite)) request.cfgInterval = interval as [number, number];
  const karras: KarrasOptions = {};
  for (const key of KARRAS) {
    const value = numberOf(fields.get(key) ?? "");
    if (value !== null) karras[key] = value;
  }
  if (Object.keys(karras).length > 0) request.karras = karras;
  return Object.keys(request).length > 0 ? request : null;
}

/** The number of a text; null where it is none. */
function numberOf(text: string): number | null {
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : null;
}
