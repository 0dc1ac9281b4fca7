// Keeps the page for visits without a network. Weights are not here: the engine keeps them itself.
// The build puts the list of files and their common version in place of the two names.

const VERSION = "%VERSION%";
const FILES = ["%FILES%"];

// Other pages of the origin have caches, too, of which some may be of this program at another address.
const OWN = `tintype ${self.registration.scope} `;
const NAME = OWN + VERSION;

self.addEventListener("install", (event) => {
  const fill = async () => {
    const cache = await caches.open(NAME);
    await cache.addAll(FILES.map((file) => new Request(file, { cache: "reload" })));
  };
  event.waitUntil(fill());
});

self.addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(OWN) && name !== NAME) await caches.delete(name);
    }
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

// A version is one whole: what is kept comes first, and a new version waits until no page shows the old.
self.addEventListener("fetch", (event) => {
  // What other sites send is none of its business.
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== location.origin) return;
  const answer = async () => {
    const cache = await caches.open(NAME);
    const kept = await cache.match(event.request, { ignoreSearch: event.request.mode === "navigate" });
    return kept ?? fetch(event.request);
  };
  event.respondWith(answer());
});
