// Pictures that belong together, in order: guidance scales below each other with seeds side by side, or the way between
// two seeds.

import type { ModelInfo, PictureEvent, Request } from "../engine/index.js";
import { thumbnail, title } from "./gallery.js";

/** Columns of the grid, as in the window. */
const SEEDS = 3;

/** Pictures of a strip. */
const WAY = 7;

/** What to make a sheet of. */
export interface Plan {
  name: string;
  columns: number;
  /** Their pictures follow each other. */
  requests: Request[];
}

/** A row for each guidance scale, a column for each seed. */
export function grid(request: Request, { defaults, guided }: Pick<ModelInfo, "defaults" | "guided">): Plan {
  const scale = request.cfg ?? defaults.cfg;
  const requests = (guided ? scales(scale) : [scale]).map((cfg) => ({ ...request, cfg, count: SEEDS }));
  return { name: "Guidance scales below each other, seeds side by side", columns: SEEDS, requests };
}

/** The scales of the window's sheet. */
function scales(scale: number): number[] {
  // Below 1 half of what is more than none would be less of it.
  if (scale <= 1) return [scale, 3, 5];
  const share = (of: number) => Math.round(100 * (1 + (scale - 1) * of)) / 100;
  return [share(0.5), scale, share(1.5)];
}

/** The way from the request's seed to the one that it blends in, with both ends. */
export function strip({ blend, ...request }: Request): Plan {
  return { name: "The way between two seeds", columns: WAY, requests: [{ ...request, toSeed: blend?.seed, count: WAY }] };
}

export class Sheet {
  constructor(private place: HTMLElement) {}

  /** An empty sheet. */
  open({ name, columns }: Plan) {
    this.place.replaceChildren();
    this.place.ariaLabel = name;
    this.place.style.setProperty("--columns", String(columns));
    this.place.hidden = false;
  }

  /** The next picture. */
  add(picture: PictureEvent, onOpen: () => void) {
    this.place.append(thumbnail(picture, `${title(picture)}, guidance ${picture.origin.settings.guidance.scale}`, onOpen));
  }

  close() {
    this.place.hidden = true;
    this.place.replaceChildren();
  }
}
