"use strict";

// Parameters against the objective: parallel coordinates and one small plot a parameter. What is brushed in any of them
// filters all of them and the table.

// Axes with a function from a row to a fraction of their length; null where a row has no value.
function axesOf(data, rows) {
  const axes = data.axes.map((axis) => ({ ...axis }));
  if (data.gates.length > 1) axes.push({ name: "at step", column: data.columns.step });
  axes.push({ name: data.objective, column: data.columns.score, isScore: true, flipped: data.mode === "min" });
  return axes.map((axis) => placed(axis, rows));
}

function placed(axis, rows) {
  const seen = rows.map((row) => row.numbers[axis.column]).filter((value) => Number.isFinite(value));
  const texts = rows.map((row) => row.texts[axis.column]).filter((text) => text !== "–");
  if (axis.choices || seen.length < texts.length) {
    const choices = [...new Set([...(axis.choices || []), ...texts])];
    if (choices.every((choice) => Number.isFinite(Number(choice)))) choices.sort((a, b) => a - b);
    const at = scale(0, choices.length - 1, 0.04, 0.96);
    const marks = choices.map((choice, i) => [at(i), choice]);
    return { ...axis, marks, at: (row) => (choices.includes(row.texts[axis.column]) ? at(choices.indexOf(row.texts[axis.column])) : null) };
  }
  let low = Math.min(...seen), high = Math.max(...seen);
  if (axis.isScore) [low, high] = scoreRange(seen, axis.flipped);
  const log = Boolean(axis.log) && low > 0;
  const at = axis.flipped ? scale(low, high, 1, 0, log) : scale(low, high, 0, 1, log);
  const marks = seen.length ? ticks(low, high, 4, log).map((value) => [at(value), numberText(value)]) : [];
  const place = (value) => (Number.isFinite(value) ? Math.min(1, Math.max(0, at(value))) : null);
  return { ...axis, marks, at: (row) => place(row.numbers[axis.column]) };
}

// Scores far to the worse stand at the axis' end: they would flatten all others.
function scoreRange(seen, lowerIsBetter) {
  const low = Math.min(...seen), high = Math.max(...seen), middle = median(seen);
  const reach = 3 * (lowerIsBetter ? middle - low : high - middle);
  if (!(reach > 0)) return [low, high];
  return lowerIsBetter ? [low, Math.min(high, middle + reach)] : [Math.max(low, middle - reach), high];
}

function passes(row, axes, brushes) {
  return axes.every((axis) => {
    const range = brushes.get(axis.name);
    if (!range) return true;
    const at = axis.at(row);
    return at !== null && at >= range[0] && at <= range[1];
  });
}

// The better among all, the stronger the colour.
function shade(element, place, num) {
  element.style.stroke = `color-mix(in srgb, var(--c0) ${Math.round(10 + 90 * ((place + 1) / num) ** 2)}%, var(--grey))`;
}

function rowTip(row, axes) {
  const values = axes.map((axis) => `${axis.name} ${row.texts[axis.column]}`);
  return [`${row.id} ${row.label}`, ...values];
}

function drawParallel(host, page) {
  const { axes, rows, brushes } = page;
  host.replaceChildren();
  if (axes.length < 3 || rows.length < 2) return;
  const gap = Math.max(84, Math.floor(((host.clientWidth || 900) - 110) / (axes.length - 1)));
  const width = gap * (axes.length - 1) + 110, height = 300, top = 34, bottom = height - 34, left = 50;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "candidates across all parameters" });
  drawing.style.width = `${width}px`;
  const x = (i) => left + i * gap, y = (at) => (at === null ? bottom + 16 : bottom - at * (bottom - top));
  const lines = svg("g");
  const score = axes[axes.length - 1], worstFirst = [...rows].sort((a, b) => (score.at(a) ?? -1) - (score.at(b) ?? -1));
  worstFirst.forEach((row, place) => {
    const d = axes.map((axis, i) => `${i ? "L" : "M"}${x(i)} ${y(axis.at(row)).toFixed(1)}`).join("");
    const line = svg("path", { d, class: row.isControl ? "thread control" : "thread" });
    if (!row.isControl) shade(line, place, rows.length);
    const reach = svg("path", { d, class: "reach" });
    reach.addEventListener("pointerenter", (event) => { page.highlight(row); showTip(event, rowTip(row, axes)); });
    reach.addEventListener("pointerleave", () => { page.highlight(null); hideTip(); });
    reach.addEventListener("click", () => page.open(row.id));
    row.thread = line;
    lines.append(line, reach);
  });
  drawing.append(lines, ...axes.map((axis, i) => verticalAxis(axis, i, { x, y, top, bottom, drawing, page, gap })));
  host.append(drawing);
  page.marks.set(host, () => {
    for (const row of rows) row.thread.classList.toggle("out", !row.isIn);
    for (const axis of axes) axis.showBrush(brushes.get(axis.name));
  });
}

function verticalAxis(axis, i, { x, y, top, bottom, drawing, page, gap }) {
  const label = axis.name.length * 6.6 > gap ? `${axis.name.slice(0, Math.floor(gap / 6.6) - 1)}…` : axis.name;
  const group = svg("g", {}, svg("line", { x1: x(i), x2: x(i), y1: top, y2: bottom, class: "axis" }));
  const name = svg("text", { x: x(i), y: 16, "text-anchor": "middle", class: "name" }, label);
  name.append(svg("title", {}, axis.name));
  group.append(name);
  if (page.rows.some((row) => axis.at(row) === null)) group.append(svg("text", { x: x(i) + 6, y: bottom + 20 }, "none"));
  for (const [at, text] of axis.marks) group.append(svg("text", { x: x(i) + 6, y: y(at) + 4, class: "halo" }, text.slice(0, 14)));
  const brush = svg("rect", { x: x(i) - 8, width: 16, class: "brush", visibility: "hidden" });
  const reach = svg("rect", { x: x(i) - 14, width: 28, y: top - 8, height: bottom - top + 16, class: "handle" });
  brushable(reach, (event) => (bottom - pointerIn(drawing, event)[1]) / (bottom - top), (range) => page.brush(axis.name, range));
  axis.showBrush = (range) => {
    if (!range) return brush.setAttribute("visibility", "hidden");
    const [high, low] = [y(Math.min(1.02, range[1])), y(Math.max(-0.02, range[0]))];
    filled(brush, { visibility: "visible", y: high, height: Math.max(2, low - high) }, []);
  };
  group.append(brush, reach);
  return group;
}

function drawSlices(host, page) {
  const score = page.axes[page.axes.length - 1], { rows, brushes } = page;
  host.replaceChildren();
  const furthest = Math.max(...rows.map((row) => row.numbers[page.data.columns.step]).filter(Number.isFinite));
  const scored = rows.filter((row) => score.at(row) !== null);
  const updates = [];
  for (const axis of page.axes.slice(0, page.data.axes.length)) {
    const width = 250, height = 180, left = 44, right = 240, top = 24, bottom = 148;
    const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${score.name} against ${axis.name}` });
    const x = (at) => left + at * (right - left), y = (at) => bottom - at * (bottom - top);
    drawing.append(svg("text", { x: left, y: 14, class: "name" }, axis.name));
    for (const [at, text] of score.marks) {
      drawing.append(svg("line", { x1: left, x2: right, y1: y(at), y2: y(at), class: "grid" }));
      drawing.append(svg("text", { x: left - 5, y: y(at) + 4, "text-anchor": "end" }, text));
    }
    for (const [at, text] of axis.marks) drawing.append(svg("text", { x: x(at), y: bottom + 18, "text-anchor": "middle" }, text.slice(0, 12)));
    const brush = svg("rect", { y: top, height: bottom - top, class: "brush", visibility: "hidden" });
    const reach = svg("rect", { x: left, y: top, width: right - left, height: height - top, class: "handle" });
    brushable(reach, (event) => (pointerIn(drawing, event)[0] - left) / (right - left), (range) => page.brush(axis.name, range));
    drawing.append(brush, reach);
    const dots = scored.filter((row) => axis.at(row) !== null).map((row) => sliceDot(row, x(axis.at(row)), y(score.at(row)), furthest, page));
    drawing.append(...dots.map(([dot]) => dot));
    host.append(drawing);
    updates.push(() => {
      for (const [dot, row] of dots) dot.classList.toggle("out", !row.isIn);
      const range = brushes.get(axis.name);
      if (!range) return brush.setAttribute("visibility", "hidden");
      const [from, to] = [x(Math.max(0, range[0])), x(Math.min(1, range[1]))];
      filled(brush, { visibility: "visible", x: from, width: Math.max(2, to - from) }, []);
    });
  }
  page.marks.set(host, () => updates.forEach((update) => update()));
}

// Full where the candidate came as far as any, hollow where it was scored at a gate before.
function sliceDot(row, cx, cy, furthest, page) {
  const isFull = row.numbers[page.data.columns.step] === furthest;
  const dot = svg("circle", { cx, cy, r: row.isControl ? 5 : 4, class: `${row.isControl ? "control " : ""}${isFull ? "full" : "hollow"}` });
  dot.addEventListener("pointerenter", (event) => { page.highlight(row); showTip(event, rowTip(row, page.axes)); });
  dot.addEventListener("pointerleave", () => { page.highlight(null); hideTip(); });
  dot.addEventListener("click", () => page.open(row.id));
  return [dot, row];
}
