/* web.js - asks the server that it came from (monitord/web_server.h) every two seconds, and draws what it says.
 *
 * The token is the part of the address behind #, which no browser sends anywhere; requests carry it as a header.
 * Whatever a run says is shown as text, never as markup.
 */
"use strict";

const PERIOD_MS = 2000;
const byId = (id) => document.getElementById(id);
const token = () => location.hash.slice(1);

/* ---- numbers and words ------------------------------------------------------------------------------------------ */

const known = (x) => typeof x === "number" && Number.isFinite(x);

function digits(x, n) {
  if (!known(x)) return "–";
  return x !== 0 && Math.abs(x) < 1e-4 ? x.toExponential(n - 1) : Number(x.toPrecision(n)).toString();
}

function size(bytes) {
  if (!known(bytes)) return "–";
  if (bytes === 0) return "0";
  if (bytes < 1024 ** 2) return Math.round(bytes / 1024) + " KiB";
  if (bytes < 10 * 1024 ** 3) return Number((bytes / 1024 ** 2).toFixed(bytes < 1e8 ? 1 : 0)) + " MiB";
  return Number((bytes / 1024 ** 3).toFixed(1)) + " GiB";
}

function duration(s) {
  if (!known(s) || s < 0) return "–";
  if (s < 60) return s.toFixed(s < 10 ? 1 : 0) + " s";
  const minutes = Math.round(s / 60);
  return minutes < 60 ? minutes + " min" : Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
}

const percent = (share) => (known(share) ? Math.round(100 * share) + " %" : "–");
const clock = (unix) => new Date(unix * 1000).toLocaleTimeString();
const day = (unix) => new Date(unix * 1000).toLocaleString();

/* ---- elements --------------------------------------------------------------------------------------------------- */

function element(name, properties, ...children) {
  const e = document.createElement(name);
  Object.assign(e, properties);
  e.append(...children);
  return e;
}

function svgElement(name, attributes) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  return e;
}

const show = (id, shown) => { byId(id).hidden = !shown; };
const say = (id, text) => { if (byId(id).textContent !== text) byId(id).textContent = text; };
const row = (...cells) => element("tr", {}, ...cells.map((c) => (c instanceof Node ? element("td", {}, c) : element("td", { textContent: c }))));

/* ---- the server ------------------------------------------------------------------------------------------------- */

async function ask(path, args, post) {
  const answer = await fetch(path + "?" + new URLSearchParams(args || {}), {
    method: post === undefined ? "GET" : "POST", body: post, headers: { Authorization: "Bearer " + token() },
  });
  if (!answer.ok) throw Object.assign(new Error((await answer.text()).trim()), { status: answer.status });
  return answer;
}

const askJson = async (path, args) => (await ask(path, args)).json();

function trouble(text) {
  say("trouble", text || "");
  show("trouble", Boolean(text));
}

/* To the run that is shown, which another one may have been chosen instead of meanwhile. */
async function act(args, text) {
  try {
    await ask("/api/act", { run: drawn, ...args }, text || "");
    trouble("");
    update();
  } catch (error) {
    trouble(error.message);
  }
}

/* ---- charts ----------------------------------------------------------------------------------------------------- */

/* Round numbers of `unit` that divide `low` to `top` into about four. */
function ticks(low, top, unit) {
  const raw = (top - low) / 4 / unit || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const list = [];
  for (let k = Math.ceil(low / step); k * step <= top + step * 1e-9 && list.length < 10; k++) list.push(k * step);
  return list;
}

/* With as many digits as tell it from the next one. */
function tickText(value, marks) {
  const step = marks.length > 1 ? marks[1] - marks[0] : value;
  const most = Math.max(Math.abs(marks[0]), Math.abs(marks[marks.length - 1]));
  return digits(value, Math.min(12, Math.max(2, Math.ceil(Math.log10(most / step || 1)) + 2)));
}

/* In a figure of its own, made once and drawn anew each time. curves: {name, values}, of as many values each;
 * place(i) names a point, ends are the words below the axis. */
function chart(id, title, curves, format, place, ends, fromZero) {
  let figure = byId(id);
  const there = curves.filter((c) => c.values.some(known));
  if (!there.length) {
    if (figure) figure.remove();
    return;
  }
  if (!figure) {
    figure = element("figure", { id }, element("figcaption"), svgElement("svg", { role: "img", "aria-label": title }));
    figure.lastChild.addEventListener("pointermove", (event) => { figure.at = event.clientX; figure.draw(); });
    figure.lastChild.addEventListener("pointerleave", () => { figure.at = undefined; figure.draw(); });
    byId("charts").append(figure);
  }
  figure.draw = () => chartDraw(figure, title, there, format, place, ends, fromZero);
  figure.draw();
}

function chartDraw(figure, title, curves, format, place, ends, fromZero) {
  const svg = figure.lastChild, box = svg.getBoundingClientRect();
  const left = 62, right = 8, top = 8, bottom = 20, width = Math.max(box.width, 200), height = box.height || 176;
  const count = Math.max(...curves.map((c) => c.values.length)), all = curves.flatMap((c) => c.values.filter(known));
  let low = Math.min(...all), high = Math.max(...all);
  if (fromZero) low = Math.min(0, low);
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) { /* nothing but rounding */
    const room = Math.abs(low) * 1e-3 || 1;
    low -= fromZero && low === 0 ? 0 : room;
    high += room;
  }
  const x = (i) => left + (count > 1 ? (i / (count - 1)) * (width - left - right) : 0);
  const y = (v) => top + (1 - (v - low) / (high - low)) * (height - top - bottom);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const text = (words, at) => { const t = svgElement("text", at); t.textContent = words; svg.append(t); };
  const marks = ticks(low, high, format === size ? 1024 ** 2 : 1);
  const wanted = format === size || format === percent ? format : (v) => tickText(v, marks);
  for (const t of marks) {
    svg.append(svgElement("line", { class: "grid", x1: left, x2: width - right, y1: y(t), y2: y(t) }));
    text(wanted(t), { x: left - 6, y: y(t) + 4, "text-anchor": "end" });
  }
  text(ends[0], { x: left, y: height - 4 });
  text(ends[1], { x: width - right, y: height - 4, "text-anchor": "end" });
  curves.forEach((curve) => svg.append(curveDraw(curve, x, y)));
  let at = count - 1;
  if (figure.at !== undefined) {
    at = Math.round(((figure.at - box.left - left) / (width - left - right)) * (count - 1));
    at = Math.min(Math.max(at, 0), count - 1);
    svg.append(svgElement("line", { class: "cursor", x1: x(at), x2: x(at), y1: top, y2: height - bottom }));
  }
  figure.firstChild.replaceChildren(
    element("b", { textContent: title + (figure.at === undefined ? "" : ", " + place(at)) }),
    ...curves.map((c) => element("span", { className: "key c" + c.color, textContent: c.name + " " + format(lastKnown(c.values, at)) })));
}

/* What a curve says at a place: its newest value that is not after it. */
function lastKnown(values, at) {
  for (let i = at; i >= 0 && i > at - 20; i--) if (known(values[i])) return values[i];
  return NaN;
}

/* How far known points may lie apart that belong together: three times as far as they mostly do. */
function gapMost(values) {
  const places = values.flatMap((v, i) => (known(v) ? [i] : []));
  const apart = places.slice(1).map((p, k) => p - places[k]).sort((a, b) => a - b);
  return Math.max(4, 3 * (apart[apart.length >> 1] || 1));
}

/* A point by itself is a dot. */
function curveDraw(curve, x, y) {
  const most = gapMost(curve.values);
  let path = "", last = -Infinity;
  curve.values.forEach((v, i) => {
    if (!known(v)) return;
    const begins = i - last > most;
    path += (begins ? "M" : "L") + x(i).toFixed(1) + " " + y(v).toFixed(1) + (begins ? "h.01" : "");
    last = i;
  });
  return svgElement("path", { class: "c" + curve.color, d: path });
}

const STAGES = ["trainerd", "loaderd", "fisherd", "monitord"];

function timeCharts(state) {
  const s = state.series;
  if (!s || !s.loss.length) {
    ["chart-memory", "chart-loss", "chart-rate", "chart-gpu", "chart-learning", "chart-machine"].forEach((id) => { if (byId(id)) byId(id).remove(); });
    return;
  }
  const place = (i) => clock(s.began_s + i * s.point_s);
  const ends = [clock(s.began_s), clock(s.began_s + s.loss.length * s.point_s)];
  const draw = (id, title, names, format, zero) => chart(id, title,
    names.map(([key, name], color) => ({ name, values: s[key], color })), format, place, ends, zero);
  draw("chart-memory", "Memory of the stages", STAGES.map((n) => [n, n]).concat([["device", "of the GPU's"]]), size, true);
  draw("chart-loss", "Training loss", [["loss", "loss"]], (v) => digits(v, 4), false);
  draw("chart-rate", "Steps a second", [["steps_per_s", "it/s"]], (v) => digits(v, 4), true);
  draw("chart-gpu", "GPU busy", [["gpu_utilisation", "share of the time"]], percent, true);
  draw("chart-learning", "Learning rate", [["learning_rate", "rate"]], (v) => digits(v, 3), true);
  draw("chart-machine", "Memory of the machine", [["system", "machine"], ["container", "container"]], size, true);
}

function epochChart(state) {
  const e = state.epochs;
  if (e.length < 2) {
    if (byId("chart-epochs")) byId("chart-epochs").remove();
    return;
  }
  const place = (i) => e[i].task + " epoch " + e[i].epoch;
  const short = (i) => (e[i].task.length > 12 ? e[i].task.slice(0, 11) + "…" : e[i].task) + " " + e[i].epoch;
  chart("chart-epochs", "Loss by epoch", [{ name: "training", values: e.map((x) => x.loss), color: 0 },
    { name: "validation", values: e.map((x) => x.validation_loss), color: 1 }], (v) => digits(v, 4), place,
    [short(0), short(e.length - 1)], false);
}

/* ---- the run ---------------------------------------------------------------------------------------------------- */

function stateWords(run) {
  if (run.live) return ["going on", "good"];
  if (run.code === 0) return ["done", "good"];
  if (run.code === 75) return ["paused by its time limit", "warn"];
  return run.code === null ? ["stopped", "warn"] : ["ended with code " + run.code, "bad"];
}

function progressDraw(state) {
  const step = state.step, estimate = state.estimates && state.estimate;
  show("progress", state.live && Boolean(step || estimate));
  if (!state.live || (!step && !estimate)) return;
  const done = estimate ? estimate.samples_done / Math.max(estimate.samples, 1) : step.step / Math.max(step.steps, 1);
  byId("bar-part").style.width = (100 * Math.min(done, 1)).toFixed(1) + "%";
  byId("bar").setAttribute("aria-valuenow", Math.round(100 * Math.min(done, 1)));
  say("progress-text", estimate
    ? `${estimate.task}: Fisher information, sample ${estimate.samples_done} of ${estimate.samples}, block ${estimate.block} of ${estimate.blocks}, ${duration(estimate.eta_s)} left`
    : `${step.task}: epoch ${step.epoch} of ${step.epochs}, step ${step.step} of ${step.steps}, ${duration(step.eta_s)} left`);
  if (!step) return;
  const tiles = [["loss", digits(step.loss, 4)], ["learning rate", digits(step.learning_rate, 3)],
    ["steps a second", digits(step.steps_per_s, 4)], ["rows a second", digits(step.samples_per_s, 4)],
    ["waiting for data", percent(step.wait_share)],
    ["gradient's norm", digits(step.gradient_norm, 3)]];
  if (state.gpu && known(state.gpu.utilisation))
    tiles.push(["GPU busy", percent(state.gpu.utilisation)], ["GPU", `${digits(state.gpu.temperature_c, 3)} °C, ${digits(state.gpu.power_w, 3)} W`]);
  if (step.penalty > 0) tiles.push(["penalty", digits(step.penalty, 3)]);
  byId("tiles").replaceChildren(...tiles.map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
}

function stageButtons(stage, live) {
  const button = (verb, word, usable) => element("button", { type: "button", textContent: word, disabled: !live || !usable,
    ariaLabel: word + " " + stage.name, onclick: () => act({ verb, stage: stage.name }) });
  return element("span", { className: "actions" }, button("restart", "Restart", stage.pid),
    button("stop", "Stop", stage.pid), button("start", "Start", !stage.pid));
}

/* Did this part of what is said change since it was drawn? What is drawn anew loses its selection. */
const before = {};
function changed(part, ...said) {
  const key = JSON.stringify([drawn, ...said]);
  if (before[part] === key) return false;
  before[part] = key;
  return true;
}

function stagesDraw(state) {
  if (!changed("stages", state.stages, state.live, state.speaks, state.system, state.container, state.device)) return;
  const body = byId("stages").tBodies[0];
  if (body.contains(document.activeElement) && document.activeElement.matches(":active")) return; /* a click is under way */
  const focused = [...body.querySelectorAll("button")].indexOf(document.activeElement);
  body.replaceChildren(...state.stages.map((s) => {
    const now = s.pid ? s : {};
    return row(s.name, stageButtons(s, state.live), s.pid ? String(s.pid) : "does not run", String(s.restarts), size(now.rss_bytes),
      size(s.peak_bytes), size(s.planned_bytes), size(now.swap_bytes), size(now.heap_bytes || NaN), duration(now.cpu_s));
  }));
  if (focused >= 0) body.querySelectorAll("button")[focused].focus();
  const shared = [["the machine", state.system], ["the container", state.container]].filter(([, m]) => m)
    .map(([name, m]) => `${name}: ${size(m.rss_bytes)} of ${size(m.peak_bytes)} in use`);
  if (state.device) shared.push(`of the GPU's memory: ${size(state.device.rss_bytes)}, ${size(state.device.peak_bytes)} at most, ${size(state.device.planned_bytes)} planned`);
  say("machine", shared.join("; "));
}

function sentencesDraw(state) {
  if (!changed("sentences", state.sentences)) return;
  const list = state.sentences.slice().sort((a, b) => b.time_s - a.time_s);
  show("said", list.length > 0);
  byId("sentences").replaceChildren(...list.map((s) => element("li", {},
    element("span", { className: "small", textContent: day(s.time_s) + " " }),
    element("b", { textContent: s.kind + ": ", className: s.kind === "advice" ? "warn" : "" }), s.text)));
}

function epochsDraw(state) {
  if (!changed("epochs", state.epochs)) return;
  const e = state.epochs, shown = e.slice(-50).reverse();
  show("epochs-section", e.length > 0);
  say("metric", (e.find((x) => x.metric) || {}).metric || "metric");
  byId("epochs").tBodies[0].replaceChildren(...shown.map((x) => row(x.task, String(x.epoch), digits(x.loss, 5),
    digits(x.validation_loss, 5), digits(x.value, 5), duration(x.seconds))));
  const left = state.epochs_left_out + e.length - shown.length;
  say("epochs-left-out", left ? `and ${left} before them` : "");
}

/* What is between ` or ** in a line. */
function phrases(line) {
  return line.split(/(`[^`]*`|\*\*[^*]*\*\*)/).map((part) => (part.startsWith("`") ? element("code", { textContent: part.slice(1, -1) })
    : part.startsWith("**") ? element("b", { textContent: part.slice(2, -2) }) : part));
}

/* The Markdown that monitord writes: headings, tables, lists, lines. */
function reportWrite(text) {
  const report = byId("report");
  let table = null, list = null;
  for (const line of text.split("\n")) {
    if (line.startsWith("|")) {
      if (/^[|:-]+$/.test(line)) continue;
      const cells = line.slice(1, -1).split("|").map((c) => c.trim());
      if (!table) report.append(table = element("table", {}));
      table.append(element("tr", {}, ...cells.map((c) => element(table.rows.length ? "td" : "th", {}, ...phrases(c)))));
    } else if (line.startsWith("- ")) {
      if (!list) report.append(list = element("ul", {}));
      list.append(element("li", {}, ...phrases(line.slice(2))));
    } else if (line.startsWith("#")) {
      report.append(element("h4", { textContent: line.replace(/^#+ */, "") }));
    } else if (line && !line.startsWith("![")) {
      report.append(element("p", {}, ...phrases(line)));
    }
    if (!line.startsWith("|")) table = null;
    if (!line.startsWith("- ")) list = null;
  }
}

/* Pictures and report are asked for once for each state of the run's files. */
let reported = "";
async function reportDraw(state) {
  const key = state.name + state.changed_s + state.live + state.files.join();
  const pictures = state.files.filter((f) => f.endsWith(".png"));
  const isThere = state.files.includes("report/report.md") && !state.live;
  show("report-section", isThere || pictures.length > 0);
  if (key === reported) return;
  reported = key;
  byId("report").replaceChildren();
  if (isThere) reportWrite(await (await ask("/api/file", { run: state.name, name: "report/report.md" })).text());
  byId("pictures").querySelectorAll("img").forEach((i) => URL.revokeObjectURL(i.src));
  byId("pictures").replaceChildren(...await Promise.all(pictures.slice(-6).map(async (name) => {
    const data = await (await ask("/api/file", { run: state.name, name })).blob();
    return element("img", { src: URL.createObjectURL(data), alt: name });
  })));
  byId("files").replaceChildren(...state.files.flatMap((name) => [element("button", { type: "button", textContent: name,
    onclick: () => fileSave(state.name, name) }), " "]));
}

async function fileSave(run, name) {
  try {
    const link = element("a", { download: run + "-" + name.split("/").pop() });
    link.href = URL.createObjectURL(await (await ask("/api/file", { run, name })).blob());
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    trouble(error.message);
  }
}

/* What is shown of a run whose monitord does not measure is old. */
const silence = (state) => (state.measured_s ? `monitord says nothing: memory and progress are of ${clock(state.measured_s)}`
  : "monitord has said nothing yet: memory and progress are not known");

let drawn = ""; /* the run that is shown */

function stateDraw(state) {
  const [words, look] = stateWords(state);
  drawn = state.name;
  show("run", true);
  document.title = state.name + " – finetuned";
  say("name", state.name);
  say("state", words);
  byId("state").className = "badge " + look;
  say("device", state.device_name || "");
  say("sentence", state.unread || (!state.live && state.sentence) || (state.live && !state.speaks && silence(state)) || "");
  show("run-actions", state.live);
  progressDraw(state);
  timeCharts(state);
  epochChart(state);
  stagesDraw(state);
  sentencesDraw(state);
  epochsDraw(state);
}

/* ---- log -------------------------------------------------------------------------------------------------------- */

let logStage = "";
async function logText() {
  try {
    return await (await ask("/api/log", { run: chosen, stage: logStage })).text();
  } catch (error) {
    if (error.status === 404) return "";
    throw error;
  }
}

async function logDraw() {
  show("log", Boolean(logStage));
  if (!logStage) return;
  const pre = byId("log"), atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 20;
  say("log", await logText() || "nothing yet");
  if (atEnd) pre.scrollTop = pre.scrollHeight;
}

function logButtons() {
  byId("log-stages").replaceChildren(...STAGES.map((stage) => element("button", { type: "button", textContent: stage,
    ariaPressed: "false", onclick: () => {
      logStage = logStage === stage ? "" : stage;
      for (const button of byId("log-stages").children) button.ariaPressed = String(button.textContent === logStage);
      update();
    } })));
}

/* ---- runs ------------------------------------------------------------------------------------------------------- */

let chosen = new URLSearchParams(location.search).get("run") || "";

function choose(name) {
  if (name === chosen) return;
  chosen = name;
  show("run", false); /* until it is known */
  history.replaceState(null, "", "/?" + new URLSearchParams({ run: name }) + location.hash);
  byId("charts").replaceChildren();
  say("log", "");
}

const runMark = (button) => (button.run === chosen ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current"));

function runsDraw(list) {
  if (!list.runs.some((r) => r.name === chosen)) choose(list.runs.length ? list.runs[0].name : "");
  show("nothing", !list.runs.length);
  if (!list.runs.length) show("run", false);
  for (const button of byId("runs").querySelectorAll("button")) runMark(button);
  const key = JSON.stringify(list);
  if (byId("runs").key === key) return;
  byId("runs").key = key;
  const focused = document.activeElement.run;
  byId("runs").replaceChildren(...list.runs.map((run) => {
    const [words, look] = stateWords(run);
    const button = element("button", { type: "button", onclick: () => { choose(run.name); update(); } }, run.name,
      element("span", { className: "small " + look, textContent: words + (run.live ? "" : ", " + day(run.changed_s)) }));
    button.run = run.name;
    runMark(button);
    return element("li", {}, button);
  }));
  for (const button of byId("runs").querySelectorAll("button")) if (focused && button.run === focused) button.focus();
  say("runs-left-out", list.left_out ? `and ${list.left_out} older ones` : "");
}

let timer, asking = false, again = false, lost = false;
async function update() {
  clearTimeout(timer);
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    runsDraw(await askJson("/api/runs"));
    if (chosen) {
      const state = await askJson("/api/run", { run: chosen });
      if (state.name === chosen) {
        stateDraw(state);
        await reportDraw(state);
        await logDraw();
      }
    }
    if (lost) trouble("");
    lost = false;
  } catch (error) {
    lost = true;
    trouble(error instanceof TypeError && !error.status && /fetch/i.test(error.message)
      ? "The page's server does not answer; start pipelines/web.sh again, and open the address that it prints." : error.message);
  }
  document.querySelector("main").classList.toggle("old", lost);
  asking = false;
  if (again) {
    again = false;
    update();
  } else if (!document.hidden) {
    timer = setTimeout(update, PERIOD_MS);
  }
}

byId("run-actions").addEventListener("click", (event) => {
  const verb = event.target.dataset.verb;
  if (!verb) return;
  if (verb === "mark") {
    const text = prompt("What is the mark to be called?");
    if (text) act({ verb }, text);
  } else if (verb !== "end" || confirm(`Stop the run ${drawn}? The same command goes on with it.`)) {
    act({ verb });
  }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
window.addEventListener("hashchange", update);
logButtons();
update();
