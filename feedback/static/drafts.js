// Texts that a reviewer typed and did not send yet, per person and conversation, in this browser's storage.
(function () {
  "use strict";
  const KEPT_MS = 14 * 86400000; // as long as somebody may be away

  window.whetDrafts = (user) => {
    const prefix = "whet.draft." + user + ".";
    const quietly = (work, otherwise) => { try { return work(); } catch (error) { return otherwise; } }; // storage is off or full
    const read = (item) => quietly(() => {
      const draft = JSON.parse(localStorage.getItem(prefix + item));
      return draft && Date.now() - draft.at < KEPT_MS ? draft : null;
    }, null);
    const drop = (item) => quietly(() => localStorage.removeItem(prefix + item));
    const items = () => quietly(() => Object.keys(localStorage).filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)), []);
    const keep = (item, draft) => {
      if (draft) quietly(() => localStorage.setItem(prefix + item, JSON.stringify({ ...draft, at: Date.now() })));
      else drop(item);
    };
    for (const item of items()) if (!read(item)) drop(item);
    return { read, keep, drop, items, has: (item) => read(item) !== null };
  };
})();
