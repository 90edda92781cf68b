"use strict";
// Infected volume over days as SVG; a point of every frame leads to it. Filled points are observed.
(() => {
  const SERIES = [
    ["infected_ml", "infected", "var(--infected)", ""],
    ["ggo_ml", "GGO", "var(--ggo)", "6 3"],
    ["consolidation_ml", "consolidation", "var(--consolidation)", "2 3"],
  ];
  const WIDTH = 560, HEIGHT = 136, LEFT = 46, RIGHT = 110, TOP = 8, BOTTOM = 30;

  const made = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const ticks = (low, high, wanted) => {
    const span = high - low || 1;
    const rough = span / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const found = [];
    for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) found.push(+value.toFixed(6));
    return found;
  };

  const drawCurves = (where, frames, now, choose, beside = []) => {
    where.replaceChildren();
    const known = frames.filter((frame) => frame.day !== null && frame.volumes.infected_ml != null);
    if (known.length === 0) return;
    const own = known.map((frame) => frame.day);
    let [first, last] = [Math.min(...own), Math.max(...own)];
    if (first === last) [first, last] = [first - 1, last + 1];
    const length = last - first; // a scan weeks away would leave no room for the days that can be chosen
    beside = beside.filter((point) => point.day >= first - length && point.day <= last + length);
    [first, last] = [Math.min(first, ...beside.map((point) => point.day)), Math.max(last, ...beside.map((point) => point.day))];
    const highest = Math.max(1e-6, ...known.map((frame) => frame.volumes.infected_ml), ...beside.map((point) => point.infected_ml)) * 1.05;
    const x = (day) => LEFT + ((day - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
    const y = (ml) => HEIGHT - BOTTOM - (ml / highest) * (HEIGHT - TOP - BOTTOM);
    const svg = made("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "xMinYMin meet" });
    svg.append(made("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}` }));
    for (const day of ticks(first, last, 6)) {
      svg.append(made("text", { x: x(day), y: HEIGHT - BOTTOM + 13, "text-anchor": "middle" }, `${day}`));
    }
    for (const ml of ticks(0, highest, 3)) {
      svg.append(made("text", { x: LEFT - 5, y: y(ml) + 4, "text-anchor": "end" }, `${ml}`));
    }
    svg.append(made("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, "days"));
    svg.append(made("text", { x: 10, y: HEIGHT / 2, transform: `rotate(-90 10 ${HEIGHT / 2})`, "text-anchor": "middle" }, "ml"));
    if (now.day !== null) svg.append(made("path", { class: "now", d: `M${x(now.day)} ${TOP}V${HEIGHT - BOTTOM}` }));
    SERIES.forEach(([key, name, colour, dash], row) => {
      const points = known.filter((frame) => frame.volumes[key] != null);
      const line = points.map((frame, index) => `${index ? "L" : "M"}${x(frame.day)} ${y(frame.volumes[key])}`).join("");
      if (points.length > 1) svg.append(made("path", { class: "curve", d: line, style: `stroke:${colour}`, "stroke-dasharray": dash }));
      for (const frame of points) {
        const fill = frame.kind === "observed" ? colour : "var(--back)";
        const point = made("circle", { cx: x(frame.day), cy: y(frame.volumes[key]), r: 4, style: `stroke:${colour};fill:${fill}` });
        point.append(made("title", {}, `${frame.label}, ${frame.kind}: ${name} ${frame.volumes[key].toFixed(1)} ml`));
        point.addEventListener("click", () => choose(frames.indexOf(frame)));
        svg.append(point);
      }
      if (points.length) {
        const at = TOP + 12 + row * 18, from = WIDTH - RIGHT + 12;
        svg.append(made("path", { class: "curve", d: `M${from} ${at - 4}h20`, style: `stroke:${colour}`, "stroke-dasharray": dash }));
        svg.append(made("text", { x: from + 25, y: at }, name));
      }
    });
    for (const point of beside) { // no frame of its own: nothing to click
      const mark = made("rect", { class: "beside", x: x(point.day) - 4, y: y(point.infected_ml) - 4, width: 8, height: 8 });
      mark.append(made("title", {}, `${point.label}, observed: infected ${point.infected_ml.toFixed(1)} ml`));
      svg.append(mark);
    }
    const marks = `${known.some((frame) => frame.kind === "observed") ? "● " : ""}${beside.length ? "■ " : ""}`;
    if (marks) svg.append(made("text", { x: WIDTH - RIGHT + 12, y: TOP + 12 + 58 }, `${marks}observed`));
    where.append(svg);
  };
  globalThis.drawCurves = drawCurves;
})();
