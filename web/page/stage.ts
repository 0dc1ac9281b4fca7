// The picture that develops: canvas, time line with the gate, and the wipe between latent and pixels.

import type { StepEvent } from "../engine/index.js";

export class Stage {
  private over: CanvasRenderingContext2D;
  private under: CanvasRenderingContext2D;

  constructor(
    private frame: HTMLElement,
    private canvas: HTMLCanvasElement,
    latent: HTMLCanvasElement,
    private wipe: HTMLInputElement,
    private timeline: HTMLElement,
    private words: HTMLElement,
  ) {
    this.over = canvas.getContext("2d")!;
    this.under = latent.getContext("2d")!;
    wipe.addEventListener("input", () => this.cut());
  }

  /** An empty frame of a picture's shape. */
  clear([width, height]: [number, number], gate: number | null) {
    this.frame.style.aspectRatio = `${width} / ${height}`;
    this.canvas.width = width;
    this.canvas.height = height;
    this.compare(null);
    this.frame.dataset.state = "empty";
    this.timeline.style.setProperty("--done", "0");
    this.mark(gate);
  }

  /** Where on the time line the gate opens. */
  mark(gate: number | null) {
    this.timeline.toggleAttribute("data-gate", gate !== null);
    if (gate !== null) this.timeline.style.setProperty("--gate", String(1 - gate));
  }

  step(event: StepEvent, gate: number | null) {
    this.frame.dataset.state = "developing";
    this.compare(null);
    const preview = event.previews[0];
    if (preview) this.draw(this.over, preview);
    // Flows run in time from 1 to 0; denoisers are shown by their steps.
    const done = gate !== null || event.steps === null ? 1 - Math.min(1, event.time) : event.step / event.steps;
    this.timeline.style.setProperty("--done", String(done));
    const steps = event.steps === null ? `step ${event.step + 1}` : `step ${event.step + 1} of ${event.steps}`;
    const stream = gate === null ? "" : event.pixelsAtWork ? " · latent and pixels" : " · latent alone";
    this.say(steps + stream);
  }

  /** A finished picture, and where there is one its decoded latent to compare with. */
  picture(image: ImageData, latent: ImageData | null, name: string) {
    this.frame.dataset.state = "done";
    this.frame.style.aspectRatio = `${image.width} / ${image.height}`;
    this.draw(this.over, image);
    this.compare(latent);
    this.timeline.style.setProperty("--done", "1");
    this.canvas.ariaLabel = name;
  }

  say(words: string) {
    this.words.textContent = words;
  }

  private compare(latent: ImageData | null) {
    this.frame.toggleAttribute("data-compare", latent !== null);
    this.wipe.hidden = latent === null;
    if (latent) this.draw(this.under, latent);
    this.wipe.value = "0";
    this.cut();
  }

  private cut() {
    this.frame.style.setProperty("--wipe", this.wipe.value);
    this.wipe.ariaValueText = `${this.wipe.value} % latent`;
  }

  private draw(context: CanvasRenderingContext2D, image: ImageData) {
    context.canvas.width = image.width;
    context.canvas.height = image.height;
    context.putImageData(image, 0, 0);
  }
}
