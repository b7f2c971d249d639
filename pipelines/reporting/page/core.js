"use strict";
// What every part of the page uses: the data, elements, colours, words. Text from data only ever becomes text nodes.

window.addEventListener("error", (event) => {
  document.documentElement.dataset.error = event.message;
});

const data = JSON.parse(document.getElementById("data").textContent);
const classCount = data.classes.length;
const clipCount = data.clips.ids.length;
const headlineFirst = [data.headline, ...data.streams.filter((stream) => stream !== data.headline)];
const OWN_STREAMS = ["appearance", "motion", "fused"];

/** An element with attributes; `on...` are listeners, true is an empty attribute, false and null leave it out. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "stream") markStream(element, value);
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Gives the element the stream's colour as `--stream`. */
function markStream(element, stream) {
  element.dataset.stream = stream;
  if (!OWN_STREAMS.includes(stream) && stream === data.headline) element.dataset.place = "combined";
}

/** A length or colour that data decides. */
function styled(element, properties) {
  for (const [name, value] of Object.entries(properties)) element.style.setProperty(name, value);
  return element;
}

const host = (name) => document.getElementById(`${name}-host`);
/** As `wording.py` rounds: half a unit of the last digit up, whatever the float of a fraction is off by. */
const percent = (fraction, digits = 1) =>
  (Math.floor(fraction * 100 * 10 ** digits + 0.5 + 1e-9) / 10 ** digits).toFixed(digits);
const plural = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

// ------------------------------------------------------------------ colours

const probe = el("span", { hidden: true });
document.body.append(probe);

/** A colour of the style sheet as [red, green, blue], whatever scheme is on. */
function colour(name) {
  probe.style.color = `var(--${name})`;
  const shown = getComputedStyle(probe).color;
  const numbers = shown.match(/[\d.]+/g).slice(0, 3).map(Number);
  return shown.startsWith("color(") ? numbers.map((value) => Math.round(255 * value)) : numbers;
}

const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/** From the first through the middle to the last of three colours, for a share of 0 to 1. */
function ramp(colours, share) {
  const place = Math.min(1, Math.max(0, share)) * 2;
  const [from, to] = place < 1 ? [colours[0], colours[1]] : [colours[1], colours[2]];
  return from.map((value, index) => Math.round(value + (to[index] - value) * (place < 1 ? place : place - 1)));
}

const onThemeChange = [];
const themeChanged = () => onThemeChange.forEach((redraw) => redraw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themeChanged);

/** The button that goes from the system's scheme to light, to dark and back. */
function themeButton() {
  const button = document.getElementById("theme");
  const names = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  let theme = "auto";
  try {
    theme = localStorage.getItem("stres-theme") || "auto";
  } catch {
    /* a file's page may have no storage */
  }
  const show = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = names[theme] || names.auto;
    themeChanged();
  };
  button.addEventListener("click", () => {
    theme = { auto: "light", light: "dark", dark: "auto" }[theme] || "light";
    try {
      localStorage.setItem("stres-theme", theme);
    } catch {
      /* then it lasts until the page is closed */
    }
    show();
  });
  button.hidden = false;
  show();
}

// ------------------------------------------------------------------ clips

/** The class that `stream` names for a clip. */
const guess = (stream, clip) => data.clips.streams[stream].best[clip * data.clips.best];
const confidence = (stream, clip) => data.clips.streams[stream].probability[clip * data.clips.best] / data.clips.unit;
const truth = (clip) => data.clips.labels[clip];
const isRight = (stream, clip) => guess(stream, clip) === truth(clip);

/** The clips for which `wanted` holds, the most confident of `stream` first. */
function clipsWhere(wanted, stream = data.headline) {
  const found = [];
  for (let clip = 0; clip < clipCount; clip += 1) if (wanted(clip)) found.push(clip);
  return found.sort((a, b) => confidence(stream, b) - confidence(stream, a));
}

/** The split of a clip: clips are counted through all splits. */
function splitOf(clip) {
  let before = 0;
  for (const split of data.splits) {
    before += split.videos;
    if (clip < before) return split;
  }
  return data.splits.at(-1);
}
