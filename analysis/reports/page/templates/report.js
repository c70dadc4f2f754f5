"use strict";

// Compares two cells: numbers by their value, words as a reader would, what has no value last whatever the direction.
function compareCells(a, b, direction) {
  const x = a.dataset.key, y = b.dataset.key;
  if (x !== undefined || y !== undefined) {
    const p = x === undefined || x === "" ? NaN : Number(x);
    const q = y === undefined || y === "" ? NaN : Number(y);
    if (Number.isNaN(p) || Number.isNaN(q)) return Number(Number.isNaN(p)) - Number(Number.isNaN(q));
    return direction * (p - q || 0);
  }
  return direction * a.textContent.trim().localeCompare(b.textContent.trim(), "en", { numeric: true });
}

function sortBy(header) {
  const row = header.parentElement;
  const column = Array.prototype.indexOf.call(row.children, header);
  const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of row.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const body = header.closest("table").tBodies[0];
  const rows = Array.from(body.rows);
  rows.sort((one, two) => compareCells(one.cells[column], two.cells[column], direction));
  body.append(...rows);
}

function begin() {
  for (const header of document.querySelectorAll("table.sortable th")) {
    header.querySelector("button").addEventListener("click", () => sortBy(header));
  }
  // What is folded away is printed as well.
  window.addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });
}

if (typeof document !== "undefined") begin();
