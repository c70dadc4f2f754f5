"use strict";

// Small parts of charts: elements, scales, ticks, numbers, the tip beside the pointer. Texts are set as text, never parsed.

const NAMESPACE = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(NAMESPACE, tag), attributes, children);
}

function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// A function from values to places, logarithmic or not; one value alone stands in the middle.
function scale(low, high, from, to, log = false) {
  const turn = log ? Math.log10 : (value) => value;
  const start = turn(low), width = turn(high) - start;
  return (value) => (width ? from + ((turn(value) - start) / width) * (to - from) : (from + to) / 2);
}

function ticks(low, high, count, log = false) {
  if (!(high > low)) return [low];
  if (log && Math.log10(high / low) >= 1) {
    const candidates = [[1, 2, 5], [1, 3], [1]].map((leading) => logTicks(low, high, leading));
    return candidates.find((places) => places.length <= count + 1) || candidates[2];
  }
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((width) => width >= rough);
  const places = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) places.push(Number((i * step).toPrecision(12)));
  return places;
}

function logTicks(low, high, leading) {
  const places = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of leading) places.push(Number(`${digit}e${power}`));
  }
  return places.filter((place) => place >= low * 0.999 && place <= high * 1.001);
}

// As a reader writes it: 1,800 and 0.0021 and 1.2e-7.
function numberText(value, digits = 4) {
  if (value === null || Number.isNaN(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e9)) return value.toPrecision(2).replace(/\.0e/, "e");
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function tip() {
  return document.getElementById("tip") || document.body.appendChild(html("div", { id: "tip", hidden: "" }));
}

function showTip(event, lines) {
  const box = tip();
  box.replaceChildren(...lines.map((line) => html("div", {}, line)));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const x = event.clientX + 14 + width > window.innerWidth ? event.clientX - width - 14 : event.clientX + 14;
  box.style.left = `${Math.max(2, x)}px`;
  box.style.top = `${Math.max(2, Math.min(event.clientY + 14, window.innerHeight - height - 4))}px`;
}

function hideTip() {
  tip().hidden = true;
}

// Where the pointer is in the drawing's own units.
function pointerIn(drawing, event) {
  const box = drawing.getBoundingClientRect(), view = drawing.viewBox.baseVal;
  return [((event.clientX - box.left) / box.width) * view.width, ((event.clientY - box.top) / box.height) * view.height];
}

// Dragging over an element tells the range of fractions; a click without a drag tells null.
function brushable(element, fractionAt, told) {
  let from = null;
  element.addEventListener("pointerdown", (event) => {
    from = fractionAt(event);
    element.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  element.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const to = fractionAt(event);
    if (Math.abs(to - from) > 0.02) told([Math.min(from, to), Math.max(from, to)], false);
  });
  element.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const to = fractionAt(event), start = from;
    from = null;
    told(Math.abs(to - start) > 0.02 ? [Math.min(start, to), Math.max(start, to)] : null, true);
  });
}
