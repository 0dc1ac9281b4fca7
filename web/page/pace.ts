// How long a picture will take here.

import type { ModelInfo, Request } from "../engine/index.js";

/** Evaluations of the network that a picture takes one after the other: a guided one is two, and one where two cores
 * compute. Null where its sampler chooses. */
export function evaluations(info: Pick<ModelInfo, "defaults" | "evaluations" | "oneStep">, request: Request, cores = 1): number | null {
  const { sampler, steps, cfg, cfgInterval: [low, high] } = { ...info.defaults, ...request };
  const each = info.evaluations[sampler];
  if (each === null || each === undefined) return null;
  const guided = cfg === 1 || info.oneStep || cores > 1 ? 0 : Math.min(1, high - low);
  const count = steps * each * (1 + guided);
  // What is being typed may be no interval yet.
  return Number.isFinite(count) ? count : null;
}

export class Pace {
  /** Seconds of the rest, which is decoding above all. */
  private rest: number;

  /** `each` is the time of an evaluation, where it is known; a picture begins with a guess of the rest. */
  constructor(private each: number | null) {
    this.rest = 2 * (each ?? 0);
  }

  /** Seconds of a picture; null where that is not known. */
  seconds(evaluations: number | null): number | null {
    return this.each === null || evaluations === null ? null : evaluations * this.each + this.rest;
  }

  /** A picture of so many evaluations was finished: when its steps began, and when it was there, in ms. */
  learn(evaluations: number | null, begun: readonly number[], end: number) {
    const [first, last] = [begun[1], begun.at(-1)];
    if (evaluations === null || last === undefined) return;
    const steps = begun.length;
    // The first step is slower than the others.
    if (first !== undefined && steps > 2) this.each = ((last - first) / 1000 / (steps - 2)) * (steps / evaluations);
    const since = (end - last) / 1000;
    const inStep = evaluations / steps;
    // Of one step it cannot be told what is decoding, but only how long both take.
    this.each ??= since / (inStep + 2);
    this.rest = Math.max(0, since - inStep * this.each);
  }
}
