// Fields of the settings that only some networks and samplers have; an empty one is the network's default.

import type { Field, KarrasOptions, ModelInfo, Request } from "../engine/index.js";
import { KARRAS } from "./link.js";

interface Row {
  field: Field;
  row: HTMLElement;
  /** A choice, or a number each. */
  inputs: (HTMLInputElement | HTMLSelectElement)[];
}

export class Fields {
  private rows: Row[] = [];

  constructor(
    private place: HTMLElement,
    onChange: () => void,
  ) {
    place.addEventListener("input", onChange);
  }

  /** Those of a model, empty. */
  open({ fields }: ModelInfo) {
    this.rows = fields.map(rowOf);
    this.place.replaceChildren(...this.rows.map(({ row }) => row));
  }

  /** Puts a request into them. */
  fill(request: Request) {
    for (const { field, inputs } of this.rows) {
      const value = isKarras(field.name) ? request.karras?.[field.name] : request[field.name];
      const values = Array.isArray(value) ? value : [value];
      inputs.forEach((input, i) => {
        const isUsual = values[i] === undefined || values[i] === field.default[i];
        input.value = isUsual ? (field.choices[0] ?? "") : String(values[i]);
      });
    }
  }

  /** What they ask for of a sampler. */
  request(sampler: string): Request {
    const request: Request = {};
    const karras: KarrasOptions = {};
    for (const row of this.acting(sampler)) {
      const value = valueOf(row);
      const { name } = row.field;
      if (value !== undefined) Object.assign(isKarras(name) ? karras : request, { [name]: value });
    }
    return Object.keys(karras).length > 0 ? { ...request, karras } : request;
  }

  /** Shows those that act on a sampler. */
  show(sampler: string) {
    const acting = this.acting(sampler);
    for (const row of this.rows) row.row.hidden = !acting.includes(row);
  }

  private acting(sampler: string): Row[] {
    const times = this.rows.find(({ field }) => field.name === "times");
    // What has no choice of them is listed at this one.
    const grid = times && sampler in times.field.applies ? times.inputs[0]!.value : "uniform";
    return this.rows.filter(({ field }) => field.applies[sampler]?.includes(grid) ?? false);
  }
}

function isKarras(name: Field["name"]): name is keyof KarrasOptions {
  return (KARRAS as readonly string[]).includes(name);
}

/** What a request has for it; undefined for the default, NaN for what is no number, which the engine refuses by name. */
function valueOf({ field, inputs }: Row): unknown {
  if (field.choices.length > 0) return inputs[0]!.value === field.choices[0] ? undefined : inputs[0]!.value;
  const typed = inputs.map(({ value, validity }) => (validity.badInput ? NaN : value === "" ? null : Number(value)));
  if (typed.every((value) => value === null)) return undefined;
  const values = typed.map((value, i) => value ?? field.default[i]);
  return values.length === 1 ? values[0] : values;
}

function rowOf(field: Field): Row {
  const row = document.createElement("div");
  row.className = "row";
  const label = document.createElement("label");
  label.textContent = field.label.replace(/^[a-z]/, (letter) => letter.toUpperCase());
  const inputs: Row["inputs"] = field.choices.length > 0 ? [choice(field)] : field.default.map((usual) => number(field, usual));
  inputs.forEach((input, i) => {
    input.id = `field-${field.name}${i === 0 ? "" : "-to"}`;
    input.title = field.summary;
    if (inputs.length > 1) input.ariaLabel = `${label.textContent}, ${i === 0 ? "from" : "to"}`;
  });
  label.htmlFor = inputs[0]!.id;
  row.append(label, ...inputs);
  return { field, row, inputs };
}

function choice({ choices }: Field): HTMLSelectElement {
  const select = document.createElement("select");
  select.append(...choices.map((name) => new Option(name, name)));
  return select;
}

function number({ range }: Field, usual: number | null): HTMLInputElement {
  const input = document.createElement("input");
  input.type = "number";
  input.step = "any";
  // Infinity is no bound to a browser either.
  if (range) [input.min, input.max] = [String(range[0]), String(range[1])];
  // A denoiser's guidance ends at the largest number that there is.
  input.placeholder = usual === null ? "default" : usual === Number.MAX_VALUE ? "∞" : String(usual);
  return input;
}
