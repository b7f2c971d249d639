// The table of all classes: sorted by any column, searched by name.

const indexOfClass = new Map(data.classes.map((name, index) => [name, index]));

function buildClasses() {
  const columns = [
    { title: "class", value: (row) => indexOfClass.get(row.class_name), ascending: true },
    { title: "clips", value: (row) => row.support, text: (value) => String(value) },
    ...data.streams.map((stream) => ({ title: stream, value: (row) => row.accuracy[stream], stream })),
    { title: "precision", value: (row) => row.precision },
    { title: "recall", value: (row) => row.recall },
    { title: "F1", value: (row) => row.f1 },
  ];
  if (data.motionAdds)
    columns.push({
      title: "motion adds",
      value: (row) => data.motionAdds[indexOfClass.get(row.class_name)],
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
  const link = listLink("class", [indexOfClass.get(row.class_name)]);
  const opener = el("button", { type: "button", class: "link", "data-link": link }, row.class_name);
  return el(
    "tr",
    {},
    el("td", { class: "name" }, opener),
    el("td", {}, el("div", { class: "stack" }, bars)),
    figures,
  );
}
