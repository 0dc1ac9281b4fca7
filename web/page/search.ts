// Searching classes, by the rules of the library's `Labels`.

/** How close a class is to a text, the closest first. */
enum Closeness {
  /** It is the class of that number. */
  Number,
  /** Its whole name or first synonym is the text. */
  Name,
  /** Another synonym is. */
  Synonym,
  /** A synonym begins with the text. */
  Beginning,
  /** A word does. */
  Word,
  /** Its name contains the text. */
  Part,
}

type Hit = [closeness: Closeness, index: number];

/** Numbers of the classes whose name holds the text, the closest first; all for "". */
export function search(classes: readonly string[], text: string): number[] {
  return ranked(classes, normal(text)).map(([, index]) => index);
}

/** The classes that a text is the name of; several where they share it, none where it is only a part. */
export function called(classes: readonly string[], text: string): number[] {
  const wanted = normal(text);
  if (wanted === "") return [];
  const hits = ranked(classes, wanted);
  const best = hits[0]?.[0];
  if (best === undefined || best > Closeness.Synonym) return [];
  return hits.filter(([closeness]) => closeness === best).map(([, index]) => index);
}

/** What a class can be called so that nothing else is meant: its first synonym, or all of its names; null for neither. */
export function unmistakable(classes: readonly string[], index: number): string | null {
  const name = classes[index]!;
  const means = (text: string) => {
    const meant = called(classes, text);
    return meant.length === 1 && meant[0] === index;
  };
  return [short(name), name, String(index)].find(means) ?? null;
}

function normal(text: string): string {
  return text.trim().toLowerCase();
}

function ranked(classes: readonly string[], wanted: string): Hit[] {
  const numbered = ofNumber(classes, wanted);
  const hits: Hit[] = [];
  classes.forEach((name, index) => {
    const closeness = index === numbered ? Closeness.Number : closenessOf(name.toLowerCase(), wanted);
    if (closeness !== null) hits.push([closeness, index]);
  });
  return hits.sort(([a, i], [b, j]) => a - b || i - j);
}

function closenessOf(name: string, wanted: string): Closeness | null {
  if (wanted === "") return Closeness.Part;
  if (name.trim() === wanted || short(name) === wanted) return Closeness.Name;
  const synonyms = name.split(",").map((synonym) => synonym.trim());
  if (synonyms.includes(wanted)) return Closeness.Synonym;
  if (synonyms.some((synonym) => synonym.startsWith(wanted))) return Closeness.Beginning;
  if (name.split(/[^\p{L}\p{N}]/u).some((word) => word.startsWith(wanted))) return Closeness.Word;
  return name.includes(wanted) ? Closeness.Part : null;
}

/** The class that a number means: the one called so, else the one at that place unless it is called by another. */
function ofNumber(classes: readonly string[], wanted: string): number | null {
  const number = digits(wanted);
  if (number === null) return null;
  const called = classes.flatMap((name, index) => (digits(short(name)) === number ? [index] : []));
  if (called.length > 0) return called.length === 1 ? called[0]! : null;
  const place = Number(number);
  const name = classes[place];
  return name === undefined || digits(short(name)) !== null ? null : place;
}

/** A decimal number without leading zeros; null where the text is none. */
function digits(text: string): string | null {
  return /^\d+$/.test(text) ? text.replace(/^0+(?=\d)/, "") : null;
}

/** The first synonym, for places with little room. */
export function short(name: string): string {
  return name.split(",")[0]!.trim();
}
