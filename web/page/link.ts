// Requests as the part of an address behind "#": `#class=fruit&seed=7`.

import type { Request } from "../engine/index.js";

const NUMBERS = ["seed", "index", "steps", "cfg", "tau", "shift", "cfgChannels", "cfgAdaptive"] as const;

export function encode(request: Request): string {
  const fields = new URLSearchParams();
  if (request.class !== undefined && request.class !== null) fields.set("class", String(request.class));
  for (const key of NUMBERS) {
    const value = request[key];
    if (value !== undefined && !(key === "index" && value === 0)) fields.set(key, String(value));
  }
  if (request.sampler !== undefined) fields.set("sampler", request.sampler);
  if (request.times !== undefined) fields.set("times", request.times);
  if (request.cfgInterval !== undefined) fields.set("cfgInterval", request.cfgInterval.join(","));
  return `#${fields}`;
}

/** What an address asks for; null where it asks for nothing. Fields that make no sense are left out. */
export function decode(hash: string): Request | null {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const request: Request = {};
  const name = fields.get("class");
  if (name) request.class = name;
  for (const key of NUMBERS) {
    const text = fields.get(key);
    if (!text) continue;
    // Seeds have 64 bits; what a number cannot hold is a BigInt.
    if (key === "seed" && /^\d+$/.test(text)) {
      request.seed = Number.isSafeInteger(Number(text)) ? Number(text) : BigInt.asUintN(64, BigInt(text));
    } else if (key !== "seed" && Number.isFinite(Number(text))) {
      request[key] = Number(text);
    }
  }
  const sampler = fields.get("sampler");
  if (sampler) request.sampler = sampler;
  const times = fields.get("times");
  if (times === "uniform" || times === "logit-normal" || times === "karras") request.times = times;
  const interval = fields.get("cfgInterval")?.split(",").map(Number);
  if (interval?.length === 2 && interval.every(Number.isFinite)) request.cfgInterval = interval as [number, number];
  return Object.keys(request).length > 0 ? request : null;
}
