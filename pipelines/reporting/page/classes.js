// The table of all classes: sorted by any column, searched by name.

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
