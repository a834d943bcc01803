"use strict";
// One state, read from and written to the address; every change draws everything anew.

const about = JSON.parse(document.getElementById("data").textContent);
const rows = unpack(about.columns);
const form = document.getElementById("choices");
const methods = about.order;

function unpack(columns) {
  const names = Object.keys(columns);
  const first = columns[names[0]];
  const count = (first.codes || first).length;
  return Array.from({ length: count }, (_, i) =>
    Object.fromEntries(
      names.map((name) => {
        const column = columns[name];
        if (!column.codes) return [name, column[i]];
        return [name, column.codes[i] < 0 ? null : column.values[column.codes[i]]];
      }),
    ),
  );
}

const size = (row) => row.data ?? (row.layer ? "all layers" : `${row.m} x ${row.k} x ${row.n}`);
const FLOAT = 1e-5; // errors below are float32's own
const NAMED = 15; // points; of more, names would hide each other
const distinct = (values) => [...new Set(values)];
const byNumber = (a, b) => parseFloat(a) - parseFloat(b);
const PARAMETERS = ["bits", "rounding", "levels"];
const ORDER = { size: byNumber, bits: byNumber, rounding: undefined, levels: undefined }; // inputs stay as they come
const agrees = (row, view) =>
  PARAMETERS.every((name) => row[name] === null || view[name] === "all" || String(row[name]) === view[name]);
const views = [...Map.groupBy(rows, (row) => `${row.input}|${size(row)}`).values()].flatMap((here) => {
  const usual = here.filter((row) => about.usual.includes(row.method));
  const grid = PARAMETERS.reduce(
    (grid, name) => {
      const found = distinct(here.map((row) => row[name]).filter((x) => x !== null));
      const values = found.length ? found.map(String) : ["all"];
      return grid.flatMap((view) => values.map((value) => ({ ...view, [name]: value })));
    },
    [{ input: here[0].input, size: size(here[0]) }],
  );
  return grid.map((view) => ({ ...view, worth: worth(usual.filter((row) => agrees(row, view))) }));
});
let drawn = [];
let state = start();

// A view is worth its charts of error against time and rank, then its runs beside each other, then
// its methods with both error and time, then its ranks, then its rows.
function worth(own) {
  const timed = own.filter((row) => row.error > FLOAT && (row.ms ?? row.ms_prepared) !== null);
  const ranked = own.filter((row) => row.error > FLOAT && row.rank !== null);
  const ranks = distinct(ranked.map((row) => row.rank)).length;
  const count = distinct(timed.map((row) => row.method)).length;
  return [(count > 0) + (ranks > 1), distinct(own.map((row) => row.run)).length, count, ranks, own.length];
}

function above(a, b) {
  const place = a.findIndex((x, i) => x !== b[i]);
  return place >= 0 && a[place] > b[place];
}

function start() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const list = (name, all, otherwise) =>
    asked.has(name) ? all.filter((x) => asked.get(name).split(",").includes(x)) : otherwise;
  const runs = about.runs.map((run) => run.name);
  return {
    input: asked.get("input"),
    size: asked.get("size"),
    bits: asked.get("bits"),
    rounding: asked.get("rounding"),
    levels: asked.get("levels"),
    prepared: ["no", "yes"].includes(asked.get("prepared")) ? asked.get("prepared") : "either",
    runs: list("runs", runs, runs),
    methods: list("methods", methods, about.usual),
    lit: asked.get("lit"),
  };
}

// What may be chosen depends on what was chosen before it; a choice that is gone falls to that of
// the view that is worth most.
function settle() {
  let left = views;
  const choose = (name, words) => {
    const most = left.reduce((best, view) => (above(view.worth, best.worth) ? view : best));
    const values = distinct(left.map((view) => view[name]));
    if (name in ORDER) values.sort(ORDER[name]);
    if (PARAMETERS.includes(name)) values.push("all");
    state[name] = options(name, distinct(values), words, most[name]);
    if (state[name] !== "all") left = left.filter((view) => view[name] === state[name]);
  };
  choose("input", (name) => about.inputs[name]);
  choose("size");
  PARAMETERS.forEach((name) => choose(name));
  const here = rows.filter((row) => row.input === state.input && size(row) === state.size);
  form.elements.prepared.value = state.prepared;
  for (const [name, wanted] of [["run", state.runs], ["method", state.methods]])
    for (const box of form.querySelectorAll(`input[name=${name}]`))
      box.checked = wanted.includes(box.value);
  const measured = { run: new Set(here.map((row) => row.run)), method: new Set(here.map((row) => row.method)) };
  for (const box of form.querySelectorAll("input[type=checkbox]"))
    box.parentElement.hidden = !measured[box.name].has(box.value);
  return here.filter(
    (row) =>
      agrees(row, state) &&
      state.runs.includes(row.run) &&
      state.methods.includes(row.method),
  );
}

function options(name, values, words = String, otherwise) {
  const chosen = values.includes(state[name]) ? state[name] : otherwise;
  const select = form.elements[name];
  select.replaceChildren(...values.map((value) => new Option(words(value), value)));
  select.value = chosen;
  return chosen;
}

function boxes(id, name, values, words, colour) {
  document.getElementById(id).append(
    ...values.map((value) => {
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox", name, value });
      label.append(box);
      if (colour) {
        const swatch = document.createElement("span");
        swatch.className = "swatch";
        swatch.style.background = colour(value);
        label.append(swatch);
      }
      label.append(words(value));
      return label;
    }),
  );
}

// Charts

const number = (x, digits = 3) => (x === null ? "" : String(Number(x.toPrecision(digits))));
const range = (row, name) =>
  row[name] === null
    ? "not measured"
    : `${number(row[name])} (${number(row[`${name}_low`])} to ${number(row[`${name}_high`])})`;

function shown(row) {
  const once = state.prepared === "yes" || (state.prepared === "either" && row.ms === null);
  const ms = once && (row.ms_prepared !== null || state.prepared === "either") ? "ms_prepared" : "ms";
  const loaded = row[ms] !== null && row[`${ms}_loaded`] === 1;
  const setting = [row.bits === null ? "" : `${row.bits} bits`, row.rank === null ? "" : `rank ${row.rank}`];
  const own = {
    ...row,
    label: about.labels[row.method],
    setting: [...setting, row.rounding, row.words].filter(Boolean).join(", "),
    loaded,
    time: row[ms], time_low: row[`${ms}_low`], time_high: row[`${ms}_high`],
    errors: range(row, "error") + (row.seeds ? `, ${row.seeds > 1 ? `${row.seeds} seeds` : "one input"}` : ""),
    times: range(row, ms) + (ms === "ms_prepared" && row[ms] !== null ? ", B prepared" : "") + (loaded ? ", others used the machine" : ""),
    place: row.layer || size(row),
    name: about.short[row.method] + (row.rank === null ? "" : `, rank ${row.rank}`),
    lit: state.lit === null || state.lit === row.method,
  };
  return { ...own, tip: tip(own) };
}

const TIPS = { method: "label", setting: "setting", product: "place", "relative error": "errors", ms: "times",
  "bits an element": "each", scores: "score", calibration: "calibration", run: "run" };
const TIP = { field: "tip" };
const tip = (row) =>
  Object.fromEntries(Object.entries(TIPS).map(([title, name]) => [title, row[name]]).filter(([, value]) => (value ?? "") !== ""));
const COLOUR = {
  field: "label", type: "nominal", legend: null,
  scale: { domain: methods.map((m) => about.labels[m]), range: methods.map((m) => about.colours[m]) },
};
const LIT = { condition: { test: "datum.lit", value: 1 }, value: 0.12 };
const ERROR = { field: "error", type: "quantitative", title: "relative error", scale: { type: "log" } };

function timeChart(values) {
  const timed = values.filter((row) => row.time !== null);
  const own = timed.filter((row) => row.error > FLOAT);
  const exact = timed.filter((row) => (row.error === null ? row.method === "sgemm" : row.error <= FLOAT));
  const x = { field: "time", type: "quantitative", title: "milliseconds a product", scale: { type: "log" } };
  const shape = { field: "run", type: "nominal", legend: about.runs.length > 1 ? { orient: "bottom", title: null, labelLimit: 400 } : null };
  return own.length && {
    data: { values: own },
    layer: [
      { mark: "rule", encoding: { x: { ...x, field: "time_low" }, x2: { field: "time_high" }, y: ERROR } },
      { mark: "rule", encoding: { x, y: { ...ERROR, field: "error_low" }, y2: { field: "error_high" } } },
      ...(exact.length ? [{ data: { values: exact }, mark: { type: "rule", strokeDash: [4, 3], size: 2 }, encoding: { x, tooltip: TIP } }] : []),
      {
        name: "points", mark: { type: "point", filled: true, size: 70, cursor: "pointer" },
        encoding: { x, y: ERROR, shape, tooltip: TIP, stroke: COLOUR, fillOpacity: { condition: { test: "datum.loaded", value: 0 }, value: 1 } },
      },
      ...(own.length > NAMED ? [] : [{ name: "names", transform: [{ filter: "datum.lit" }], mark: "text", encoding: { x, y: ERROR, text: { field: "name" } } }]),
    ],
    encoding: { color: COLOUR, opacity: LIT },
  };
}

// Names stand off the crosses of their points, inside the chart and over nothing else; those without
// room are left to hovering.
function thinned(spec) {
  const names = spec.marks.find((mark) => mark.name === "names_marks");
  if (names) {
    const anchor = ["top-right", "bottom-right", "top-left", "bottom-left", "top", "bottom"];
    names.transform = [{ type: "label", size: { signal: "[width, height]" }, avoidMarks: ["points_marks"], anchor, offset: [6] }];
  }
  return spec;
}

function rankChart(values) {
  const groups = Map.groupBy(
    values.filter((row) => row.error > FLOAT),
    (row) => [row.run, row.method, row.words, row.rank, row.calibration].join("|"),
  );
  const means = [...groups.values()].map((own) => ({
    ...own[0],
    error: Math.exp(own.reduce((sum, row) => sum + Math.log(row.error), 0) / own.length),
    tip: { ...own[0].tip, ms: undefined, products: own.length },
    curve: [own[0].run, own[0].method, own[0].words, own[0].calibration].join("|"),
  }));
  const ranks = distinct(means.map((row) => row.rank).filter((rank) => rank !== null)).sort(byNumber);
  if (ranks.length < 2) return null;
  const [low, high] = [ranks[0], ranks.at(-1)];
  const level = means.filter((row) => row.rank === null);
  const all = [
    ...means.filter((row) => row.rank !== null),
    ...level.map((row) => ({ ...row, rank: low })),
    ...level.map((row) => ({ ...row, rank: high })),
  ];
  return {
    data: { values: all },
    mark: { type: "line", point: { cursor: "pointer" } },
    encoding: {
      x: { field: "rank", type: "quantitative", scale: { type: "symlog", nice: false }, axis: { values: ranks, labelOverlap: "greedy" } },
      y: { ...ERROR, title: groups.size < values.length ? "relative error, geometric mean" : ERROR.title },
      color: COLOUR, opacity: LIT, detail: [{ field: "curve" }],
      strokeDash: { field: "run", type: "nominal", legend: null },
      tooltip: TIP,
    },
  };
}

function layerChart(values) {
  const own = values.filter((row) => row.layer && row.error > FLOAT);
  const names = distinct(own.map((row) => row.layer));
  const several = new Set(own.map((row) => row.run)).size > 1;
  const least = Map.groupBy(own, (row) => `${row.run}|${row.layer}|${row.label}|${row.setting}`);
  const cells = [...least.values()].map(([row]) => ({
    ...row,
    line: `${row.label}, ${row.setting}` + (several ? `, ${row.run}` : ""),
  }));
  return cells.length && {
    data: { values: cells },
    mark: { type: "rect", cursor: "pointer" },
    height: 150 + 16 * new Set(cells.map((cell) => cell.line)).size,
    encoding: {
      x: { field: "layer", type: "nominal", sort: names, title: null, axis: { labelAngle: -60, labelFontSize: 8, labelOverlap: true } },
      y: { field: "line", type: "nominal", title: null, axis: { labelLimit: 260 } },
      color: { field: "error", type: "quantitative", title: "relative error", scale: { type: "log", scheme: "viridis", reverse: true }, legend: { orient: "top", gradientLength: 200 } },
      opacity: LIT, tooltip: TIP,
    },
  };
}

function config() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { labelColor: colour("--text"), titleColor: colour("--text"), gridColor: colour("--line"), domainColor: colour("--soft"), tickColor: colour("--soft") };
  return { background: "transparent", axis, legend: { labelColor: colour("--text"), symbolBaseFillColor: colour("--text"), titleColor: colour("--text") }, view: { stroke: colour("--line") } };
}

async function draw() {
  const found = settle();
  const values = found.map(shown);
  remember();
  table(values);
  const products = new Set(values.map((row) => row.place)).size;
  document.getElementById("summary").textContent =
    `${found.length} settings of ${new Set(found.map((row) => row.method)).size} methods on ${products} product${products === 1 ? "" : "s"}`;
  const before = drawn;
  drawn = await Promise.all(
    [["time", timeChart], ["rank", rankChart], ["layers", layerChart]].map(async ([id, chart]) => {
      const spec = chart(values);
      const element = document.getElementById(id);
      if (!spec) {
        element.textContent = "Not measured here.";
        return null;
      }
      const sized = { width: "container", height: 300, autosize: { type: "fit", contains: "padding" } };
      const made = await vegaEmbed(element, { ...sized, ...spec, config: config() }, { mode: "vega-lite", actions: false, renderer: "svg", patch: thinned });
      made.view.addEventListener("click", (_, item) => item?.datum?.method && light(item.datum.method));
      return made;
    }),
  );
  before.forEach((made) => made?.finalize());
  document.documentElement.dataset.ready = String(Number(document.documentElement.dataset.ready || 0) + 1);
}

function light(method) {
  state.lit = state.lit === method ? null : method;
  draw();
}

// Rows, and what is taken away

const COLUMNS = ["run", "input", "layer", "m", "k", "n", "method", "bits", "rank", "rounding", "levels", "words", "calibration",
  "error", "error_low", "error_high", "seeds", "ms", "ms_low", "ms_high", "ms_loaded", "ms_prepared", "ms_prepared_low", "ms_prepared_high", "ms_prepared_loaded", "each"];

function table(values) {
  const heads = ["method", "setting", "product", "relative error", "ms", "bits an element", "run"];
  const sorted = [...values].sort((a, b) => (a.error ?? Infinity) - (b.error ?? Infinity)).slice(0, 300);
  const made = document.createElement("table");
  const row = (cells, kind) => {
    const line = document.createElement("tr");
    for (const text of cells) {
      const cell = Object.assign(document.createElement(kind), { textContent: text ?? "" });
      if (kind === "th") cell.scope = "col";
      line.append(cell);
    }
    return line;
  };
  made.append(row(heads, "th"));
  made.append(...sorted.map((r) => row([r.label, r.setting, r.place, r.errors, r.times, number(r.each), r.run], "td")));
  document.getElementById("rows").replaceChildren(made);
}

function csv() {
  const quoted = (x) => (x === null || x === undefined ? "" : /[",\n]/.test(x) ? `"${String(x).replaceAll('"', '""')}"` : String(x));
  const lines = [COLUMNS.join(","), ...settle().map((row) => COLUMNS.map((name) => quoted(row[name])).join(","))];
  const address = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  Object.assign(document.createElement("a"), { href: address, download: "rows.csv" }).click();
  URL.revokeObjectURL(address);
}

function remember() {
  const words = new URLSearchParams({ input: state.input, size: state.size, bits: state.bits, rounding: state.rounding, levels: state.levels, prepared: state.prepared, methods: state.methods.join(",") });
  if (state.runs.length < about.runs.length) words.set("runs", state.runs.join(","));
  if (state.lit !== null) words.set("lit", state.lit);
  history.replaceState(null, "", `#${words}`);
  document.getElementById("link").href = `#${words}`;
}

function choose(names) {
  state.methods = methods.filter((name) => names.includes(name));
  draw();
}

document.getElementById("runs").textContent = `Measured on ${distinct(about.runs.map((run) => run.machine || "an unnamed machine")).join("; ")}`;
boxes("machines", "run", about.runs.map((run) => run.name), String);
boxes("methods", "method", methods, (name) => about.labels[name], (name) => about.colours[name]);
form.addEventListener("change", () => {
  for (const name of ["input", "size", ...PARAMETERS, "prepared"]) state[name] = form.elements[name].value;
  const checked = (name) => [...form.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value);
  Object.assign(state, { runs: checked("run"), methods: checked("method") });
  draw();
});
form.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("all").addEventListener("click", () => choose(methods));
document.getElementById("none").addEventListener("click", () => choose([]));
document.getElementById("usual").addEventListener("click", () => choose(about.usual));
document.getElementById("csv").addEventListener("click", csv);
window.addEventListener("hashchange", () => {
  state = start();
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
