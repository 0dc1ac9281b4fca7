// The class picker: type to search, arrows to move, Enter to make.

import { called, search, short } from "./search.js";

export class Picker {
  private classes: readonly string[] = [];
  private shown: number[] = [];
  private options = new Map<number, HTMLElement>();
  /** Whether what is chosen was chosen since the last letter. */
  private decided = false;
  /** The chosen class; null for none. */
  chosen: number | null = null;

  constructor(
    private field: HTMLInputElement,
    private list: HTMLElement,
    private count: HTMLElement,
    private onChoose: (chosen: number) => void,
    private onEnter: () => void,
  ) {
    field.addEventListener("input", () => {
      this.decided = false;
      this.filter();
    });
    field.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("click", (event) => {
      const option = (event.target as HTMLElement).closest<HTMLElement>("[role=option]");
      if (option) this.choose(Number(option.dataset.class));
    });
    list.addEventListener("dblclick", () => this.onEnter());
  }

  show(classes: readonly string[]) {
    this.classes = classes;
    this.options.clear();
    const names = new Map<string, number>();
    for (const name of classes) names.set(short(name), (names.get(short(name)) ?? 0) + 1);
    classes.forEach((name, index) => {
      const option = document.createElement("div");
      option.role = "option";
      option.id = `class-${index}`;
      option.dataset.class = String(index);
      option.title = `${name} (${index})`;
      // What shares its name is told apart by its other ones and its number.
      option.textContent = names.get(short(name)) === 1 ? short(name) : `${name} (${index})`;
      option.ariaSelected = "false";
      this.options.set(index, option);
    });
    this.chosen = null;
    this.field.value = "";
    this.field.disabled = classes.length === 0;
    this.filter();
  }

  /** Marks a class, and brings it into view. */
  choose(chosen: number) {
    if (this.chosen !== null) this.options.get(this.chosen)!.ariaSelected = "false";
    this.chosen = chosen;
    this.decided = true;
    const option = this.options.get(chosen)!;
    option.ariaSelected = "true";
    this.field.setAttribute("aria-activedescendant", option.id);
    if (!option.isConnected) {
      this.field.value = "";
      this.filter();
    }
    option.scrollIntoView({ block: "nearest" });
    this.onChoose(chosen);
  }

  /** The classes that share the typed name, of which none is chosen yet. */
  private undecided(): number[] {
    const sharing = called(this.classes, this.field.value);
    return sharing.length > 1 && !this.decided ? sharing : [];
  }

  private filter() {
    this.shown = search(this.classes, this.field.value);
    const sharing = this.undecided().length;
    this.list.replaceChildren(...this.shown.map((index) => this.options.get(index)!));
    this.count.textContent =
      this.shown.length === 0
        ? "No class is called that."
        : sharing > 0
          ? `${sharing} classes are called “${this.field.value.trim()}”: choose one.`
          : this.shown.length === this.classes.length
            ? `${this.classes.length} classes`
            : `${this.shown.length} of ${this.classes.length} classes`;
  }

  private key(event: KeyboardEvent) {
    const undecided = this.undecided().length > 0;
    const at = this.chosen === null || undecided ? -1 : this.shown.indexOf(this.chosen);
    const go = (to: number) => {
      event.preventDefault();
      const index = this.shown[Math.max(0, Math.min(to, this.shown.length - 1))];
      if (index !== undefined) this.choose(index);
    };
    switch (event.key) {
      case "ArrowDown":
        return go(at + 1);
      case "ArrowUp":
        return go(at - 1);
      case "PageDown":
        return go(at + 8);
      case "PageUp":
        return go(at - 8);
      case "Escape":
        this.field.value = "";
        return this.filter();
      case "Enter":
        event.preventDefault();
        if (undecided) return;
        // Nor does what no class is called mean the one chosen before.
        if (this.shown.length === 0) return;
        // What was typed means the first hit, unless a hit was chosen with the arrows.
        if (at < 0 && this.shown[0] !== undefined && this.field.value) this.choose(this.shown[0]);
        return this.onEnter();
    }
  }
}
