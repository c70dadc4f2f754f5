"use strict";

// Learning curves: means over seeds with bands from the worst to the best seed, or one line a seed.

const COLOURS = 5;
const settings = {}; // of each chart, by its name: they outlive a redrawing
let numClips = 0;

function seedLines(data, candidate) {
  return (data.members[candidate] || []).map(([seed, , , , place, values]) => ({
    candidate, seed, points: values.map((value, i) => [data.steps[place][i], value]),
  })).filter((line) => line.points.length);
}

function meanLine(data, candidate) {
  const byStep = new Map();
  for (const { points } of seedLines(data, candidate)) {
    for (const [step, value] of points) byStep.set(step, [...(byStep.get(step) || []), value]);
  }
  const steps = [...byStep.keys()].sort((a, b) => a - b);
  return {
    candidate,
    points: steps.map((step) => [step, byStep.get(step).reduce((a, b) => a + b, 0) / byStep.get(step).length]),
    band: steps.map((step) => [step, Math.min(...byStep.get(step)), Math.max(...byStep.get(step))]),
    seeds: steps.map((step) => byStep.get(step).length),
  };
}

// The best few and the control in colours, all others grey behind them.
function overviewLines(data) {
  const colours = new Map();
  for (const id of data.shown) colours.set(id, id === data.control ? "var(--ink)" : `var(--c${colours.size % COLOURS})`);
  const front = data.shown.map((id) => ({
    ...meanLine(data, id), colour: colours.get(id), width: 2, dashed: id === data.control, label: id,
  }));
  const rest = Object.keys(data.members).filter((id) => !colours.has(id));
  const grey = rest.flatMap((id) => seedLines(data, id)).map((line) => ({ ...line, colour: "var(--grey)", width: 0.8 }));
  return [...grey, ...front];
}

// The seeds of one candidate, and the mean of the control behind them.
function candidateLines(data, candidate) {
  const lines = seedLines(data, candidate).map((line, i) => ({
    ...line, colour: `var(--c${i % COLOURS})`, width: 1.8, label: `seed ${line.seed}`,
  }));
  if (data.control === null || data.control === candidate) return lines;
  const control = { ...meanLine(data, data.control), colour: "var(--ink)", width: 1.4, dashed: true, label: "control" };
  return control.points.length ? [control, ...lines] : lines;
}

// From the best of all to the worst from a step on: the descent before it would flatten the rest.
function valueRange(data, lines, whole, log) {
  const front = lines.filter((line) => line.label !== undefined);
  const from = whole || !data.gates.length ? 0 : 0.5 * data.gates[0];
  const late = (some) => some.flatMap((line) => line.points.filter(([step]) => step >= from).map(([, value]) => value));
  let values = late(front.length && !whole ? front : lines);
  if (!values.length) values = lines.flatMap((line) => line.points.map(([, value]) => value));
  const others = late(lines);
  const best = data.mode === "min" ? Math.min : Math.max;
  if (others.length) values = [...values, others.reduce((a, b) => best(a, b))];
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  if (log) return [low / 1.03, high * 1.03];
  const margin = 0.05 * (high - low) || 0.1;
  return [low - margin, high + margin];
}

function drawCurves(host, data, lines, { name, openRow, labels = {}, xName = "optimiser steps; dotted: gates" }) {
  host.replaceChildren();
  const points = lines.flatMap((line) => line.points);
  if (!points.length) return;
  const chosen = (settings[name] ||= { logX: false, logY: false, whole: false });
  const values = points.map(([, value]) => value), steps = points.map(([step]) => step);
  const mayLog = values.every((value) => value > 0);
  const redraw = () => drawCurves(host, data, lines, { name, openRow, labels, xName });
  host.append(toggles(chosen, mayLog, redraw));

  const width = Math.max(300, host.clientWidth || 800), height = Math.round(Math.min(420, Math.max(230, width * 0.48)));
  const frame = { left: 58, right: width - 22, top: 8, bottom: height - 38 };
  const most = steps.reduce((a, b) => Math.max(a, b)), least = steps.reduce((a, b) => Math.min(a, b));
  const logY = chosen.logY && mayLog, [low, high] = valueRange(data, lines, chosen.whole, logY);
  const x = scale(chosen.logX ? Math.max(1, least) : 0, most, frame.left, frame.right, chosen.logX);
  const y = scale(low, high, frame.bottom, frame.top, logY);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${data.objective} by step` });
  const xRange = [chosen.logX ? Math.max(1, least) : 0, most];
  drawing.append(...axisMarks(data, frame, x, y, xRange, [low, high], chosen.logX, logY, xName));
  drawing.append(...drawnLines(lines, frame, x, y));
  followPointer(drawing, lines, frame, x, y, { data, openRow, labels });
  host.append(drawing, legend(lines, labels, openRow));
}

function toggles(chosen, mayLog, redraw) {
  const bar = html("div", { class: "toggles" });
  for (const [key, text] of [["logY", "log value"], ["logX", "log steps"], ["whole", "whole range"]]) {
    const box = html("input", { type: "checkbox" });
    box.checked = chosen[key] && (key !== "logY" || mayLog);
    box.disabled = key === "logY" && !mayLog;
    box.addEventListener("change", () => { chosen[key] = box.checked; redraw(); });
    const label = html("label", {}, box, ` ${text}`);
    if (box.disabled) label.title = "some values are not above zero";
    bar.append(label);
  }
  return bar;
}

function axisMarks(data, frame, x, y, [fromStep, toStep], [low, high], logX, logY, xName) {
  const marks = [];
  for (const value of ticks(low, high, 6, logY)) {
    marks.push(svg("line", { x1: frame.left, x2: frame.right, y1: y(value), y2: y(value), class: "grid" }));
    marks.push(svg("text", { x: frame.left - 6, y: y(value) + 4, "text-anchor": "end" }, numberText(value)));
  }
  for (const step of ticks(fromStep, toStep, Math.max(2, (frame.right - frame.left) / 110), logX)) {
    marks.push(svg("text", { x: x(step), y: frame.bottom + 17, "text-anchor": "middle" }, numberText(step)));
  }
  for (const gate of data.gates.slice(0, -1).filter((step) => step <= toStep && step >= fromStep)) {
    marks.push(svg("line", { x1: x(gate), x2: x(gate), y1: frame.top, y2: frame.bottom, class: "gate" }));
  }
  const middle = (frame.top + frame.bottom) / 2, unit = data.unit ? ` (${data.unit})` : "";
  marks.push(svg("text", { x: frame.right, y: frame.bottom + 33, "text-anchor": "end", class: "name" }, xName));
  marks.push(svg("text", { transform: `rotate(-90 12 ${middle})`, x: 12, y: middle, "text-anchor": "middle", class: "name" }, data.objective + unit));
  return marks;
}

function drawnLines(lines, frame, x, y) {
  const id = `clip${numClips++}`;
  const box = { x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.bottom - frame.top };
  const clip = svg("clipPath", { id }, svg("rect", box));
  const group = svg("g", { "clip-path": `url(#${id})` });
  for (const line of lines) {
    const path = line.points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    if (line.band && line.colour !== "var(--grey)" && line.band.length > 1) {
      const up = line.band.map(([step, , most]) => `${x(step).toFixed(1)} ${y(most).toFixed(1)}`);
      const down = line.band.map(([step, least]) => `${x(step).toFixed(1)} ${y(least).toFixed(1)}`).reverse();
      const area = svg("path", { d: `M${[...up, ...down].join("L")}Z`, class: "band" });
      area.style.fill = line.colour;
      group.append(area);
    }
    line.mark = svg("path", { d: path, fill: "none", "stroke-width": line.width, "stroke-linejoin": "round" });
    line.mark.style.stroke = line.colour;
    if (line.dashed) line.mark.setAttribute("stroke-dasharray", "7 3");
    if (line.points.length === 1) {
      const [[step, value]] = line.points;
      line.mark = svg("circle", { cx: x(step), cy: y(value), r: 2.5 });
      line.mark.style.fill = line.colour;
    }
    group.append(line.mark);
  }
  return [clip, group];
}

function followPointer(drawing, lines, frame, x, y, { data, openRow, labels }) {
  let near = null;
  const dot = svg("circle", { r: 4, class: "dot", visibility: "hidden" });
  drawing.append(dot);
  const leave = () => {
    if (near) near.line.mark.classList.remove("near");
    near = null;
    dot.setAttribute("visibility", "hidden");
    drawing.style.cursor = "";
    hideTip();
  };
  drawing.addEventListener("pointermove", (event) => {
    const [px, py] = pointerIn(drawing, event);
    const found = nearest(lines, x, y, px, py, frame);
    if (!found) return leave();
    if (near && near.line !== found.line) near.line.mark.classList.remove("near");
    near = found;
    near.line.mark.classList.add("near");
    const [step, value] = near.line.points[near.i];
    filled(dot, { cx: x(step), cy: y(value), visibility: "visible" }, []);
    drawing.style.cursor = openRow ? "pointer" : "";
    const { candidate, seed, seeds } = near.line;
    const who = !seeds && seed === undefined ? "best so far" : seed === undefined ? `mean of ${seeds[near.i]} ${seeds[near.i] === 1 ? "seed" : "seeds"}` : `seed ${seed}`;
    showTip(event, [`${candidate} ${labels[candidate] || ""}`, `${who}, step ${numberText(step)}`, `${data.objective} ${numberText(value, 6)}`]);
  });
  drawing.addEventListener("pointerleave", leave);
  if (openRow) drawing.addEventListener("click", () => near && openRow(near.line.candidate));
}

// The closest drawn point within reach of the pointer; lines in front win over grey ones as near as they are.
function nearest(lines, x, y, px, py, frame) {
  let best = null, least = 32;
  for (const line of lines) {
    const handicap = line.label === undefined ? 6 : 0;
    line.points.forEach(([step, value], i) => {
      const at = y(value);
      if (at < frame.top - 4 || at > frame.bottom + 4) return;
      const distance = Math.hypot(x(step) - px, at - py) + handicap;
      if (distance < least) { least = distance; best = { line, i }; }
    });
  }
  return best;
}

function legend(lines, labels, openRow) {
  const list = html("ul", { class: "legend" });
  const front = lines.filter((line) => line.label !== undefined);
  for (const line of front) {
    const swatch = html("span", { class: line.dashed ? "swatch dashed" : "swatch" });
    swatch.style.borderColor = line.colour;
    const text = `${line.label} ${line.seed === undefined ? labels[line.candidate] || "" : ""}`.trim();
    const label = openRow ? html("button", { type: "button" }, text) : html("span", {}, text);
    if (openRow) label.addEventListener("click", () => openRow(line.candidate));
    list.append(html("li", {}, swatch, label));
  }
  if (lines.length > front.length) list.append(html("li", { class: "note" }, "grey: one line a seed of all others"));
  if (front.some((line) => line.band)) list.append(html("li", { class: "note" }, "lines: means over seeds; bands: worst to best seed"));
  return list;
}
