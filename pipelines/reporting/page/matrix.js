// The confusion matrix: drawn on canvases, so that 101 x 101 cells stay quick; with the keyboard as with the mouse.

const NUMBERS_UP_TO = 22; // pixels: a smaller cell holds no number
const SMALLEST_CELL = 9; // pixels: smaller ones can be neither read nor hit
const SCROLLING_CELL = 12; // pixels: of a matrix that has to scroll anyway
const LONGEST_LABEL = 150; // pixels
const matrixState = { stream: data.headline, order: "class", fit: false, cursor: [0, 0] };
let matrix = null;

/** The classes in the chosen order. */
function classOrder(counts, order, stream) {
  if (order === "cluster") return data.clusters[stream];
  const indices = data.classes.map((_, index) => index);
  if (order === "class") return indices;
  const accuracy = data.accuracy[stream].map((share) => share ?? 2); // classes without clips last
  return indices.sort((a, b) => accuracy[a] - accuracy[b] || a - b);
}

function buildMatrix() {
  const part = (selector) => host("matrix").querySelector(selector);
  matrix = { scroller: part(".matrix"), below: part(".below") };
  for (const name of ["corner", "top", "side", "body", "cells", "cross"]) matrix[name] = part(`.${name}`);
  for (const button of host("matrix").querySelectorAll(".segments button"))
    button.addEventListener("click", () => chooseStream(button.dataset.value));
  const change = (what) => {
    Object.assign(matrixState, what);
    drawMatrix();
  };
  part("select").addEventListener("change", (event) => change({ order: event.target.value }));
  part("input").addEventListener("change", (event) => change({ fit: event.target.checked }));
  host("matrix").hidden = false;
  listenToMatrix();
  drawMatrix();
  onThemeChange.push(drawMatrix);
  new ResizeObserver(() => {
    // its height is the drawing's own doing
    if (host("matrix").clientWidth !== matrix.room) requestAnimationFrame(drawMatrix);
  }).observe(host("matrix"));
}

function chooseStream(stream) {
  matrixState.stream = stream;
  for (const button of host("matrix").querySelectorAll(".segments button"))
    button.setAttribute("aria-pressed", String(button.dataset.value === stream));
  drawMatrix();
}

/** Sizes for the room there is: the cell, the label column and row, the letters. */
function matrixLayout() {
  const { room } = matrix;
  const pen = matrix.side.getContext("2d");
  const widest = (size) => {
    pen.font = letters(size);
    return Math.min(LONGEST_LABEL, Math.max(...data.classes.map((name) => pen.measureText(name).width))) + 12;
  };
  const cellFor = (label) => Math.floor(((room - label - 2) / classCount) * 2) / 2;
  let label = Math.min(widest(12), room * 0.4);
  const fitting = cellFor(label);
  const wanted = matrixState.fit ? Math.max(1, fitting) : fitting < SMALLEST_CELL ? SCROLLING_CELL : fitting;
  const cell = Math.min(56, wanted);
  const size = Math.max(7, Math.min(12, cell - 2));
  label = Math.min(widest(size), room * 0.4, label);
  document.getElementById("matrix-fit").hidden = fitting >= SMALLEST_CELL;
  return { cell, label, size, extent: cell * classCount };
}

const letters = (size, weight = 400) => `${weight} ${size}px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;

/** A canvas of that many style-sheet pixels, sharp on every screen; its pen. */
function sized(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 8000 / Math.max(width, height, 1));
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  styled(canvas, { width: `${width}px`, height: `${height}px` });
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
}

function drawMatrix() {
  matrix.room = host("matrix").clientWidth;
  if (!matrix.room) return;
  matrix.counts = data.confusion[matrixState.stream]; // row by row: rows true, columns predicted
  matrix.order = classOrder(matrix.counts, matrixState.order, matrixState.stream);
  matrix.support = data.classes.map((_, row) =>
    matrix.counts.slice(row * classCount, (row + 1) * classCount).reduce((sum, count) => sum + count, 0),
  );
  Object.assign(matrix, matrixLayout());
  styled(matrix.corner, { width: `${matrix.label}px`, height: `${matrix.label}px` });
  matrix.body.setAttribute(
    "aria-label",
    `Confusion matrix of ${matrixState.stream}: arrows move, N finds the next confused cell, Enter lists its clips`,
  );
  drawCells();
  drawLabels();
  drawCross();
  for (const key of document.querySelectorAll("[data-ramp]")) {
    const [from, middle, to] = rampOf(key.dataset.ramp).map(css);
    key.style.background = `linear-gradient(to right, ${from}, ${middle}, ${to})`;
  }
}

const rampOf = (name) => [0, 1, 2].map((step) => colour(`${name}${step}`));

function drawCells() {
  const { cell, extent, order, counts, support } = matrix;
  const pen = sized(matrix.cells, extent, extent);
  const [right, wrong] = ["right", "wrong"].map(rampOf);
  const [line, text, surface] = ["line", "text", "card"].map(colour);
  pen.fillStyle = css(surface);
  pen.fillRect(0, 0, extent, extent);
  pen.strokeStyle = css(line);
  pen.lineWidth = cell > 14 ? 1 : 0.4;
  pen.beginPath();
  for (let index = 0; index <= classCount; index += cell > 4 ? 1 : classCount) {
    pen.moveTo(index * cell, 0);
    pen.lineTo(index * cell, extent);
    pen.moveTo(0, index * cell);
    pen.lineTo(extent, index * cell);
  }
  pen.stroke();
  const gap = cell > 14 ? 1 : 0;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.font = letters(Math.min(15, cell * 0.42), 500);
  order.forEach((row, y) =>
    order.forEach((column, x) => {
      const count = counts[row * classCount + column];
      if (!count) return;
      // A root keeps single errors visible; half a class lost is as red as it gets.
      const share = count / support[row];
      const shade = row === column ? ramp(right, Math.sqrt(share)) : ramp(wrong, Math.sqrt(2 * share));
      pen.fillStyle = css(shade);
      pen.fillRect(x * cell + gap / 2, y * cell + gap / 2, cell - gap, cell - gap);
      if (cell < NUMBERS_UP_TO) return;
      pen.fillStyle = contrast(shade, text) > contrast(shade, surface) ? css(text) : css(surface);
      pen.fillText(String(count), (x + 0.5) * cell, (y + 0.53) * cell);
    }),
  );
}

/** How far two colours are apart in brightness. */
const contrast = (one, other) =>
  Math.abs(one[0] * 0.3 + one[1] * 0.59 + one[2] * 0.11 - other[0] * 0.3 - other[1] * 0.59 - other[2] * 0.11);

function drawLabels() {
  const { cell, label, size, extent, order } = matrix;
  const [top, left] = [sized(matrix.top, extent, label), sized(matrix.side, label, extent)];
  const [text, strong] = [css(colour("muted")), css(colour("text"))];
  for (const pen of [top, left]) pen.textBaseline = "middle";
  left.textAlign = "right";
  top.rotate(-Math.PI / 2);
  const step = Math.max(1, Math.ceil((size * 0.95) / cell)); // too small to name each: every second, third, ...
  order.forEach((index, place) => {
    if (place % step) return;
    for (const [pen, on, x] of [
      [left, matrixState.cursor[0], label - 6],
      [top, matrixState.cursor[1], -label + 6],
    ]) {
      pen.font = letters(size, on === index && matrix.active ? 700 : 400);
      pen.fillStyle = on === index && matrix.active ? strong : text;
      pen.fillText(clipped(pen, data.classes[index], label - 12), x, (place + 0.5) * cell);
    }
  });
  // Rotated, text that is aligned left begins at the matrix and rises.
  top.setTransform(1, 0, 0, 1, 0, 0);
}

/** As much of a name as there is room for. */
function clipped(pen, name, room) {
  if (pen.measureText(name).width <= room) return name;
  const all = [...name];
  while (all.length > 1 && pen.measureText(`${all.join("")}…`).width > room) all.pop();
  return `${all.join("")}…`;
}

function drawCross() {
  const { cell, extent, order } = matrix;
  const pen = sized(matrix.cross, extent, extent);
  if (!matrix.active) {
    matrix.below.textContent =
      "Point at a cell, or focus the matrix and use the arrow keys; click or Enter lists its clips.";
    return;
  }
  const [y, x] = matrixState.cursor.map((index) => order.indexOf(index));
  pen.fillStyle = css(colour("text"));
  pen.globalAlpha = 0.07;
  pen.fillRect(0, y * cell, extent, cell);
  pen.fillRect(x * cell, 0, cell, extent);
  pen.globalAlpha = 1;
  pen.strokeStyle = css(colour("text"));
  pen.lineWidth = cell > 14 ? 2 : 1.5;
  pen.strokeRect(x * cell, y * cell, cell, cell);
  matrix.below.textContent = cellText(matrixState.cursor);
}

function cellText([row, column]) {
  const count = matrix.counts[row * classCount + column];
  const share = matrix.support[row] ? ` (${percent(count / matrix.support[row])} %)` : "";
  const what = row === column ? "recognised" : `taken for ${data.classes[column]}`;
  return `${data.classes[row]} ${what}: ${count} of ${matrix.support[row]}${share}`;
}
