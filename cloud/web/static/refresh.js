"use strict";
// Fetches a part of the page again: where it names a stream, when that says that there is news, else every two seconds,
// and so too where no stream comes through. Without this script the page is what it was when it was loaded.
(() => {
  const PAUSE_MS = 2000, LEAST_MS = 1000, SILENCE_MS = 25000;
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  // "shown", "later": not while somebody is at work in it, or the server is away; "over": it changes no more.
  const refresh = async (part) => {
    if (document.hidden || part.contains(document.activeElement)) return "later";
    const answer = await fetch(part.dataset.refresh, { headers: { Accept: "text/html" } }).catch(() => null);
    if (answer && answer.redirected) return "over";
    if (!answer || !answer.ok || part.contains(document.activeElement)) return "later";
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
    // What somebody opened or shut stays so.
    for (const details of part.querySelectorAll("details[id]")) {
      const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = details.open;
    }
    if (fresh.innerHTML.trim() !== part.innerHTML.trim()) part.replaceChildren(...fresh.childNodes);
    return "always" in part.dataset || part.querySelector("[data-open]") !== null ? "shown" : "over";
  };

  const ask = async (part) => {
    do await pause(PAUSE_MS); while (await refresh(part) !== "over");
  };

  const listen = (part) => {
    let source = null, silence = 0, is_stale = false, is_at_work = false;
    const close = () => {
      clearTimeout(silence);
      if (source) source.close();
      source = null;
    };
    const give_up = () => {
      close();
      document.removeEventListener("visibilitychange", turn);
      ask(part);
    };
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(give_up, SILENCE_MS);
    };
    const catch_up = async () => {
      is_stale = true;
      if (is_at_work) return;
      is_at_work = true;
      while (is_stale && source) {
        is_stale = false;
        const what = await refresh(part);
        if (what === "over") {
          close();
          document.removeEventListener("visibilitychange", turn);
        } else if (what === "later") is_stale = true;
        await pause(what === "later" ? PAUSE_MS : LEAST_MS);
      }
      is_at_work = false;
    };
    // A page in the background holds no connection: a browser has but six for a server. Its first event brings it up.
    const turn = () => {
      if (document.hidden) close();
      else if (!source) open();
    };
    const open = () => {
      source = new EventSource(part.dataset.stream);
      source.addEventListener("news", () => { heard(); catch_up(); });
      source.addEventListener("beat", heard);
      source.addEventListener("error", () => { if (source && source.readyState === EventSource.CLOSED) give_up(); });
      heard();
    };
    document.addEventListener("visibilitychange", turn);
    turn();
  };

  for (const part of document.querySelectorAll("[data-refresh]")) {
    if ("stream" in part.dataset && "EventSource" in window) listen(part);
    else ask(part);
  }
})();
