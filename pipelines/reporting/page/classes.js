// The lists of classes: confused pairs, figures and bars of each class, what motion changes.

const PAIRS_SHOWN = 30;
const EFFECTS_SHOWN = 12;
const indexOfClass = new Map(data.classes.map((name, index) => [name, index]));

function buildPairs() {
  const counts = confusion(data.headline);
  const pairs = [];
  for (let row = 0; row < classCount; row += 1) {
    const total = counts.subarray(row * classCount, (row + 1) * classCount).reduce((sum, count) => sum + count, 0);
    for (let column = 0; column < classCount; column += 1) {
      const count = counts[row * classCount + column];
      if (row !== column && count) pairs.push({ row, column, count, share: count / total });
    }
  }
  pairs.sort((a, b) => b.count - a.count || b.share - a.share);
  if (!pairs.length) {
    host("pairs").append(el("p", { class: "muted" }, "No video was confused."));
    return;
  }
  const rows = pairs
    .slice(0, PAIRS_SHOWN)
    .map(({ row, column, count, share }) =>
      el(
        "tr",
        {},
        el("td", { class: "name" }, data.classes[row]),
        el("td", { class: "name left" }, data.classes[column]),
        el("td", {}, opener(String(count), "cell", [row, column])),
        el("td", {}, percent(share)),
      ),
    );
  host("pairs").append(
    el(
      "div",
      { class: "scroll tall narrow" },
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", {}, "true"),
            el("th", { class: "left" }, "taken for"),
            el("th", {}, "clips"),
            el("th", {}, "% of the class"),
          ),
        ),
        el("tbody", {}, rows),
      ),
    ),
  );
  if (pairs.length > PAIRS_SHOWN)
    host("pairs").append(
      el("p", { class: "muted" }, `${PAIRS_SHOWN} of ${pairs.length} pairs; confused_pairs.csv has them all.`),
    );
}

// ------------------------------------------------------------------ every class

function buildClasses() {
  const effect = new Map(data.effects.map((one) => [one.class_name, one.difference]));
  const columns = [
    { title: "class", value: (row) => indexOfClass.get(row.class_name), ascending: true },
    { title: "clips", value: (row) => row.support, text: (value) => String(value) },
    ...data.streams.map((stream) => ({ title: stream, value: (row) => row.accuracy[stream], stream })),
    { title: "precision", value: (row) => row.precision },
    { title: "recall", value: (row) => row.recall },
    { title: "F1", value: (row) => row.f1 },
  ];
  if (data.effects.length)
    columns.push({
      title: "motion adds",
      value: (row) => effect.get(row.class_name) ?? null,
      text: (value) => (value === null ? "–" : points(value)),
    });
  const state = { column: columns.findIndex((column) => column.title === data.headline), ascending: true, filter: "" };
  const body = el("tbody");
  const heads = columns.map((column, place) =>
    el(
      "th",
      {},
      el(
        "button",
        {
          type: "button",
          onclick: () => {
            state.ascending = state.column === place ? !state.ascending : Boolean(column.ascending);
            state.column = place;
            draw();
          },
        },
        column.title,
      ),
    ),
  );
  heads.splice(1, 0, el("th", { class: "left" }, "accuracy"));
  const draw = () => {
    heads
      .filter((_, place) => place !== 1)
      .forEach((head, place) => {
        if (place === state.column) head.setAttribute("aria-sort", state.ascending ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
    const wanted = state.filter.toLowerCase();
    const rows = data.perClass.filter((row) => row.class_name.toLowerCase().includes(wanted));
    const sign = state.ascending ? 1 : -1;
    const value = (row) => columns[state.column].value(row);
    rows.sort((a, b) => (value(a) === null) - (value(b) === null) || sign * (value(a) - value(b)));
    body.replaceChildren(...rows.map((row) => classRow(row, columns)));
  };
  host("classes").append(
    el(
      "div",
      { class: "controls" },
      el("input", {
        type: "search",
        placeholder: "Find a class",
        "aria-label": "Find a class",
        oninput: (event) => {
          state.filter = event.target.value;
          draw();
        },
      }),
      legend(data.streams),
      el("span", { class: "muted" }, `%; precision, recall and F1 of ${data.headline}`),
    ),
    el("div", { class: "scroll tall" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), body)),
  );
  draw();
}

function classRow(row, columns) {
  const bars = data.streams.map((stream) =>
    styled(el("i", { stream, title: `${stream}: ${percent(row.accuracy[stream])} %` }), {
      width: `${100 * (row.accuracy[stream] || 0)}%`,
    }),
  );
  const figures = columns.slice(1).map((column) => el("td", {}, (column.text || percent)(column.value(row))));
  return el(
    "tr",
    {},
    el("td", { class: "name" }, opener(row.class_name, "class", [indexOfClass.get(row.class_name)])),
    el("td", {}, el("div", { class: "stack" }, bars)),
    figures,
  );
}

// ------------------------------------------------------------------ motion

function buildMotion() {
  if (!data.effects.length) return;
  const sum = (name) => data.effects.reduce((total, effect) => total + effect[name], 0);
  const list = (kind, name, effects) =>
    el(
      "div",
      {},
      el("h3", {}, name),
      effects.length
        ? el(
            "ul",
            { class: "bars" },
            effects.map((effect) => effectRow(kind, effect)),
          )
        : el("p", { class: "muted" }, "No class."),
    );
  const helped = data.effects.filter((effect) => effect.difference > 0);
  const hurt = data.effects.filter((effect) => effect.difference < 0).reverse();
  host("motion").append(
    el(
      "p",
      {},
      `${plural(sum("helped"), "clip")} are right only with motion, ${plural(sum("hurt"), "clip")} only without.`,
    ),
    el(
      "div",
      { class: "effects" },
      list(
        "helped",
        `Helped: ${plural(helped.length, "class").replace("classs", "classes")}`,
        helped.slice(0, EFFECTS_SHOWN),
      ),
      list("hurt", `Hurt: ${plural(hurt.length, "class").replace("classs", "classes")}`, hurt.slice(0, EFFECTS_SHOWN)),
    ),
  );
  if (Math.max(helped.length, hurt.length) > EFFECTS_SHOWN)
    host("motion").append(el("p", { class: "muted" }, "The rest is in motion_effect.csv."));
}

function effectRow(kind, effect) {
  const index = indexOfClass.get(effect.class_name);
  const bar = styled(el("i"), {
    "--at": `${100 * Math.abs(effect.difference)}%`,
    "--stream": `var(--${kind === "helped" ? "motion" : "hurt"})`,
  });
  const number = effect[kind];
  return el(
    "li",
    {},
    opener(effect.class_name, kind, [index]),
    bar,
    el("b", {}, `${points(effect.difference)} · ${number} of ${effect.support}`),
  );
}
