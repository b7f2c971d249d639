// Pointing at the confusion matrix: by mouse, by keyboard, by link.

function listenToMatrix() {
  const tip = document.getElementById("tip");
  matrix.body.addEventListener("pointermove", (event) => {
    moveCursor(cellAt(event));
    tip.textContent = cellText(matrixState.cursor);
    tip.hidden = event.pointerType === "touch";
    styled(tip, {
      left: `${Math.min(event.clientX + 14, innerWidth - 310)}px`,
      top: `${Math.min(event.clientY + 16, innerHeight - 70)}px`,
    });
  });
  matrix.body.addEventListener("pointerleave", () => {
    tip.hidden = true;
  });
  matrix.body.addEventListener("click", (event) => {
    moveCursor(cellAt(event));
    openCell();
  });
  matrix.body.addEventListener("focus", () => {
    if (!matrix.active) moveCursor([matrix.order[0], matrix.order[0]]);
  });
  matrix.body.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (steps[event.key]) stepCursor(steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") openCell();
    else if (event.key.toLowerCase() === "n") nextConfused();
    else return;
    event.preventDefault();
  });
}

function cellAt(event) {
  const box = matrix.cells.getBoundingClientRect();
  const place = (at, from) =>
    matrix.order[Math.min(classCount - 1, Math.max(0, Math.floor((at - from) / matrix.cell)))];
  return [place(event.clientY, box.top), place(event.clientX, box.left)];
}

function moveCursor(cell) {
  if (matrix.active && cell[0] === matrixState.cursor[0] && cell[1] === matrixState.cursor[1]) return;
  matrixState.cursor = cell;
  matrix.active = true;
  drawCross();
  drawLabels();
}

function stepCursor(step) {
  const places = matrixState.cursor.map((index, axis) =>
    Math.min(classCount - 1, Math.max(0, matrix.order.indexOf(index) + step[axis])),
  );
  moveCursor(places.map((place) => matrix.order[place]));
  showCursor();
}

/** Scrolls the cell under the cursor into view, clear of the labels. */
function showCursor() {
  const { scroller, cell, label } = matrix;
  const [y, x] = matrixState.cursor.map((index) => matrix.order.indexOf(index) * cell);
  scroller.scrollTop = Math.min(y, Math.max(scroller.scrollTop, y + 2 * cell + label - scroller.clientHeight));
  scroller.scrollLeft = Math.min(x, Math.max(scroller.scrollLeft, x + 2 * cell + label - scroller.clientWidth));
}

/** To the next cell off the diagonal that is not empty, in reading order, round and round. */
function nextConfused() {
  const [y, x] = matrixState.cursor.map((index) => matrix.order.indexOf(index));
  for (let ahead = 1; ahead <= classCount * classCount; ahead += 1) {
    const place = (y * classCount + x + ahead) % (classCount * classCount);
    const cell = [matrix.order[Math.floor(place / classCount)], matrix.order[place % classCount]];
    if (cell[0] !== cell[1] && matrix.counts[cell[0] * classCount + cell[1]]) {
      moveCursor(cell);
      showCursor();
      return;
    }
  }
}

/** Shows where a cell is that was opened by its link. */
function pointAt(cell, stream) {
  if (matrixState.stream !== stream) chooseStream(stream);
  moveCursor(cell);
  showCursor();
}

const openCell = () => openList(listLink("cell", matrixState.cursor, matrixState.stream));
const focusMatrix = () => matrix.body.focus();
