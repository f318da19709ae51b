"use strict";
// Steps through a clip's frames in time with its sound. Without this script the strip's links and the sound still work.
(() => {
  const byId = (id) => document.getElementById(id);
  const player = byId("player");
  if (!player) return;
  const sound = byId("sound");
  const image = byId("frame");
  const boxes = byId("boxes");
  const seek = byId("seek");
  const play = byId("play");
  const lanes = byId("lanes");
  const wave = byId("wave");
  const map = byId("map");
  const language = byId("language");
  const strip = [...player.querySelectorAll(".film a")];
  const mapPoints = (map?.dataset.points || "").split(" ").filter(Boolean).map((point) => point.split(",").map(Number));
  const AHEAD = 8; // frames asked for before they are shown
  let reel = null;
  let at = Number(player.dataset.at);
  let shown = -1;
  let playing = false;
  let started = 0; // performance.now() at instant 0, while there is no sound to go by
  let marked = null; // of the strip
  const loaded = new Map();

  const clock = (s) => {
    const tenths = Math.round(s * 10);
    return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
  };

  const nearest = (times, t) => {
    let low = 0;
    let high = times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < t) low = middle + 1;
      else high = middle;
    }
    return low > 0 && t - times[low - 1] <= times[low] - t ? low - 1 : low;
  };

  const picture = (number) => {
    let found = loaded.get(number);
    if (!found) {
      found = new Image();
      found.src = `${player.dataset.frames}${number}.jpg?v=${player.dataset.version}`;
      loaded.set(number, found);
      if (loaded.size > 120) loaded.delete(loaded.keys().next().value);
    }
    return found;
  };

  const outline = (number) => {
    const NS = "http://www.w3.org/2000/svg";
    const parts = (reel.boxes[number] || []).map(([word, kind, left, top, width, height]) => {
      const group = document.createElementNS(NS, "g");
      group.setAttribute("class", ["vehicle", "pedestrian", "sign"].includes(kind) ? kind : "other");
      const rect = document.createElementNS(NS, "rect");
      for (const [name, value] of Object.entries({ x: left, y: top, width, height, rx: 2 })) rect.setAttribute(name, value);
      const text = document.createElementNS(NS, "text");
      text.setAttribute("x", left + 2);
      text.setAttribute("y", Math.max(top - 4, 12));
      text.textContent = word;
      group.append(rect, text);
      return group;
    });
    boxes.replaceChildren(...parts);
  };

  const show = (seconds) => {
    at = Math.min(Math.max(seconds, 0), reel.duration);
    const number = nearest(reel.frames, at);
    const share = at / reel.duration;
    if (number !== shown) {
      const found = picture(number);
      // While it plays, a frame that is not here yet is passed over, not waited for.
      if (!playing || found.complete) {
        image.src = found.src;
        image.alt = `The camera's picture at ${clock(reel.frames[number])}`;
        outline(number);
        shown = number;
      }
      for (let i = 1; playing && i <= AHEAD; i += 1) if (number + i < reel.frames.length) picture(number + i);
    }
    byId("clock").textContent = clock(at);
    seek.value = at;
    seek.setAttribute("aria-valuetext", clock(at));
    if (reel.decided.length) byId("hardness").textContent = reel.hardness[nearest(reel.decided, at)].toFixed(2);
    const cursor = byId("cursor");
    for (const end of ["x1", "x2"]) cursor?.setAttribute(end, `${100 * share}%`);
    if (head) head.style.left = `${100 * share}%`;
    if (mapPoints.length) {
      let best = mapPoints[0];
      for (const point of mapPoints) if (Math.abs(point[0] - at) < Math.abs(best[0] - at)) best = point;
      byId("map-cursor").setAttribute("cx", best[1]);
      byId("map-cursor").setAttribute("cy", best[2]);
    }
    mark();
    say();
  };

  // Subtitles by the player's clock, so that a clip without sound has them too: their tracks' element plays nothing.
  const say = () => {
    const track = [...(byId("captions")?.textTracks || [])].find(({ mode }) => mode === "hidden");
    const cues = [...(track?.cues || [])].filter((cue) => cue.startTime <= at && at < cue.endTime);
    const text = cues.map((cue) => cue.text).join("\n");
    if (language && byId("subtitle").textContent !== text) byId("subtitle").textContent = text;
  };

  const speak = () => {
    byId("subtitle").hidden = !language.value;
    // Hidden: read by us, and drawn on the picture.
    for (const track of byId("captions").textTracks) {
      track.mode = track.language === language.value ? "hidden" : "disabled";
    }
    say();
  };

  const mark = () => {
    let best = strip[0];
    for (const shot of strip) if (Math.abs(shot.dataset.at - at) < Math.abs(best.dataset.at - at)) best = shot;
    if (!best || best === marked) return;
    marked = best;
    for (const shot of strip) {
      shot.removeAttribute("aria-current");
      shot.tabIndex = -1;
    }
    best.setAttribute("aria-current", "true");
    best.tabIndex = 0;
    const film = best.closest(".film-scroll");
    const left = best.offsetLeft - film.offsetLeft;
    if (left < film.scrollLeft || left + best.offsetWidth > film.scrollLeft + film.clientWidth) {
      film.scrollLeft = left - film.clientWidth / 3;
    }
  };

  const go = (seconds) => {
    show(seconds);
    if (sound) sound.currentTime = Math.min(at, sound.duration || at);
    started = performance.now() - at * 1000;
  };

  const tick = () => {
    if (!playing) return;
    const now = sound && !sound.ended && !sound.paused ? sound.currentTime : (performance.now() - started) / 1000;
    show(now);
    if (at >= reel.duration) stop();
    else requestAnimationFrame(tick);
  };

  const state = () => {
    play.setAttribute("aria-pressed", String(playing));
    play.querySelector(".hidden").textContent = playing ? "Pause" : "Play";
  };

  const start = () => {
    if (at >= reel.duration - 0.05) go(0);
    playing = true;
    started = performance.now() - at * 1000;
    sound?.play().catch(() => {});
    state();
    requestAnimationFrame(tick);
  };

  const stop = () => {
    playing = false;
    sound?.pause();
    state();
  };

  const step = (frames) => {
    stop();
    const number = Math.min(Math.max(nearest(reel.frames, at) + frames, 0), reel.frames.length - 1);
    go(reel.frames[number]);
  };

  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inStrip = event.target.closest(".film");
    const number = strip.indexOf(event.target);
    const steps = {
      ",": () => step(-1), ".": () => step(1), PageUp: () => go(at + 1), PageDown: () => go(at - 1),
      Home: () => go(0), End: () => go(reel.duration),
    };
    if (event.key === " " && !event.target.closest("button, input, audio, summary, select")) {
      event.preventDefault();
      if (playing) stop();
      else start();
    } else if (inStrip && number >= 0 && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
      event.preventDefault();
      const next = strip[Math.min(Math.max(number + (event.key === "ArrowRight" ? 1 : -1), 0), strip.length - 1)];
      next.focus();
      go(Number(next.dataset.at));
    } else if (event.key in steps && !event.target.closest("audio, input, select")) {
      event.preventDefault();
      steps[event.key]();
    }
  };

  const along = (element, offset) => (event) => {
    const box = element.getBoundingClientRect();
    const share = (event.clientX - box.left - offset()) / (box.width - offset());
    if (share >= 0 && share <= 1) go(share * reel.duration);
  };

  let head = null;
  const begin = (found) => {
    reel = found;
    if (!reel.frames.length) return;
    if (wave) {
      head = document.createElement("span");
      head.className = "head";
      wave.append(head);
      wave.addEventListener("click", along(wave, () => 0));
    }
    for (const part of player.querySelectorAll(".controls, .keys")) part.hidden = false;
    shown = nearest(reel.frames, at);
    for (const shot of strip) shot.tabIndex = shot.getAttribute("aria-current") ? 0 : -1;
    show(at);
    play.addEventListener("click", () => (playing ? stop() : start()));
    byId("back").addEventListener("click", () => step(-1));
    byId("on").addEventListener("click", () => step(1));
    seek.addEventListener("input", () => go(Number(seek.value)));
    byId("show-boxes").addEventListener("change", (event) => boxes.toggleAttribute("hidden", !event.target.checked));
    player.addEventListener("keydown", keys);
    for (const link of document.querySelectorAll("a[data-at]")) {
      link.addEventListener("click", (event) => {
        const isOfBrowser = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
        if (event.button || isOfBrowser) return; // such as for a tab of its own
        event.preventDefault();
        go(Number(link.dataset.at));
        image.closest(".view").scrollIntoView({ block: "nearest" });
      });
    }
    if (lanes) {
      lanes.classList.add("live");
      const label = () => lanes.querySelector(".overlay").offsetLeft;
      lanes.addEventListener("click", along(lanes, label));
    }
    // The browser's own sound controls drive the pictures too.
    sound?.addEventListener("play", () => {
      if (!playing) start();
    });
    sound?.addEventListener("pause", () => {
      if (playing && !sound.ended && sound.currentTime < reel.duration - 0.1) stop();
    });
    sound?.addEventListener("seeked", () => {
      if (Math.abs(sound.currentTime - at) > 0.3) show(sound.currentTime);
    });
    const begins = () => {
      if (!playing) sound.currentTime = Math.min(at, sound.duration || at);
    };
    if (sound?.readyState) begins();
    else sound?.addEventListener("loadedmetadata", begins, { once: true });
    if (language) {
      for (const track of player.querySelectorAll("track")) track.addEventListener("load", say);
      language.addEventListener("change", speak);
      speak();
    }
  };

  fetch(player.dataset.reel).then((answer) => (answer.ok ? answer.json() : null)).then((found) => found && begin(found));
})();
