// Tables sorted by any column; that of all classes also searched by name.

function buildClasses() {
  const table = host("classes").querySelector("table");
  const rows = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
  const search = host("classes").querySelector("input");
  const state = { column: heads.findIndex((head) => head.textContent === data.headline), ascending: true };
  const draw = () => {
    heads.forEach((head, column) => {
      if (column === state.column) head.setAttribute("aria-sort", state.ascending ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const wanted = search.value.toLowerCase();
    const sign = state.ascending ? 1 : -1;
    const value = (row) => row.cells[state.column].dataset.value; // empty where it is not defined: always last
    const shown = rows.filter((row) => row.cells[0].textContent.toLowerCase().includes(wanted));
    shown.sort((a, b) => (value(a) === "") - (value(b) === "") || sign * (value(a) - value(b)));
    table.tBodies[0].replaceChildren(...shown);
  };
  heads.forEach((head, column) =>
    head.querySelector("button")?.addEventListener("click", () => {
      state.ascending = state.column === column ? !state.ascending : column === 0;
      state.column = column;
      draw();
    }),
  );
  search.addEventListener("input", draw);
  draw();
}

/** Lets every other table be sorted by its columns' heads: by number where all cells are one, else by text. */
function buildSorting() {
  for (const table of document.querySelectorAll("main table")) {
    if (host("classes").contains(table)) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const text = (row) => row.cells[column].firstChild?.textContent.trim() ?? "";
      const sort = () => {
        const rows = [...table.tBodies[0].rows];
        const isNumber = rows.every((row) => /^(< )?[-+]?[\d.]+$|^–?$/.test(text(row)));
        const value = (row) => Number.parseFloat(text(row).replace("< ", ""));
        const order = head.ariaSort ? head.ariaSort === "descending" : !isNumber; // a number's largest first
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order ? "ascending" : "descending");
        const compare = isNumber
          ? (a, b) => Number.isNaN(value(a)) - Number.isNaN(value(b)) || (order ? 1 : -1) * (value(a) - value(b))
          : (a, b) => (order ? 1 : -1) * text(a).localeCompare(text(b));
        table.tBodies[0].replaceChildren(...rows.sort(compare));
      };
      head.replaceChildren(el("button", { type: "button", onclick: sort }, head.textContent));
    });
  }
}
