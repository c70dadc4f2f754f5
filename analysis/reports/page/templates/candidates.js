"use strict";

// Tables that sort, and the table of candidates: filtered by words and brushes, each row opens its curves and logs.

// What a cell sorts by: the number that it stands for, or NaN.
function cellNumber(cell) {
  const key = cell.dataset.key;
  if (key !== undefined) return key === "" ? NaN : Number(key);
  const text = cell.textContent.trim().replaceAll(",", "");
  return text === "" ? NaN : Number(text);
}

// Compares two cells: numbers by their value, words as a reader would, what has no value last whatever the direction.
function compareCells(a, b, direction) {
  const x = cellNumber(a), y = cellNumber(b);
  if (Number.isNaN(x) && Number.isNaN(y) && a.dataset.key === undefined) {
    return direction * a.textContent.trim().localeCompare(b.textContent.trim(), "en", { numeric: true });
  }
  if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y));
  return direction * (x - y || 0);
}

function sortBy(header, direction) {
  const siblings = header.parentElement.children;
  const column = Array.prototype.indexOf.call(siblings, header);
  for (const other of siblings) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const body = header.closest("table").tBodies[0];
  const rows = Array.from(body.rows).filter((row) => !row.classList.contains("detail"));
  rows.sort((one, two) => compareCells(one.cells[column], two.cells[column], direction));
  for (const row of rows) body.append(row, ...(row.detail ? [row.detail] : []));
}

function makeSortable(table) {
  for (const header of table.querySelectorAll("th")) {
    const turn = () => sortBy(header, header.getAttribute("aria-sort") === "ascending" ? -1 : 1);
    header.querySelector("button").addEventListener("click", turn);
  }
}

function readRows(table, data) {
  return Array.from(table.tBodies[0].rows).map((tr) => {
    const cells = Array.from(tr.cells), id = cells[0].textContent.trim();
    return {
      id, tr, isIn: true, isControl: id === data.control, label: cells[1].textContent.trim(),
      texts: cells.map((cell) => cell.textContent.trim()), numbers: cells.map(cellNumber),
    };
  });
}

function detailOf(row, page) {
  const { data } = page;
  const chart = html("div", { class: "chart" });
  const inside = html("div", { class: "inside" }, chart, membersTable(row, page));
  const changes = Object.entries(data.changes[row.id] || {});
  if (changes.length) {
    const title = data.control === null || row.isControl ? "config" : "config, where it differs from the control's";
    const list = changes.flatMap(([key, value]) => [html("dt", {}, key), html("dd", {}, value)]);
    inside.append(html("details", {}, html("summary", {}, title), html("dl", { class: "config" }, ...list)));
  }
  for (const [seed] of data.members[row.id] || []) {
    const text = data.logs[`${row.id}-s${seed}`];
    if (text) inside.append(html("details", {}, html("summary", {}, `end of the log of seed ${seed}`), html("pre", {}, text)));
  }
  const cell = html("td", { colspan: row.tr.cells.length }, inside);
  return [html("tr", { class: "detail" }, cell), () => {
    inside.style.width = `${Math.min(1180, row.tr.closest(".wide").clientWidth - 24)}px`;
    drawCurves(chart, data, candidateLines(data, row.id), { name: `of ${row.id}` });
  }];
}

function membersTable(row, { data }) {
  const better = (a, b) => (data.mode === "min" ? Math.min(a, b) : Math.max(a, b));
  const head = ["seed", "status", "step", `best ${data.objective}`, "test", "log"];
  const body = (data.members[row.id] || []).map(([seed, status, reason, test, place, values]) => {
    const steps = data.steps[place].length ? numberText(data.steps[place][data.steps[place].length - 1]) : "–";
    const best = values.length ? values.reduce(better).toFixed(data.places) : "–";
    const log = html("a", { href: `${document.body.dataset.members}/${row.id}-s${seed}/train.log` }, "train.log");
    const cells = [String(seed), reason ? `${status}: ${reason}` : status, steps, best, test === null ? "–" : test.toFixed(data.places)];
    const items = [...cells.map((text) => html("td", {}, text)), html("td", {}, document.body.dataset.members ? log : "–")];
    items[1].className = "word";
    return html("tr", {}, ...items);
  });
  const titles = head.map((text) => html("th", text === "status" ? { class: "word" } : {}, text));
  return html("table", {}, html("thead", {}, html("tr", {}, ...titles)), html("tbody", {}, ...body));
}
