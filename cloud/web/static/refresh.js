"use strict";
// Fetches a part of the page again while jobs run. Without this script the page is what it was when it was loaded.
(() => {
  for (const part of document.querySelectorAll("[data-refresh]")) {
    const again = async () => {
      if (document.hidden || part.contains(document.activeElement)) return true;
      const answer = await fetch(part.dataset.refresh, { headers: { Accept: "text/html" } }).catch(() => null);
      if (!answer || answer.redirected) return false;
      if (!answer.ok || part.contains(document.activeElement)) return true;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
      // What somebody opened or shut stays so.
      for (const details of part.querySelectorAll("details[id]")) {
        const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
        if (same) same.open = details.open;
      }
      if (fresh.innerHTML.trim() !== part.innerHTML.trim()) part.replaceChildren(...fresh.childNodes);
      return "always" in part.dataset || part.querySelector("[data-open]") !== null;
    };
    const loop = async () => {
      if (await again()) setTimeout(loop, 2000);
    };
    setTimeout(loop, 2000);
  }
})();
