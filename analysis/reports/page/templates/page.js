"use strict";

// Joins the parts of the page. `page` is what is shown now; brushes, words and open rows outlive a newer state of the run.

const kept = { brushes: new Map(), words: "", opened: new Set(), sort: null };

function build() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.querySelector("#candidates table");
  const rows = readRows(table, data);
  const page = { data, rows, brushes: kept.brushes, marks: new Map(), axes: axesOf(data, rows) };
  const byId = new Map(rows.map((row) => [row.id, row]));
  page.highlight = (chosen) => {
    for (const row of rows) {
      row.tr.classList.toggle("near", row === chosen);
      if (row.thread) row.thread.classList.toggle("near", row === chosen);
    }
  };
  page.brush = (name, range) => {
    if (range) kept.brushes.set(name, range); else kept.brushes.delete(name);
    apply(page);
  };
  page.toggle = (row, isOpen) => toggleRow(row, page, isOpen);
  page.open = (id) => {
    const row = byId.get(id);
    if (!row) return;
    page.toggle(row, true);
    row.tr.hidden = false;
    row.tr.scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  rows.forEach((row) => openable(row, page));
  return page;
}

function openable(row, page) {
  const button = html("button", { type: "button", class: "opens", "aria-expanded": "false" }, row.id);
  row.tr.cells[0].replaceChildren(button);
  row.button = button;
  row.tr.addEventListener("click", (event) => {
    const isText = event.target.closest("a") || String(window.getSelection());
    if (!isText || event.target === button) page.toggle(row, !row.tr.detail);
  });
  row.tr.addEventListener("pointerenter", () => page.highlight(row));
  row.tr.addEventListener("pointerleave", () => page.highlight(null));
}

function toggleRow(row, page, isOpen) {
  if (Boolean(row.tr.detail) === isOpen) return;
  row.button.setAttribute("aria-expanded", String(isOpen));
  if (!isOpen) {
    row.tr.detail.remove();
    row.tr.detail = null;
    kept.opened.delete(row.id);
    return;
  }
  const [detail, draw] = detailOf(row, page);
  row.tr.detail = detail;
  row.tr.after(detail);
  kept.opened.add(row.id);
  draw();
}

// Hides what the words or a brush leave out, in the table and in every chart.
function apply(page) {
  const words = kept.words.toLowerCase().split(/\s+/).filter(Boolean);
  let num = 0;
  for (const row of page.rows) {
    const text = row.texts.join(" ").toLowerCase();
    row.isIn = words.every((word) => text.includes(word)) && passes(row, page.axes, kept.brushes);
    row.tr.hidden = !row.isIn;
    if (row.tr.detail) row.tr.detail.hidden = !row.isIn;
    num += Number(row.isIn);
  }
  const count = document.getElementById("count");
  count.textContent = num === page.rows.length ? `${num} candidates` : `${num} of ${page.rows.length} candidates`;
  document.getElementById("clear").hidden = !kept.brushes.size && !kept.words;
  for (const mark of page.marks.values()) mark();
}

function draw(page) {
  page.marks.clear();
  const labels = Object.fromEntries(page.rows.map((row) => [row.id, row.label]));
  const parallel = document.getElementById("parallel"), slices = document.getElementById("slices");
  if (parallel) drawParallel(parallel, page);
  if (slices) drawSlices(slices, page);
  const curves = document.getElementById("curves-chart");
  if (curves) drawCurves(curves, page.data, overviewLines(page.data), { name: "all", openRow: page.open, labels });
  apply(page);
}

function show() {
  document.documentElement.classList.add("scripted");
  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
  const page = build();
  const words = document.getElementById("words");
  words.value = kept.words;
  words.addEventListener("input", () => { kept.words = words.value; apply(page); });
  document.getElementById("clear").addEventListener("click", () => {
    kept.brushes.clear();
    kept.words = words.value = "";
    apply(page);
  });
  draw(page);
  for (const row of page.rows) if (kept.opened.has(row.id)) page.toggle(row, true);
  return page;
}

function begin() {
  let page = show(), waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => draw(page), 150);
  });
  // What is folded away is printed as well.
  window.addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });
  if (document.body.dataset.live) follow(() => { page = show(); });
}

// The served page: asks for a newer state every few seconds and puts it in place of what is shown.
function follow(shown) {
  let tag = document.body.dataset.live;
  const ask = async () => {
    try {
      const answer = await fetch(window.location.pathname, { headers: { "If-None-Match": tag }, cache: "no-store" });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        replaceContent(await answer.text());
        shown();
      }
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
    }
    setTimeout(ask, 2000);
  };
  setTimeout(ask, 2000);
}

function replaceContent(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const sorted = document.querySelector("#candidates th[aria-sort]");
  const open = Array.from(document.querySelectorAll("main details[open][id]"), (folded) => folded.id);
  const focused = document.activeElement && document.activeElement.id === "words";
  for (const name of ["header", "main", "#data"]) document.querySelector(name).replaceWith(fresh.querySelector(name));
  document.title = fresh.title;
  for (const id of open) if (document.getElementById(id)) document.getElementById(id).open = true;
  if (sorted) {
    const same = Array.from(document.querySelectorAll("#candidates th")).find((th) => th.textContent === sorted.textContent);
    if (same) sortBy(same, sorted.getAttribute("aria-sort") === "ascending" ? 1 : -1);
  }
  if (focused) document.getElementById("words").focus();
}

if (typeof document !== "undefined") begin();
