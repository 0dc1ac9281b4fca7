// Seeds as people write them.

export const LARGEST_SEED = 0xffff_ffff_ffff_ffffn;

/** The seed of a text, a BigInt where a number would not be exact; null where it is none. */
export function seedOf(text: string): number | bigint | null {
  if (!/^\d+$/.test(text) || BigInt(text) > LARGEST_SEED) return null;
  return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
}
