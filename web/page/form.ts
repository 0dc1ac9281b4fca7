// The settings of the next picture.

import type { ModelInfo, Origin, Quality, Request } from "../engine/index.js";
import { duration } from "./duration.js";

const LARGEST_SEED = 0xffff_ffff_ffff_ffffn;

export class Form {
  private seed = field("seed");
  private lock = field("lock");
  private steps = field("steps");
  private cfg = field("cfg");
  private tau = field("tau");
  private compare = field("compare");
  private sampler = document.querySelector<HTMLSelectElement>("#sampler")!;
  private choices = document.querySelector<HTMLFieldSetElement>("#qualities")!;
  private info: ModelInfo | undefined;
  /** Steps and sampler by what a picture is for; those that differ. */
  private qualities: Quality[] = [];
  /** Fields that the form has no place for, from a link. */
  private others: Pick<
    Request,
    "index" | "shift" | "cfgInterval" | "cfgChannels" | "times" | "cfgAdaptive" | "karras"
  > = {};

  constructor(onChange: () => void) {
    const changed = () => {
      this.mark();
      onChange();
    };
    for (const range of [this.steps, this.cfg, this.tau]) {
      range.addEventListener("input", () => {
        show(range);
        changed();
      });
    }
    this.seed.addEventListener("input", changed);
    this.sampler.addEventListener("change", changed);
    this.choices.addEventListener("change", (event) => {
      const { value } = event.target as HTMLInputElement;
      const quality = this.qualities.find(({ name }) => name === value)!;
      this.set(this.steps, quality.steps);
      this.sampler.value = quality.sampler;
      changed();
    });
    document.querySelector("#dice")!.addEventListener("click", () => {
      this.roll();
      changed();
    });
  }

  /** A model that was opened with its authors' settings, where they are not the network's own. */
  open(info: ModelInfo, settings: Request) {
    this.fill(settings, info);
    const best = { sampler: this.sampler.value, steps: this.stepCount };
    const all = info.qualities.map((quality) => (quality.name === "best" ? { ...quality, ...best } : quality));
    // Of the same ones the last is left: it promises what it is.
    const differs = (a: Quality, later: Quality[]) => later.every((b) => a.sampler !== b.sampler || a.steps !== b.steps);
    this.qualities = all.filter((quality, i) => differs(quality, all.slice(i + 1)));
    this.choices.hidden = this.qualities.length < 2;
    this.choices.querySelectorAll("label").forEach((label) => label.remove());
    this.choices.append(...this.qualities.map(choice));
    this.mark();
  }

  /** Shows how long a picture of each quality takes; null for not known. */
  tell(seconds: (request: Request) => number | null) {
    for (const { name, sampler, steps } of this.qualities) {
      const time = seconds({ ...this.request(), sampler, steps });
      this.choices.querySelector(`[value=${name}] ~ small`)!.textContent = time === null ? "" : duration(time);
    }
  }

  /** The model's defaults. */
  private reset(info: ModelInfo) {
    this.info = info;
    const { steps, cfg, sampler } = info.defaults;
    for (const input of [this.steps, this.cfg, this.tau]) {
      const [min, max] = info.ranges[input.id as "steps" | "cfg" | "tau"];
      [input.min, input.max] = [String(min), String(max)];
    }
    // On a linear slider, what is far above the default only makes it coarse.
    this.steps.max = String(Math.min(info.ranges.steps[1], Math.max(info.oneStep ? 8 : 100, 2 * steps)));
    this.set(this.steps, steps);
    this.set(this.cfg, cfg);
    this.sampler.replaceChildren(...info.samplers.map((name) => new Option(name, name, false, name === sampler)));
    // Without classes there is nothing to guide by.
    document.querySelector<HTMLElement>("#cfg-row")!.hidden = info.classes.length === 0;
    const gated = info.gate !== null;
    document.querySelector<HTMLElement>("#live-row")!.hidden = !info.oneStep;
    document.querySelector<HTMLElement>("#tau-row")!.hidden = !gated;
    document.querySelector<HTMLElement>("#compare-row")!.hidden = !gated;
    this.set(this.tau, info.gate ?? 0);
    this.others = {};
  }

  /** What the form asks for; defaults are left out, so that links stay short. */
  request(): Request {
    return this.shorten({
      ...this.others,
      seed: this.seedValue() ?? 0,
      steps: Number(this.steps.value),
      cfg: Number(this.cfg.value),
      tau: this.gate ?? undefined,
      sampler: this.sampler.value,
    });
  }

  /** What is wrong with what was typed; empty where nothing is. */
  get trouble(): string {
    return this.seedValue() === null ? `Seeds are whole numbers from 0 to ${LARGEST_SEED}.` : "";
  }

  /** A request without what is the model's default anyway. */
  shorten(request: Request): Request {
    const { defaults, gate } = this.info!;
    const [low, high] = request.cfgInterval ?? defaults.cfgInterval;
    const usual: Request = { ...defaults, cfgChannels: defaults.cfgChannels ?? undefined, tau: gate ?? undefined };
    const differs = ([key, value]: [string, unknown]) => value !== undefined && value !== usual[key as keyof Request];
    const { cfgInterval: _, ...others } = request;
    const short = Object.fromEntries(Object.entries(others).filter(differs));
    const interval = low !== defaults.cfgInterval[0] || high !== defaults.cfgInterval[1];
    return interval ? { ...short, cfgInterval: [low, high] } : short;
  }

  /** Whether to decode the latent, too. */
  get compares(): boolean {
    return this.info!.gate !== null && this.compare.checked;
  }

  /** Steps of the next picture. */
  get stepCount(): number {
    return Number(this.steps.value);
  }

  /** The gate of the next picture. */
  get gate(): number | null {
    return this.info!.gate === null ? null : Number(this.tau.value);
  }

  /** Puts a request into the form. */
  fill(request: Request, info = this.info!) {
    this.reset(info);
    if (request.seed !== undefined) this.seed.value = String(request.seed);
    if (request.steps !== undefined) this.set(this.steps, request.steps);
    if (request.cfg !== undefined && info.classes.length > 0) this.set(this.cfg, request.cfg);
    if (request.tau !== undefined) this.set(this.tau, request.tau);
    if (request.sampler && info.samplers.includes(request.sampler)) this.sampler.value = request.sampler;
    const { index, shift, cfgInterval, cfgChannels, times, cfgAdaptive, karras } = request;
    const others = { index, shift, cfgInterval, cfgChannels, times, cfgAdaptive, karras };
    this.others = Object.fromEntries(Object.entries(others).filter(([, value]) => value !== undefined));
    this.mark();
  }

  /** Which quality the form has; none where steps or sampler are of another one. */
  private mark() {
    for (const { name, sampler, steps } of this.qualities) {
      const choice = this.choices.querySelector<HTMLInputElement>(`[value=${name}]`);
      if (choice) choice.checked = sampler === this.sampler.value && steps === this.stepCount;
    }
  }

  /** The next picture gets the next seed, unless this one is to be kept. */
  advance() {
    if (!this.lock.checked) this.seed.value = String((BigInt(this.seedValue() ?? 0) + 1n) & LARGEST_SEED);
  }

  roll() {
    this.seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0]!);
  }

  /** The seed, 0 where none is typed; null where what is typed is none. */
  private seedValue(): number | bigint | null {
    const text = this.seed.value.trim() || "0";
    if (!/^\d+$/.test(text) || BigInt(text) > LARGEST_SEED) return null;
    return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
  }

  private set(input: HTMLInputElement, value: number) {
    // A link may ask for more than the slider offers.
    if (value > Number(input.max)) input.max = String(value);
    if (value < Number(input.min)) input.min = String(value);
    if (!Number.isInteger(value * 10) && input === this.cfg) input.step = "0.01";
    input.value = String(value);
    show(input);
  }
}

/** The request that makes a picture again. */
export function again({ class: number, class_name, seed, index, settings }: Origin): Request {
  return { class: number === null ? null : class_name, seed, index: Number(index), ...requestOf(settings) };
}

/** The library's settings as those of a request. */
export function requestOf(settings: Partial<Origin["settings"]>): Request {
  const { steps, sampler, guidance, shift, tau, times, agreement, karras } = settings;
  return {
    steps,
    sampler,
    cfg: guidance?.scale,
    cfgInterval: guidance && [guidance.low, guidance.high],
    cfgChannels: guidance?.channels ?? undefined,
    shift,
    tau,
    times,
    cfgAdaptive: agreement,
    karras,
  };
}

/** A button of a quality, with room for its time. */
function choice({ name, sampler, steps }: Quality): HTMLLabelElement {
  const [label, input, words, time] = [document.createElement("label"), document.createElement("input"), document.createElement("span"), document.createElement("small")];
  [input.type, input.name, input.value] = ["radio", "quality", name];
  words.textContent = name;
  label.title = `${steps} ${steps === 1 ? "step" : "steps"} of ${sampler}`;
  label.append(input, words, time);
  return label;
}

function field(id: string): HTMLInputElement {
  return document.querySelector<HTMLInputElement>(`#${id}`)!;
}

function show(range: HTMLInputElement) {
  document.querySelector<HTMLOutputElement>(`output[for=${range.id}]`)!.value = range.value;
}
