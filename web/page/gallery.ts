// The pictures of this visit.

import type { PictureEvent } from "../engine/index.js";
import { short } from "./search.js";

export class Gallery {
  private pictures: PictureEvent[] = [];

  constructor(
    private list: HTMLElement,
    private section: HTMLElement,
    private onOpen: (picture: PictureEvent) => void,
  ) {
    section.hidden = true;
  }

  add(picture: PictureEvent) {
    this.pictures.push(picture);
    const thumbnail = document.createElement("canvas");
    thumbnail.width = picture.image.width;
    thumbnail.height = picture.image.height;
    thumbnail.getContext("2d")!.putImageData(picture.image, 0, 0);
    const button = document.createElement("button");
    button.type = "button";
    const name = title(picture);
    button.title = name;
    button.ariaLabel = `Show ${name}`;
    button.append(thumbnail);
    button.addEventListener("click", () => {
      this.mark(button);
      this.onOpen(picture);
    });
    const item = document.createElement("li");
    item.append(button);
    this.list.prepend(item);
    this.section.hidden = false;
    this.mark(button);
  }

  private mark(current: HTMLElement) {
    for (const button of this.list.querySelectorAll("button")) {
      button.ariaCurrent = button === current ? "true" : null;
    }
  }
}

export function title({ origin }: PictureEvent): string {
  return `${short(origin.class_name)}, seed ${origin.seed}`;
}
