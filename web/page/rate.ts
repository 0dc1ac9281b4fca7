// How fast something comes, of the last seconds.

const WINDOW = 5000;

export class Rate {
  private samples: { time: number; bytes: number }[] = [];

  /** So many bytes are there now. */
  add(bytes: number, time = performance.now()) {
    this.samples.push({ time, bytes });
    while (this.samples.length > 2 && time - this.samples[0]!.time > WINDOW) this.samples.shift();
  }

  /** What comes next does not go on from here. */
  reset() {
    this.samples = [];
  }

  /** Bytes a second; null while that cannot be told. */
  get perSecond(): number | null {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (!first || !last || last.time - first.time < 1000) return null;
    return ((last.bytes - first.bytes) * 1000) / (last.time - first.time);
  }
}
