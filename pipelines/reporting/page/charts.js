// Curves: fusion weight, calibration, training. Drawn as SVG, with a table of the numbers where it is short.

const WIDE = 420;
const TALL = 250;
const EDGE = { left: 44, right: 12, top: 10, bottom: 36 };

/** Ticks at round numbers over a range. */
function ticks(low, high, wanted = 5) {
  const rough = (high - low) / wanted || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((one) => one >= rough);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step)
    found.push(Math.round(value / step) * step);
  return found;
}

/** An empty chart: its drawing and the functions from values to places. */
function chart({ x, y, xLabel, yLabel, describe, wide = WIDE, tall = TALL }) {
  const toX = (value) => EDGE.left + ((value - x[0]) / (x[1] - x[0] || 1)) * (wide - EDGE.left - EDGE.right);
  const toY = (value) => tall - EDGE.bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (tall - EDGE.top - EDGE.bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": describe });
  const short = (value) => String(Number(value.toPrecision(6)));
  for (const value of ticks(...y)) {
    drawing.append(
      svg("line", { class: "grid", x1: EDGE.left, x2: wide - EDGE.right, y1: toY(value), y2: toY(value) }),
      svg("text", { x: EDGE.left - 6, y: toY(value) + 4, "text-anchor": "end" }, short(value)),
    );
  }
  for (const value of ticks(...x))
    drawing.append(svg("text", { x: toX(value), y: tall - EDGE.bottom + 15, "text-anchor": "middle" }, short(value)));
  drawing.append(
    svg("text", { x: (EDGE.left + wide - EDGE.right) / 2, y: tall - 4, "text-anchor": "middle" }, xLabel),
    svg("text", { x: -(tall - EDGE.bottom) / 2, y: 11, "text-anchor": "middle", transform: "rotate(-90)" }, yLabel),
  );
  return { drawing, toX, toY };
}

/** A line through the points that there are. */
function curve({ drawing, toX, toY }, xs, ys, stream) {
  const known = xs
    .map((value, index) => [value, ys[index]])
    .filter((point) => point[1] !== null && point[1] !== undefined);
  const line = svg("polyline", {
    class: "line",
    points: known.map(([px, py]) => `${toX(px).toFixed(1)},${toY(py).toFixed(1)}`).join(" "),
  });
  if (stream) markStream(line, stream);
  drawing.append(line);
}

const titled = (shape, text) => {
  shape.append(svg("title", {}, text));
  return shape;
};

// ------------------------------------------------------------------ fusion

function buildFusion() {
  for (const sweep of data.fusion) host("fusion").append(sweepFigure(sweep));
}

function sweepFigure(sweep) {
  const tops = sweep.top1.map((value) => 100 * value);
  const [low, high] = [Math.min(...tops, 100 * sweep.used_top1), Math.max(...tops, 100 * sweep.used_top1)];
  const margin = Math.max(1, (high - low) * 0.12);
  const plan = chart({
    x: [0, 1],
    y: [Math.max(0, low - margin), Math.min(100, high + margin)],
    xLabel: `weight of ${sweep.first}`,
    yLabel: "top-1, %",
    describe: `Top-1 over the weight of ${sweep.first}`,
  });
  curve(plan, sweep.weights, tops, "fused");
  sweep.weights.forEach((weight, index) =>
    plan.drawing.append(
      titled(
        svg("circle", { class: "dot", stream: "fused", cx: plan.toX(weight), cy: plan.toY(tops[index]), r: 3.5 }),
        `weight ${weight}: ${percent(sweep.top1[index])} %`,
      ),
    ),
  );
  const [ux, uy] = [plan.toX(sweep.used), plan.toY(100 * sweep.used_top1)];
  plan.drawing.append(
    titled(
      svg("path", { class: "used", d: `M${ux} ${uy - 8}l8 8l-8 8l-8 -8z` }),
      `used: ${sweep.used}, ${percent(sweep.used_top1)} %`,
    ),
  );
  const best = Math.max(...sweep.top1);
  const weights = sweep.weights.filter((_, index) => sweep.top1[index] === best);
  const where = weights.length > 1 ? `${weights[0]} to ${weights.at(-1)}` : String(weights[0]);
  return el(
    "figure",
    {},
    el(
      "figcaption",
      {},
      `${sweep.first} with ${sweep.second} `,
      el("span", { class: "muted" }, sweep.space === "softmax" ? "class probabilities" : "logits"),
    ),
    plan.drawing,
    el(
      "p",
      { class: "muted" },
      `Used: weight ${sweep.used}, ${percent(sweep.used_top1)} %. `,
      `Highest on these test videos: ${percent(best)} % at ${where}.`,
    ),
    el(
      "details",
      {},
      el("summary", {}, "As a table"),
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, el("th", {}, `weight of ${sweep.first}`), el("th", {}, "top-1 %"))),
        el(
          "tbody",
          {},
          sweep.weights.map((weight, index) =>
            el("tr", {}, el("td", {}, weight.toFixed(2)), el("td", {}, percent(sweep.top1[index]))),
          ),
        ),
      ),
    ),
  );
}

// ------------------------------------------------------------------ calibration

function buildCalibration() {
  for (const [stream, values] of Object.entries(data.calibration)) {
    const plan = chart({
      x: [0, 100],
      y: [0, 100],
      xLabel: "confidence, %",
      yLabel: "accuracy, %",
      wide: 320,
      tall: 300,
      describe: `Reliability curve of ${stream}`,
    });
    const bins = values.bins.filter((bin) => bin.count);
    const most = Math.max(...bins.map((bin) => bin.count));
    plan.drawing.append(
      svg("line", { class: "diagonal", x1: plan.toX(0), y1: plan.toY(0), x2: plan.toX(100), y2: plan.toY(100) }),
    );
    curve(
      plan,
      bins.map((bin) => 100 * bin.confidence),
      bins.map((bin) => 100 * bin.accuracy),
      stream,
    );
    for (const bin of bins) {
      plan.drawing.append(
        titled(
          svg("circle", {
            class: "dot soft",
            stream,
            cx: plan.toX(100 * bin.confidence),
            cy: plan.toY(100 * bin.accuracy),
            r: 2.5 + 7 * Math.sqrt(bin.count / most),
          }),
          `${plural(bin.count, "clip")}: confidence ${percent(bin.confidence)} %, accuracy ${percent(bin.accuracy)} %`,
        ),
      );
    }
    const lean = values.confidence > values.accuracy ? "over" : "under";
    host("calibration").append(
      el(
        "figure",
        {},
        el("figcaption", {}, `${stream}: ECE ${percent(values.ece)} %`),
        plan.drawing,
        el(
          "p",
          { class: "muted" },
          `Mean confidence ${percent(values.confidence)} %, accuracy ${percent(values.accuracy)} %: `,
          `${lean}confident by ${percent(Math.abs(values.confidence - values.accuracy))} points.`,
        ),
      ),
    );
  }
}

// ------------------------------------------------------------------ training

function buildTraining() {
  if (!data.training.length) {
    host("training").append(el("p", { class: "muted" }, "The workspace holds no training log of this run."));
    return;
  }
  const charts = el("div", { class: "charts two" });
  const draw = (run) =>
    charts.replaceChildren(
      ...Object.entries(data.training.find((one) => one.run === run).steps).flatMap(([step, columns]) =>
        stepFigures(step, columns),
      ),
    );
  const runs = data.training.map(({ run }) => ({ value: run, text: run }));
  if (runs.length > 1)
    host("training").append(el("div", { class: "controls" }, segments("Run", runs, runs[0].value, draw)));
  host("training").append(charts);
  draw(runs[0].value);
}

function stepFigures(step, columns) {
  const updates = columns.iteration;
  const x = [0, updates.at(-1)];
  const losses = (columns.loss || []).filter((value) => value !== null);
  const figures = [];
  if (losses.length) {
    const plan = chart({
      x,
      y: [0, Math.max(...losses) * 1.05],
      xLabel: "update",
      yLabel: "loss",
      tall: 200,
      describe: `Loss of step ${step}`,
    });
    curve(plan, updates, columns.loss);
    figures.push(el("figure", {}, el("figcaption", {}, `${step}: training loss, mean over frames and streams`), plan.drawing));
  }
  const streams = OWN_STREAMS.filter((stream) => columns[`${stream}_accuracy`]);
  if (streams.length) {
    const plan = chart({
      x,
      y: [0, 100],
      xLabel: "update",
      yLabel: "training accuracy, %",
      tall: 200,
      describe: `Accuracy on training clips of step ${step}`,
    });
    for (const stream of streams)
      curve(
        plan,
        updates,
        columns[`${stream}_accuracy`].map((value) => (value === null ? null : 100 * value)),
        stream,
      );
    figures.push(
      el("figure", {}, el("figcaption", {}, `${step}: training accuracy`), legend(streams), plan.drawing),
    );
  }
  return figures;
}
