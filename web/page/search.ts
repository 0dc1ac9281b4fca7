// Searching classes, by the rules of the library's `Labels::search`.

/** Numbers of the classes whose name holds the text, the closest first; all for "". */
export function search(classes: readonly string[], text: string): number[] {
  const wanted = text.trim().toLowerCase();
  const hits: [rank: number, index: number][] = [];
  classes.forEach((name, index) => {
    const rank = rankOf(index, name.toLowerCase(), wanted);
    if (rank !== null) hits.push([rank, index]);
  });
  return hits.sort(([a, i], [b, j]) => a - b || i - j).map(([, index]) => index);
}

function rankOf(index: number, name: string, wanted: string): number | null {
  if (wanted === "") return 0;
  if (String(index) === wanted) return 0;
  const synonyms = name.split(",").map((synonym) => synonym.trim());
  if (synonyms.includes(wanted)) return 1;
  if (synonyms.some((synonym) => synonym.startsWith(wanted))) return 2;
  if (name.split(/[^\p{L}\p{N}]/u).some((word) => word.startsWith(wanted))) return 3;
  return name.includes(wanted) ? 4 : null;
}

/** The first synonym, for places with little room. */
export function short(name: string): string {
  return name.split(",")[0]!.trim();
}
