// The settings of the next picture.

import type { ModelInfo, Origin, Quality, Request } from "../engine/index.js";
import { duration } from "./duration.js";
import { Fields } from "./fields.js";
import { LARGEST_SEED, seedOf } from "./seed.js";

export class Form {
  private seed = field("seed");
  private toSeed = field("to-seed");
  private between = field("between");
  private lock = field("lock");
  private steps = field("steps");
  private cfg = field("cfg");
  private tau = field("tau");
  private compare = field("compare");
  private sampler = document.querySelector<HTMLSelectElement>("#sampler")!;
  private choices = document.querySelector<HTMLFieldSetElement>("#qualities")!;
  private fields: Fields;
  private info: ModelInfo | undefined;
  /** Steps and sampler by what a picture is for; those that differ. */
  private qualities: Quality[] = [];
  /** Fields that the form has no place for, from a link. */
  private others: Pick<Request, "index" | "cfgChannels"> = {};

  constructor(onChange: () => void) {
    const changed = () => {
      this.mark();
      onChange();
    };
    this.fields = new Fields(document.querySelector<HTMLElement>("#fields")!, changed);
    for (const range of [this.steps, this.cfg, this.tau, this.between]) {
      range.addEventListener("input", () => {
        // By hand it goes in hundredths, also from a place that a link or picture brought.
        if (range.step === "any") range.step = "0.01";
        show(range);
        changed();
      });
    }
    for (const seed of [this.seed, this.toSeed]) seed.addEventListener("input", changed);
    this.sampler.addEventListener("change", changed);
    this.choices.addEventListener("change", (event) => {
      const { value } = event.target as HTMLInputElement;
      const quality = this.qualities.find(({ name }) => name === value)!;
      this.set(this.steps, quality.steps);
      this.sampler.value = quality.sampler;
      changed();
    });
    for (const [dice, seed] of [["#dice", this.seed], ["#to-dice", this.toSeed]] as const) {
      document.querySelector(dice)!.addEventListener("click", () => {
        roll(seed);
        changed();
      });
    }
  }

  /** A model that was opened with its authors' settings, where they are not the network's own. */
  open(info: ModelInfo, settings: Request) {
    this.fields.open(info);
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
    for (const [input, name] of [[this.steps, "steps"], [this.cfg, "cfg"], [this.tau, "tau"], [this.between, "blend"]] as const) {
      const [min, max] = info.ranges[name];
      [input.min, input.max] = [String(min), String(max)];
    }
    // On a linear slider, what is far above the default only makes it coarse.
    this.steps.max = String(Math.min(info.ranges.steps[1], Math.max(info.oneStep ? 8 : 100, 2 * steps)));
    this.set(this.steps, steps);
    this.set(this.cfg, cfg);
    this.sampler.replaceChildren(...info.samplers.map((name) => new Option(name, name, false, name === sampler)));
    document.querySelector<HTMLElement>("#cfg-row")!.hidden = !info.guided;
    const gated = info.gate !== null;
    document.querySelector<HTMLElement>("#live-row")!.hidden = !info.oneStep;
    document.querySelector<HTMLElement>("#tau-row")!.hidden = !gated;
    document.querySelector<HTMLElement>("#compare-row")!.hidden = !gated;
    this.set(this.tau, info.gate ?? 0);
    this.toSeed.value = "";
    this.set(this.between, 0.5);
    this.others = {};
  }

  /** What the form asks for; defaults are left out, so that links stay short. */
  request(): Request {
    const to = this.to;
    return this.shorten({
      ...this.others,
      ...this.fields.request(this.sampler.value),
      seed: this.from,
      blend: to === null ? undefined : { seed: to, amount: Number(this.between.value) },
      steps: Number(this.steps.value),
      cfg: Number(this.cfg.value),
      tau: this.gate ?? undefined,
      sampler: this.sampler.value,
    });
  }

  /** What is wrong with the seeds that were typed; empty where nothing is. */
  get trouble(): string {
    return this.wrong ? `Seeds are whole numbers from 0 to ${LARGEST_SEED}.` : "";
  }

  /** The field whose text is no seed; null where there is none. */
  get wrong(): HTMLInputElement | null {
    const isWrong = ({ value }: HTMLInputElement) => value.trim() !== "" && seedOf(value.trim()) === null;
    return [this.seed, this.toSeed].find(isWrong) ?? null;
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
    if (request.cfg !== undefined && info.guided) this.set(this.cfg, request.cfg);
    if (request.tau !== undefined) this.set(this.tau, request.tau);
    if (request.sampler && info.samplers.includes(request.sampler)) this.sampler.value = request.sampler;
    if (request.blend) {
      this.toSeed.value = String(request.blend.seed);
      this.set(this.between, request.blend.amount);
    }
    this.fields.fill(request);
    const { index, cfgChannels } = request;
    this.others = Object.fromEntries(Object.entries({ index, cfgChannels }).filter(([, value]) => value !== undefined));
    this.mark();
  }

  /** Shows what belongs to the rest: which quality it is, none where steps or sampler are of another one; the way
   * between two seeds; the fields of the sampler. */
  private mark() {
    document.querySelector<HTMLElement>("#between-row")!.hidden = this.to === null;
    this.fields.show(this.sampler.value);
    for (const { name, sampler, steps } of this.qualities) {
      const choice = this.choices.querySelector<HTMLInputElement>(`[value=${name}]`);
      if (choice) choice.checked = sampler === this.sampler.value && steps === this.stepCount;
    }
  }

  /** The next picture gets the next seed, unless this one is to be kept, or is the end of a way. */
  advance() {
    if (!this.lock.checked && this.to === null) this.seed.value = String((BigInt(this.from) + 1n) & LARGEST_SEED);
  }

  roll() {
    roll(this.seed);
  }

  /** The seed, 0 where none is typed. */
  private get from(): number | bigint {
    return seedOf(this.seed.value.trim()) ?? 0;
  }

  /** The seed at the other end of the way; null where there is none. */
  private get to(): number | bigint | null {
    return seedOf(this.toSeed.value.trim());
  }

  private set(input: HTMLInputElement, value: number) {
    // A link may ask for more than the slider offers.
    if (value > Number(input.max)) input.max = String(value);
    if (value < Number(input.min)) input.min = String(value);
    // A step would move what lies between two of them.
    const perUnit = input === this.cfg ? 10 : 100;
    if (input === this.between || (input !== this.steps && !Number.isInteger(value * perUnit))) input.step = "any";
    input.value = String(value);
    show(input);
  }
}

/** The request that makes a picture again. */
export function again({ class: number, class_name, seed, index, blend, settings }: Origin): Request {
  return { class: number === null ? null : class_name, seed, index: Number(index), blend, ...requestOf(settings) };
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

function roll(seed: HTMLInputElement) {
  seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0]!);
}

function show(range: HTMLInputElement) {
  const hundredths = Math.round(100 * Number(range.value)) / 100;
  document.querySelector<HTMLOutputElement>(`output[for=${range.id}]`)!.value = String(hundredths);
}
