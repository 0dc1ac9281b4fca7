// The list of published models: what is in this browser comes first, then what can be fetched.

import { Downloads } from "../engine/index.js";
import { endpoint, published, type Catalogue } from "./catalogue.js";
import { Row, type Around } from "./row.js";

export class PublishedList {
  private rows: Row[] | undefined;

  constructor(
    private dialog: HTMLDialogElement,
    private words: HTMLElement,
    private here: HTMLElement,
    private there: HTMLElement,
    private around: Pick<Around, "device" | "advanced" | "open" | "arrived">,
  ) {
    dialog.querySelector("button")!.addEventListener("click", () => dialog.close());
  }

  async show() {
    this.dialog.showModal();
    try {
      this.rows ??= await this.read();
      await this.refresh();
    } catch (error) {
      this.words.textContent = (error as Error).message;
    }
  }

  private async read(): Promise<Row[]> {
    this.words.textContent = "Looking";
    const response = await fetch("catalogue.json").catch(() => null);
    if (!response?.ok) throw new Error("The catalogue of published models cannot be fetched. Is there a connection?");
    const catalogue = (await response.json()) as Catalogue;
    const downloads = await Downloads.start();
    const around: Around = {
      ...this.around,
      isBusy: () => this.rows!.some((row) => row.isFetching),
      isShared: (file, of) => this.rows!.some((row) => row !== of && row.isHere && row.model.files.some(({ url }) => url === file.url)),
      changed: () => this.refresh(),
    };
    return published(catalogue, downloads.abilities.networks, endpoint()).map((model) => new Row(model, downloads, around));
  }

  private async refresh() {
    const rows = this.rows!;
    await Promise.all(rows.map((row) => row.look()));
    for (const row of rows) row.show();
    this.words.textContent = "";
    place(this.here, rows.filter((row) => row.isHere));
    place(this.there, rows.filter((row) => !row.isHere));
  }
}

/** Puts rows into a section's list. What stays where it is keeps the focus. */
function place(section: HTMLElement, rows: readonly Row[]) {
  const list = section.querySelector("ul")!;
  const items = rows.map((row) => row.item);
  if (items.length !== list.children.length || items.some((item, i) => item !== list.children[i])) list.replaceChildren(...items);
  section.hidden = rows.length === 0;
}
