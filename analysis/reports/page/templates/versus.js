"use strict";

// Two runs beside each other: colours tell the runs apart, dashes the control from the best.

function beginVersus() {
  document.documentElement.classList.add("scripted");
  const data = JSON.parse(document.getElementById("data").textContent);
  const lines = data.shown.map(([id, run, dashed]) => ({
    ...meanLine(data, id), colour: `var(--c${run})`, width: 2, dashed, label: id,
  }));
  // A best so far holds until there is a better one.
  const found = data.quality.map(({ label, points }, run) => ({
    candidate: label, label, colour: `var(--c${run})`, width: 2,
    points: points.flatMap(([step, value], i) => (i ? [[step, points[i - 1][1]], [step, value]] : [[step, value]])),
  }));
  settings.quality = { logX: true, logY: false, whole: false }; // most is found in the first steps
  const drawAll = () => {
    drawCurves(document.getElementById("curves-chart"), data, lines, { name: "versus", xName: "optimiser steps" });
    const spent = { name: "quality", xName: "optimiser steps of the whole run" };
    drawCurves(document.getElementById("quality-chart"), { ...data, gates: [] }, found, spent);
  };
  drawAll();
  window.addEventListener("resize", drawAll);
}

if (typeof document !== "undefined") beginVersus();
