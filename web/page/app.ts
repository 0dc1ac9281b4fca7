// The page: everything that happens, in one place.

import { Tintype, type LoadOptions, type ModelInfo, type Origin, type PictureEvent, type Progress, type Request } from "../engine/index.js";
import type { Published } from "./catalogue.js";
import { duration } from "./duration.js";
import { sort } from "./files.js";
import { Form, again, requestOf } from "./form.js";
import { Gallery, title } from "./gallery.js";
import { decode, encode } from "./link.js";
import { bytes, shipped } from "./model.js";
import { Pace, evaluations } from "./pace.js";
import { Picker } from "./picker.js";
import { readOrigin } from "./png.js";
import { PublishedList } from "./published.js";
import type { Files } from "./row.js";
import { called, short, unmistakable } from "./search.js";
import { Sheet, grid, strip, type Plan } from "./sheet.js";
import { Stage } from "./stage.js";

const $ = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T;

const options = new URLSearchParams(location.search);
const stage = new Stage($("frame"), $("canvas"), $("latent"), $("wipe"), $("timeline"), $("words"));
const form = new Form(() => changed());
const picker = new Picker($("search"), $("classes"), $("count"), () => changed(), () => void generate());
const gallery = new Gallery($("pictures"), $("gallery"), (picture) => show(picture));
const sheet = new Sheet($("sheet"));
const list = new PublishedList($("published"), $("published-words"), $("here"), $("there"), {
  device: () => tintype?.info.device ?? "cpu",
  advanced: (part) => ($("models").textContent = `Published models${part === null ? "…" : `, ${Math.floor(100 * part)} %`}`),
  open: (model, find) => void openPublished(model, find),
  arrived,
});

/** Whether steps are shown; `?preview=0` spares a slow GPU the decoding. */
const preview = options.get("preview") !== "0";

/** What showing the steps adds to the time of a picture: decoding may take a ninth of the rest. */
const SHOWING = preview ? 10 / 9 : 1;

let tintype: Tintype | undefined;
let loading: Promise<void> | undefined;
/** Whether the engine has a model. */
let present = false;
/** A request that waits for the model, and the picture that it is of, if any. */
let wanted: { request: Request; picture: Origin | undefined } | null = null;
let generating = false;
/** Whether something changed since the picture in hand was begun, so that it is made anew. */
let stale = false;
/** Whether somebody stopped the run in hand. */
let stopped = false;
/** What the engine refused last. */
let refusal = "";
let pace = new Pace(null);
/** The model of the last picture. */
let warm: ModelInfo | undefined;
/** The run in hand, or the last one. */
let making: Promise<void> = Promise.resolve();
let shown: PictureEvent | undefined;
/** When Generate was last pressed, for the time to the first step. */
let pressed = 0;

// ---- Models ----

/** Gets the files of a model, each time it is loaded. */
type Find = () => Promise<Omit<LoadOptions, "device" | "precision">>;

/** Loads a model in place of the one before; the page says what goes on, and what went wrong. `settings` are those
 * to begin with, where they are not the network's own; `average` is the number of one that its file holds. `then` comes
 * once the model is there. */
function load(name: string, find: Find, settings: Request = {}, average = 1, then = () => {}): Promise<void> {
  const abort = new AbortController();
  const attempt = async () => {
    $("loading").hidden = false;
    // The model before it may go.
    ready(false);
    $("frame").dataset.state = "empty";
    sheet.close();
    progress(name, null);
    // One after the other: the engine is in use until a run ends, and made by the first model.
    stop();
    await Promise.all([loading, making]);
    try {
      const load: LoadOptions = {
        ...(await find()),
        // Only some files hold several, and others have none to choose.
        ...(average > 1 && { average }),
        device: (options.get("device") as LoadOptions["device"]) ?? "auto",
        precision: (options.get("precision") as LoadOptions["precision"]) ?? undefined,
        cores: options.get("cores") === "1" ? 1 : 2,
        onProgress: (p) => {
          // Now the engine gives up the one before.
          if (p.phase === "upload") present = false;
          progress(name, p);
        },
        signal: abort.signal,
      };
      if (tintype) await tintype.use(load);
      else tintype = await Tintype.load(load);
      tintype.onCores = coresChanged;
      loaded(name, settings);
      averages(average, (other) => reload(name, find, settings, other));
      then();
    } catch (error) {
      broken(error as Error);
      // What failed before it came to the engine leaves the one before.
      if (tintype && present) ready(true);
      else $("empty").textContent = "No model is loaded.";
      notice((error as Error).message, "Try again", () => void load(name, find, settings, average, then));
    } finally {
      $("loading").hidden = true;
    }
  };
  loading = attempt();
  return loading;
}

/** The same model with another average; class and settings stay. */
function reload(name: string, find: Find, settings: Request, average: number) {
  const [request, chosen] = [form.request(), picker.chosen];
  void load(name, find, settings, average, () => {
    form.fill(request);
    if (chosen !== null) picker.choose(chosen);
  });
}

/** Offers the averages that the model's file holds; `choose` gets the number of another one. */
function averages(loaded: number, choose: (number: number) => void) {
  const { averages } = tintype!.info;
  const select = $<HTMLSelectElement>("average");
  $("average-row").hidden = averages.length === 0;
  select.replaceChildren(...averages.map((name, i) => new Option(name, String(i + 1), false, i + 1 === loaded)));
  select.onchange = () => choose(Number(select.value));
}

function progress(name: string, progress: Progress | null) {
  const bar = $<HTMLProgressElement>("loading-bar");
  const total = progress?.total ?? null;
  if (progress && total !== null) {
    bar.max = total;
    bar.value = progress.bytes;
  } else {
    bar.removeAttribute("value");
  }
  const verb = progress ? { download: "Fetching", verify: "Checking", upload: "Starting" }[progress.phase] : "Opening";
  const amount = !progress ? "" : total === null ? bytes(progress.bytes) : `${bytes(progress.bytes)} of ${bytes(total)}`;
  $("loading-words").textContent = `${verb} ${name}${amount && `: ${amount}, ${progress!.seconds.toFixed(1)} s`}`;
}

function loaded(name: string, settings: Request) {
  const { info, capability } = tintype!;
  form.open(info, settings);
  pace = new Pace(info.secondsPerEvaluation && info.secondsPerEvaluation * SHOWING);
  picker.show(info.classes);
  stage.clear(info.imageSize, info.gate);
  const place = info.device === "webgpu" ? capability.adapter : "this processor";
  $("device").hidden = false;
  $("device").textContent = `${name} · ${place} · ${info.precision}`;
  $("device").title = `${info.architecture}, ${info.classes.length} classes, ${info.imageSize.join(" × ")} pixels`;
  const notices = [
    capability.notice && `${capability.notice}${info.device === "cpu" ? " Pictures are made on the processor." : ""}`,
    info.notKept && `The model is fetched again next time: ${info.notKept}.`,
    info.unused.length > 0 && `${info.unused.length} tensors in the files are not used.`,
  ].filter(Boolean);
  notice(notices.join(" "));
  document.documentElement.dataset.ready = "";
  present = true;
  ready(true);
  coresChanged();
  if (wanted) {
    const { request, picture } = wanted;
    wanted = null;
    use(request, picture);
    if (request.class !== undefined) void generate();
  }
}

/** The class that a link or picture names; `number` tells classes of one name apart. */
function classOf(name: string | number, number: number | null): number | null {
  const { classes } = tintype!.info;
  const meant = called(classes, String(name));
  if (number !== null && meant.includes(number)) return number;
  if (meant.length === 1) return meant[0]!;
  const could = meant.map((index) => `${index} ${classes[index]}`).join("; ");
  notice(could ? `“${name}” could be one of these classes, choose one: ${could}` : `This model has no class “${name}”.`);
  return null;
}

function openPublished(model: Published, find: () => Promise<Files>): Promise<void> {
  $<HTMLDialogElement>("published").close();
  return load(model.title, find, model.settings ? requestOf(model.settings) : {});
}

/** Who waits for a model gets it at once; who does something else is asked. */
function arrived(model: Published, find: () => Promise<Files>) {
  const open = () => void openPublished(model, find);
  if ($<HTMLDialogElement>("published").open && !generating) open();
  else notice(`${model.title} has arrived.`, "Open it", open);
}

function ready(is: boolean) {
  // Some models have no classes.
  const chooses = is && tintype!.info.classes.length > 0;
  $<HTMLButtonElement>("surprise").disabled = !chooses;
  $<HTMLInputElement>("search").disabled = !chooses;
  if (is) $("empty").textContent = chooses ? "Pick a class and press Enter." : "Press Generate.";
}

// ---- Pictures ----

async function generate() {
  pressed = performance.now();
  if (generating) return;
  if (loading) await loading;
  if (!tintype || generating || !complete(tintype)) return;
  making = work(run, tintype);
  await making;
}

/** Whether nothing is missing for a picture; else the page says what. */
function complete({ info }: Tintype): boolean {
  if (picker.chosen === null && info.classes.length > 0) {
    stage.say("Pick a class first.");
    $("search").focus();
    return false;
  }
  if (form.trouble) {
    stage.say(form.trouble);
    form.wrong?.focus();
    return false;
  }
  return true;
}

/** Has the engine do something, which does one thing at a time. */
async function work(task: (tintype: Tintype) => Promise<void>, tintype: Tintype) {
  generating = true;
  [stale, stopped] = [false, false];
  // What was refused is not what is asked for now.
  if (refusal && $("notice").textContent === refusal) notice("");
  refusal = "";
  // What follows the form may be overtaken by a sheet.
  const others = ["generate", ...(following() ? [] : ["grid", "strip"])];
  for (const id of others) $(id).hidden = true;
  $("stop").hidden = false;
  await task(tintype);
  generating = false;
  for (const id of others) $(id).hidden = false;
  $("stop").hidden = true;
}

/** Makes what the form asks for, anew for as long as that changes meanwhile; never fails. */
async function run(tintype: Tintype) {
  do {
    stale = false;
    await make(tintype, asked(), form.gate);
  } while (stale && !form.trouble && !tintype.failed);
}

/** What the form asks for. */
function asked(): Request {
  return { class: picker.chosen, ...form.request() };
}

/** Makes a picture and shows it; never fails. */
async function make(tintype: Tintype, request: Request, gate: number | null) {
  const { info, cores } = tintype;
  const follows = following();
  delete document.documentElement.dataset.seconds;
  // One that follows the form takes the place of the one before, without an empty frame between.
  if (!follows || $("frame").dataset.state === "empty") clear(info, gate);
  const started = performance.now();
  // A link that comes meanwhile is of another picture.
  const { hash } = location;
  const begun: number[] = [];
  try {
    for await (const event of tintype.generate({ ...request, compare: form.compares, preview: preview && !follows })) {
      if (event.type === "step") {
        begun.push(performance.now());
        if (begun.length === 1) document.documentElement.dataset.firstStep = String(Math.round(begun[0]! - pressed));
        stage.step(event, gate);
      } else if (event.type === "picture") {
        const now = performance.now();
        const seconds = (now - started) / 1000;
        show(event);
        stage.say(`${title(event)}: ${seconds.toFixed(1)} s`);
        // What was made while the next one was asked for is only shown.
        if (stale) continue;
        document.documentElement.dataset.seconds = seconds.toFixed(2);
        gallery.add(event);
        if (location.hash === hash) {
          address({ ...request, class: name(event) });
          // Nor is a seed that was typed meanwhile this picture's.
          if (!follows && !form.trouble && form.request().seed === request.seed) form.advance();
        }
        // The first picture on a GPU also builds its kernels.
        // Nor does one say much during which a core came or went.
        if ((info.device === "cpu" || warm === info) && cores === tintype.cores) {
          pace.learn(evaluations(info, request, cores), begun, now);
        }
        warm = info;
        settingsChanged();
      } else if (!stale) {
        stage.say("Stopped.");
      }
    }
  } catch (error) {
    failed(tintype, error as Error);
  }
}

/** An empty frame for what is begun. */
function clear({ imageSize }: ModelInfo, gate: number | null) {
  $("after").hidden = true;
  stage.clear(imageSize, gate);
  stage.say("Starting; the first steps on a GPU build its kernels");
}

function failed(tintype: Tintype, error: Error) {
  broken(error);
  stage.say("");
  notice(error.message, tintype.failed ? "Start again" : undefined, () => void start());
  if (!tintype.failed) refusal = error.message;
}

/** Ends the run in hand after its step. */
function stop() {
  [stale, stopped] = [false, true];
  tintype?.cancel();
}

/** Makes pictures that belong together; `onOpen` is what a click on one does. */
async function makeSheet(plan: (tintype: Tintype) => Plan, onOpen: (picture: PictureEvent) => void) {
  if (generating) {
    stop();
    await making;
  }
  if (loading) await loading;
  if (!tintype || generating || !complete(tintype)) return;
  making = work((tintype) => fill(tintype, plan(tintype), onOpen), tintype);
  await making;
  // The form changed meanwhile.
  if (stale) follow();
}

/** Fills a sheet; never fails. */
async function fill(tintype: Tintype, plan: Plan, onOpen: (picture: PictureEvent) => void) {
  const [follows, gate] = [following(), form.gate];
  delete document.documentElement.dataset.seconds;
  if (!follows) clear(tintype.info, gate);
  sheet.open(plan);
  const started = performance.now();
  let count = 0;
  try {
    for (const request of plan.requests) {
      for await (const event of tintype.generate({ ...request, compare: form.compares, preview: preview && !follows })) {
        if (event.type === "step") {
          stage.step(event, gate);
        } else if (event.type === "picture") {
          count += 1;
          show(event);
          gallery.add(event);
          sheet.add(event, () => onOpen(event));
        }
      }
      if (stale) return;
      if (stopped) return stage.say("Stopped.");
    }
    const seconds = (performance.now() - started) / 1000;
    document.documentElement.dataset.seconds = seconds.toFixed(2);
    stage.say(`${count} pictures: ${seconds.toFixed(1)} s`);
  } catch (error) {
    failed(tintype, error as Error);
  }
}

/** Whether pictures are made as the form changes. */
function following(): boolean {
  return tintype?.info.oneStep === true && $<HTMLInputElement>("live").checked;
}

/** Makes what the form asks for now, in place of what is in the making. */
function follow() {
  // A model that is being opened is waited for by those who press.
  if (!following() || !$("loading").hidden) return;
  if (form.trouble) return stage.say(form.trouble);
  if (picker.chosen === null && tintype!.info.classes.length > 0) return;
  if (generating) {
    stale = true;
    tintype!.cancel();
  } else {
    void generate();
  }
}

/** Puts a request into the address bar. */
function address(request: Request) {
  try {
    history.replaceState(null, "", encode(request));
  } catch {
    // Browsers refuse when pictures follow each other too fast.
  }
}

/** An engine that stopped is of no more use. */
function broken(error: Error) {
  if (tintype?.failed) tintype = undefined;
  console.error(error);
}

/** What a link calls the class of a picture. */
function name({ origin }: PictureEvent): string {
  if (origin.class === null) return "";
  const info = tintype?.info.fingerprint === origin.model ? tintype.info : null;
  return (info && unmistakable(info.classes, origin.class)) ?? short(origin.class_name);
}

function show(picture: PictureEvent) {
  shown = picture;
  gallery.mark(picture);
  stage.picture(picture.image, picture.latent, title(picture));
  if (!generating) stage.say(title(picture));
  const download = $<HTMLAnchorElement>("download");
  URL.revokeObjectURL(download.href);
  download.href = URL.createObjectURL(picture.png);
  download.download = picture.name;
  $("after").hidden = false;
}

/** A change by hand. */
function changed() {
  settingsChanged();
  follow();
}

/** Another number of cores computes. */
function coresChanged() {
  document.documentElement.dataset.cores = String(tintype?.cores);
  settingsChanged();
}

/** How long a picture will take, where that was measured; and the gate on the time line. */
function settingsChanged() {
  const info = tintype?.info;
  if (!info) return;
  if (!generating) stage.mark(form.gate);
  const seconds = (request: Request) => pace.seconds(evaluations(info, request, tintype?.cores));
  const time = seconds(form.request());
  $("estimate").textContent = time === null ? "" : `About ${duration(time)} a picture${info.device === "cpu" ? " on this processor" : ""}.`;
  form.tell(seconds);
}

// ---- The page around them ----

function notice(text: string, action?: string, act?: () => void) {
  const bar = $("notice");
  bar.hidden = text === "";
  bar.textContent = text;
  if (action && act) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action;
    button.addEventListener("click", act);
    bar.append(" ", button);
  }
}

async function take(files: File[]) {
  if (files.length === 0) return;
  try {
    const picture = files.find((file) => /\.png$/i.test(file.name));
    if (picture) {
      const origin = await readOrigin(picture);
      if (!origin) throw new Error(`${picture.name} carries no settings of Tintype.`);
      use(again(origin), origin);
      follow();
      const notices = [
        tintype && origin.model !== tintype.info.fingerprint && `${picture.name} was made by another model.`,
        origin.guide && `${picture.name} was made with a guide, a second network, which a page does not load: here its picture is another one.`,
      ].filter(Boolean);
      if (notices.length > 0) notice(notices.join(" "));
      return;
    }
    const sorted = await sort(files);
    await load((sorted.model as File).name, () => Promise.resolve(sorted));
  } catch (error) {
    notice((error as Error).message);
  }
}

/** Puts a request into the form, now or once the model is there; whether it can be made at once. `picture` is the one
 * that it is of, if any. */
function use(request: Request, picture?: Origin): boolean {
  if (!tintype) {
    wanted = { request, picture };
    return false;
  }
  // The channels of another model's guidance would act without a field that shows them.
  const isOthers = picture !== undefined && picture.model !== tintype.info.fingerprint;
  form.fill(isOthers ? { ...request, cfgChannels: undefined } : request);
  const { class: name } = request;
  const found = name === undefined || name === null ? null : classOf(name, picture?.class ?? null);
  // One that is chosen already is no change, which pictures would follow.
  if (found !== null && found !== picker.chosen) picker.choose(found);
  settingsChanged();
  return found !== null;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!following()) return void generate();
  // The picture of these settings is there already.
  if (shown && form.request().seed === shown.origin.seed) form.advance();
  follow();
});
$("live").addEventListener("change", () => follow());
$("grid").addEventListener("click", () => {
  void makeSheet(({ info }) => grid(asked(), info), (picture) => {
    show(picture);
    use(again(picture.origin), picture.origin);
  });
});
$("strip").addEventListener("click", () => void makeSheet(() => strip(asked()), show));
$("stop").addEventListener("click", () => {
  stage.say("Stopping after this step");
  stop();
});
$("surprise").addEventListener("click", () => {
  picker.choose(Math.floor(Math.random() * tintype!.info.classes.length));
  void generate();
});
$("reuse").addEventListener("click", () => shown && use(again(shown.origin), shown.origin));
$("again").addEventListener("click", () => {
  if (shown) use(again(shown.origin), shown.origin);
  form.roll();
  void generate();
});
$("share").addEventListener("click", async () => {
  if (!shown) return;
  const { class: _, ...settings } = again(shown.origin);
  // The form's own spelling leaves out what is the default, which is another one for another model.
  const isOwn = shown.origin.model === tintype?.info.fingerprint;
  const request = { ...(isOwn ? form.shorten(settings) : settings), class: name(shown) };
  const link = new URL(encode(request), location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    stage.say("The link is copied.");
  } catch {
    history.replaceState(null, "", link);
    stage.say("The link is in the address bar.");
  }
});
$("models").addEventListener("click", () => void list.show());
$("open").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  const chooser = $<HTMLInputElement>("files");
  void take([...chooser.files!]);
  chooser.value = "";
});
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  theme(now === "dark" ? "light" : "dark");
});
window.addEventListener("keydown", (event) => {
  if ($<HTMLDialogElement>("published").open) return;
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  if (event.key === "Escape" && generating) stop();
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("search").focus();
  }
});
window.addEventListener("hashchange", () => {
  const request = decode(location.hash);
  if (!request) return;
  if (use(request)) void generate();
});
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").hidden = false;
});
window.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
window.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  void take([...(event.dataTransfer?.files ?? [])]);
});

function theme(name: string) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // A browser that keeps nothing shows its own theme next time.
  }
}

function start(): Promise<void> {
  return load("the emoji model", () => shipped("models/emoji/manifest.json"));
}

const linked = decode(location.hash);
if (linked) wanted = { request: linked, picture: undefined };
try {
  const kept = localStorage.getItem("theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch {
  // As above.
}
// Keeps the page itself for visits without a network; weights keep themselves.
if ("serviceWorker" in navigator && isSecureContext) {
  void navigator.serviceWorker.register("sw.js").catch(() => undefined);
}
const saving = (navigator as Navigator & { connection?: { saveData?: boolean } }).connection?.saveData;
if (saving) notice("The model is 31 MiB.", "Fetch it", () => void start());
else void start();
