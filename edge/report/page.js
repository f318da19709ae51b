"use strict";
// The cursor of the timeline: shows the values of the column under it. Text from the drive is only ever set as text.
(() => {
  const byId = (id) => document.getElementById(id);
  const columns = JSON.parse(byId("columns").textContent);
  const lanes = byId("lanes");
  const overlay = lanes.querySelector(".overlay");
  const film = byId("film");
  const mapPoints = (byId("map")?.dataset.points || "").split(" ").filter(Boolean).map((p) => p.split(",").map(Number));
  let at = 0;

  const clock = (s) => {
    const tenths = Math.round(s * 10);
    const minutes = Math.floor(tenths / 600);
    const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
    return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
  };

  const columnAt = (seconds) => {
    let low = 0;
    let high = columns.t.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (columns.t[middle] <= seconds) low = middle;
      else high = middle - 1;
    }
    return low;
  };

  const words = (list) => {
    const fragment = document.createDocumentFragment();
    for (const [text, kind] of list) {
      const word = document.createElement("span");
      word.textContent = text;
      if (kind) word.className = kind;
      fragment.append(word, " ");
    }
    return fragment;
  };

  const fill = (id, list, none) => {
    const place = byId(id);
    place.replaceChildren(list.length ? words(list) : words([[none, "muted"]]));
  };

  const labels = (said, truth, i) => {
    const likely = Object.entries(said)
      .filter(([, values]) => values[i] >= 50)
      .sort((a, b) => b[1][i] - a[1][i])
      .map(([name, values]) => {
        const known = truth && name in truth;
        const kind = known ? (truth[name][i] === "1" ? "right" : "wrong") : "";
        const mark = known ? (truth[name][i] === "1" ? "\u2713 " : "\u2715 ") : "";
        return [`${mark}${name.replaceAll("_", " ")} ${values[i]} %`, kind];
      });
    const missed = Object.entries(truth || {})
      .filter(([name, on]) => on[i] === "1" && name in said && said[name][i] < 50)
      .map(([name]) => [`\u25cb ${name.replaceAll("_", " ")} missed`, "missed"]);
    return likely.slice(0, 9).concat(missed);
  };

  const gone = (i) =>
    Object.entries(columns.gone)
      .filter(([, why]) => why.length && why[i])
      .map(([name, why]) => [`${name}: ${columns.absences[why[i]] || "absent"}`, "gone"]);

  const show = (i) => {
    at = Math.max(0, Math.min(i, columns.t.length - 1));
    const seconds = columns.t[at];
    const share = seconds / columns.duration;
    byId("cursor").style.left = `${100 * share}%`;
    byId("at-time").textContent = clock(seconds);
    const hardness = (columns.hardness[at] / 100).toFixed(2);
    byId("at-hardness").textContent = hardness;
    byId("at-bar").style.width = `${columns.hardness[at]}%`;
    const scene = columns.scene[at];
    byId("at-scene").textContent = scene ? `in scene ${scene} (${columns.scenes[scene] || "open"})` : "no hard scene";
    byId("at-motion").textContent = columns.speed ? `at ${columns.speed[at].toFixed(0)} km/h` : "";
    const level = columns.overload[at] ? `, overload ${columns.overload[at]}` : "";
    byId("at-latency").textContent = `decided after ${columns.latency[at].toFixed(0)} ms${level}`;
    const reasons = Object.entries(columns.scores)
      .filter(([, values]) => values[at] >= 1)
      .sort((a, b) => b[1][at] - a[1][at])
      .slice(0, 4)
      .map(([name, values]) => [`${name} ${(values[at] / 100).toFixed(2)}`, "reason"]);
    fill("at-reasons", reasons, "nothing");
    fill("at-tags", labels(columns.tags, columns.truth?.tags, at), "nothing likely");
    fill("at-sounds", labels(columns.sounds, columns.truth?.sounds, at), "nothing likely");
    fill("at-gone", gone(at), "nothing");
    const caption = columns.truth ? columns.truth.sentences[columns.truth.captions[at]] : "";
    byId("at-truth").textContent = caption ? `Truth: ${caption}` : "";
    byId("at-truth").hidden = !columns.truth;
    lanes.setAttribute("aria-valuenow", seconds);
    lanes.setAttribute("aria-valuetext", `${clock(seconds)}, hardness ${hardness}${scene ? `, scene ${scene}` : ""}`);
    picture(share);
    place(seconds);
  };

  const picture = (share) => {
    if (!film) return;
    const shots = film.children;
    const shot = shots[Math.min(Math.floor(share * shots.length), shots.length - 1)];
    const image = byId("at-picture");
    image.hidden = false;
    if (shot.tagName === "IMG") image.src = shot.src;
    else image.removeAttribute("src");
  };

  const place = (seconds) => {
    if (!mapPoints.length) return;
    let best = mapPoints[0];
    for (const point of mapPoints) if (Math.abs(point[0] - seconds) < Math.abs(best[0] - seconds)) best = point;
    byId("map-cursor").setAttribute("cx", best[1]);
    byId("map-cursor").setAttribute("cy", best[2]);
  };

  const follow = (event) => {
    const box = overlay.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    if (share >= 0 && share <= 1) show(columnAt(share * columns.duration));
  };
  lanes.addEventListener("pointermove", follow);
  lanes.addEventListener("pointerdown", follow);

  lanes.addEventListener("keydown", (event) => {
    if (event.target !== lanes) return;
    const second = columnAt(columns.t[at] + 1.0001) - at || 1;
    const back = at - columnAt(Math.max(columns.t[at] - 1, 0)) || 1;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageUp: second, PageDown: -back, Home: -at, End: columns.t.length,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(at + steps[event.key]);
  });

  for (const link of document.querySelectorAll("[data-at]")) {
    link.addEventListener("click", () => show(columnAt(Number(link.dataset.at))));
  }
  for (const box of document.querySelectorAll(".show-truth")) {
    box.addEventListener("change", () => box.closest(".pictures").classList.toggle("without-truth", !box.checked));
  }
  for (const figure of document.querySelectorAll("figure.heard")) {
    const player = figure.querySelector("audio");
    const head = figure.querySelector(".playhead");
    player?.addEventListener("timeupdate", () => {
      head.style.left = `${(100 * player.currentTime) / (player.duration || 1)}%`;
      head.style.display = "block";
      show(columnAt(Number(figure.dataset.start) + player.currentTime));
    });
  }
  show(columnAt(columns.start));
})();
