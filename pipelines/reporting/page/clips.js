// Lists of clips: a card each, with pictures and the five best classes of each stream; and the links that open them.

const CARDS_AT_ONCE = 12;

/** The card of a clip. */
function clipCard(clip) {
  const id = data.clips.ids[clip];
  const [, name = id] = id.match(/^[^/]*\/(.*)$/s) || [];
  const split = data.splits.length > 1 ? `split ${splitOf(clip).split} · ` : "";
  const verdict = isRight(data.headline, clip)
    ? el("span", { class: "right" }, `✓ recognised (${data.headline})`)
    : el("span", { class: "wrong" }, `→ ${data.classes[guess(data.headline, clip)]} (${data.headline})`);
  const other = Object.hasOwn(data.others, clip) && ` · other run: ${data.classes[data.others[clip]]}`;
  const streams = headlineFirst.map((stream) => guesses(stream, clip));
  const about = [
    el("h3", { title: id }, name),
    el("p", { class: "verdict" }, `${split}${data.classes[truth(clip)]} `, verdict, other),
    el("div", { class: "guesses" }, streams),
  ];
  return el("article", { class: "card", "data-clip": id }, pictures(clip), el("div", { class: "about" }, about));
}

/** Whether clips play: at first, unless their reader wants less motion. */
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
document.body.classList.toggle("still", !playing);

/** Nothing where no clip of the page has pictures. */
function pictures(clip) {
  if (!Object.keys(data.thumbnails).length) return null;
  const [frame, flow, sheet] = data.thumbnails[clip] || [];
  const image = (src, alt) => src && el("img", { src, alt, loading: "lazy" });
  const still = [image(frame, "a frame of the clip"), image(flow, "its optical flow in colours")];
  const shown = sheet ? moving(sheet, image(sheet.uri, "the clip and its optical flow")) : still;
  const none = !sheet && !frame && !flow && el("div", { class: "none" }, "no picture");
  return el("div", { class: "pictures" }, shown, none);
}

/** A window on a sheet, behind which the style moves it a picture at a time; on the middle one where clips stand still. */
function moving({ pictures, seconds, ratio }, image) {
  const middle = Math.floor(pictures / 2);
  const properties = { "--pictures": pictures, "--middle": middle, "--seconds": `${seconds}s`, "--ratio": ratio };
  return styled(el("div", { class: "moving" }, el("div", {}, image)), properties);
}

/** A button that stops all clips of the page, or lets them play. */
function playButton() {
  const text = () => (playing ? "Stop clips" : "Play clips");
  const toggle = () => {
    playing = !playing;
    document.body.classList.toggle("still", !playing);
    for (const each of document.querySelectorAll(".play")) each.textContent = text();
  };
  return el("button", { type: "button", class: "play", onclick: toggle }, text());
}

/** The best classes of one stream with their probabilities; the true class is marked. */
function guesses(stream, clip) {
  const { best, probability } = data.clips.streams[stream];
  const list = el("ol", {});
  for (let place = clip * data.clips.best; place < (clip + 1) * data.clips.best; place += 1) {
    const share = probability[place] / data.clips.unit;
    const name = data.classes[best[place]];
    const isTrue = best[place] === truth(clip);
    const parts = [el("span", {}, `${isTrue ? "✓ " : ""}${name}`), el("span", {}, percent(share, 0))];
    const bar = styled(el("i"), { width: `${100 * share}%` });
    list.append(el("li", { class: isTrue && "true", title: name }, bar, parts));
  }
  return el("div", { stream }, el("b", {}, stream), list);
}

/** Cards of the clips, some at once, with a button for more. */
function cardList(clips) {
  const cards = el("div", { class: "cards" });
  const more = el("button", { type: "button", class: "more", onclick: () => show() });
  let shown = 0;
  const show = () => {
    cards.append(...clips.slice(shown, shown + CARDS_AT_ONCE).map(clipCard));
    shown = Math.min(clips.length, shown + CARDS_AT_ONCE);
    more.hidden = shown === clips.length;
    more.textContent = `Show more (${clips.length - shown} left)`;
  };
  show();
  return el("div", {}, clips.some((clip) => data.thumbnails[clip]?.[2]) && playButton(), cards, more);
}

// ------------------------------------------------------------------ links: #cell=3,5 #class=3 #helped=3 #hurt=3 #won= #lost= #suspects= #find=text

// Of each kind its clips and title, maybe more about them, and the section behind which the list stands.
const LISTS = {
  cell([row, column], stream) {
    const clips = clipsWhere((clip) => truth(clip) === row && guess(stream, clip) === column, stream);
    const title =
      row === column ? `${data.classes[row]}, recognised` : `${data.classes[row]}, taken for ${data.classes[column]}`;
    return { clips, title: `${title} (${stream})`, section: "matrix" };
  },
  class([row], stream) {
    const clips = clipsWhere((clip) => truth(clip) === row, stream);
    clips.sort((a, b) => isRight(stream, a) - isRight(stream, b));
    const title = `All of ${data.classes[row]}, mistakes first (${stream})`;
    return { clips, title, about: classFacts(row, stream), section: "classes" };
  },
  find([text]) {
    const wanted = text.toLowerCase();
    const clips = clipsWhere((clip) => data.clips.ids[clip].toLowerCase().includes(wanted));
    const named = data.classes.flatMap((name, row) =>
      name.toLowerCase().includes(wanted) ? [linkButton(name, "class", [row])] : [],
    );
    const about = named.length && el("p", {}, "Classes: ", listed(named));
    return { clips, title: `Clips named “${text}”`, about, section: "accuracy" };
  },
  helped: ([row]) => changedByMotion(row, "fused", "appearance", "right only with motion"),
  hurt: ([row]) => changedByMotion(row, "appearance", "fused", "right only without motion"),
  won: () => ({ clips: data.lists.won, title: "Right in this run only", section: "comparison" }),
  lost: () => ({ clips: data.lists.lost, title: "Right in the other run only", section: "comparison" }),
  suspects: () => ({
    clips: data.lists.suspects,
    title: "Possibly mislabelled, the most suspect first",
    section: "labels",
  }),
};

const linkButton = (text, kind, indices, stream) =>
  el("button", { type: "button", class: "link", "data-link": listLink(kind, indices, stream) }, text);
/** Elements with commas between them. */
const listed = (elements) => elements.flatMap((one, place) => (place ? [", ", one] : [one]));

/** The numbers of a class, and what one stream takes its clips for and takes for it, the most frequent first. */
function classFacts(row, stream) {
  const share = (value) => (value === null ? "–" : `${percent(value)} %`);
  const numbers = [
    ...headlineFirst.map((name) => `${name} ${share(data.accuracy[name][row])}`),
    ...Object.entries(data.figures).map(([title, values]) => `${title} ${values[row]}`),
  ];
  const index = ([trueClass, taken]) => trueClass * classCount + taken;
  const others = (cellOf) =>
    data.classes
      .map((name, other) => ({ name, cell: cellOf(other), number: data.confusion[stream][index(cellOf(other))] }))
      .filter(({ cell, number }) => cell[0] !== cell[1] && number)
      .sort((a, b) => b.number - a.number)
      .map(({ name, cell, number }) => linkButton(`${name} (${number})`, "cell", cell, stream));
  const line = (what, found) => el("p", {}, `${what}: `, found.length ? listed(found) : "none");
  const all = el("p", {}, `${numbers.join(" · ")} (${Object.keys(data.figures).join(", ")} of ${data.headline})`);
  const taken = line("Taken for", others((other) => [row, other]));
  const takenForIt = line("Taken for it", others((other) => [other, row]));
  return el("div", { class: "facts" }, all, taken, takenForIt);
}

/** The clips of a class that one stream gets right and another wrong. */
function changedByMotion(row, right, wrong, what) {
  const clips = clipsWhere((clip) => truth(clip) === row && isRight(right, clip) && !isRight(wrong, clip), "fused");
  return { clips, title: `${data.classes[row]}: ${what}`, section: "motion" };
}

/** The link that opens a list; classes by index. */
function listLink(kind, indices, stream = data.headline) {
  return `#${kind}=${indices.join(",")}${stream === data.headline ? "" : `,${encodeURIComponent(stream)}`}`;
}

/** What a link asks for, or null where it is none of ours. */
function readLink(hash) {
  const [, kind, rest] = hash.match(/^#(\w+)=(.*)$/) || [];
  if (!kind || !Object.hasOwn(LISTS, kind)) return null;
  const asked = (indices, stream = data.headline) => ({ kind, indices, stream });
  if (["won", "lost", "suspects"].includes(kind)) return data.lists[kind] && !rest ? asked([]) : null;
  try {
    if (kind === "find") return rest ? asked([decodeURIComponent(rest)]) : null;
    const [number, parts] = [kind === "cell" ? 2 : 1, rest.split(",")];
    const indices = parts.slice(0, number).map(Number);
    const stream = decodeURIComponent(parts.slice(number).join(",")) || data.headline;
    const known = indices.length === number && indices.every((index) => data.classes[index] !== undefined);
    return known && data.streams.includes(stream) ? asked(indices, stream) : null;
  } catch {
    return null; // not as encodeURIComponent makes it
  }
}

/** Opens the list that the address names, or closes it. */
function followLink() {
  const section = document.getElementById("clips");
  const link = readLink(location.hash);
  if (!link) {
    section.hidden = true;
    return;
  }
  if (link.kind === "cell") pointAt(link.indices, link.stream);
  const { clips, title, about, section: place } = LISTS[link.kind](link.indices, link.stream);
  const close = () => {
    history.replaceState(null, "", location.pathname + location.search);
    section.hidden = true;
  };
  const heading = el("h2", {}, title, el("span", { class: "muted" }, plural(clips.length, "clip")));
  const button = el("button", { type: "button", onclick: close }, "Close");
  const cards = clips.length ? cardList(clips) : el("p", { class: "muted" }, "No clip.");
  section.replaceChildren(el("div", { class: "heading" }, heading, button), about || "", cards);
  section.onkeydown = (event) => {
    if (event.key === "Escape") {
      close();
      focusMatrix();
    }
  };
  document.getElementById(place).after(section);
  section.hidden = false;
  section.scrollIntoView({ block: "nearest" });
  section.focus({ preventScroll: true });
}

/** Goes to a link; also where it is the address already. */
function openList(link) {
  if (location.hash === link) followLink();
  else location.hash = link;
}
