// The pictures of this visit.

import type { PictureEvent } from "../engine/index.js";
import { short } from "./search.js";

export class Gallery {
  private buttons = new Map<PictureEvent, HTMLElement>();

  constructor(
    private list: HTMLElement,
    private section: HTMLElement,
    private onOpen: (picture: PictureEvent) => void,
  ) {
    section.hidden = true;
  }

  add(picture: PictureEvent) {
    const button = thumbnail(picture, title(picture), () => this.onOpen(picture));
    this.buttons.set(picture, button);
    const item = document.createElement("li");
    item.append(button);
    this.list.prepend(item);
    this.section.hidden = false;
    this.mark(picture);
  }

  /** Marks the picture that is shown; none where it is not of the gallery. */
  mark(current: PictureEvent) {
    for (const [picture, button] of this.buttons) button.ariaCurrent = picture === current ? "true" : null;
  }
}

/** A small picture to click on. */
export function thumbnail({ image }: PictureEvent, name: string, onOpen: () => void): HTMLButtonElement {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d")!.putImageData(image, 0, 0);
  const button = document.createElement("button");
  button.type = "button";
  button.title = name;
  button.ariaLabel = `Show ${name}`;
  button.append(canvas);
  button.addEventListener("click", onOpen);
  return button;
}

export function title({ origin: { class_name, seed, blend } }: PictureEvent): string {
  const way = blend ? ` to ${blend.seed}, ${Math.round(100 * blend.amount)} %` : "";
  return `${short(class_name)}, seed ${seed}${way}`;
}
