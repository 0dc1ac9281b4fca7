// Sizes as hubs and disks tell them: in powers of 1000, with three digits.

const UNITS = ["kB", "MB", "GB"];

export function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} bytes`;
  let unit = -1;
  let value = bytes;
  // What rounds to 1000 is 1 of the next.
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${Number(value.toPrecision(3))} ${UNITS[unit]}`;
}
