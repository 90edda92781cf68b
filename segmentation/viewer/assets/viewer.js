"use strict";
// The page: which case, which time, how it looks. Volumes come as scripts, which call lungcast.frame.
(() => {
  const at = (id) => document.getElementById(id);
  const LAYERS = ["ct", "lungs", "infection", "probability"];
  const INFECTION = { R: [0, 86, 213], G: [0, 180, 94], B: [0, 233, 0], A: [0, 255, 255], I: [0, 1, 2], labels: ["", "GGO", "consolidation"] };
  const LUNGS = { R: [0, 0], G: [0, 158], B: [0, 115], A: [0, 255], I: [0, 1], labels: ["", "lungs"] };
  const KEPT_FRAMES = 24; // decoded volumes in memory

  let cases = [], current = 0, playing = null, asked = 0, placed = -1, joined = false;
  const waiting = new Map(); // scripts on their way: key to [resolve]
  const decoded = new Map(); // key to promise of {layer: NVImage} or {error}
  const panes = {};

  const frames = () => cases[current].frames;
  const shownFrame = () => frames()[+at("day").value];
  const say = (text) => { at("message").hidden = !text; at("message").textContent = text; };
  const ml = (value) => (value == null ? "unknown" : `${value.toFixed(1)} ml`);

  const script = (number, index) => new Promise((resolve) => {
    waiting.set(`${number}-${index}`, resolve);
    const element = document.createElement("script");
    element.src = `data/case${number}-frame${index}.js`;
    element.addEventListener("error", () => resolve({ error: "the volumes could not be loaded" }));
    element.addEventListener("load", () => element.remove());
    document.body.append(element);
  });

  const decode = async (number, index) => {
    const found = await script(number, index);
    const frame = cases[number].frames[index];
    if (found.error) return { error: found.error };
    frame.volumes = found.volumes;
    if (number === current) drawCurves(at("curves"), frames(), shownFrame(), choose, cases[current].observed);
    const images = {};
    for (const name of LAYERS.filter((layer) => found.layers[layer])) {
      const options = { base64: found.layers[name], name: `${name}.nii.gz`, colorbarVisible: false };
      if (name === "ct") Object.assign(options, { colormap: "gray", ...window_() });
      if (name === "lungs") Object.assign(options, { cal_min: 0, cal_max: 1 });
      if (name === "infection") Object.assign(options, { cal_min: 0, cal_max: 2 });
      if (name === "probability") Object.assign(options, { colormap: "viridis", cal_min: 25, cal_max: 255 });
      const image = await niivue.NVImage.loadFromBase64(options);
      if (name === "infection") image.setColormapLabel(INFECTION);
      if (name === "lungs") image.setColormapLabel(LUNGS);
      images[name] = image;
    }
    return { images, place: found.place_mm };
  };

  const load = (number, index) => {
    const key = `${number}-${index}`;
    if (!decoded.has(key)) {
      decoded.set(key, decode(number, index));
      while (decoded.size > KEPT_FRAMES) decoded.delete(decoded.keys().next().value);
    } else { // the latest used go last
      const held = decoded.get(key);
      decoded.delete(key);
      decoded.set(key, held);
    }
    return decoded.get(key);
  };

  const window_ = () => {
    const [level, width] = at("window").value.split(",").map(Number);
    return { cal_min: level - width / 2, cal_max: level + width / 2 };
  };

  const told = (where) => { // NiiVue's own words name no unit
    const [x, y, z] = where.mm;
    const side = (value, more, less) => `${value >= 0 ? more : less} ${Math.abs(value).toFixed(0)}`;
    const place = `${side(x, "R", "L")}, ${side(y, "A", "P")}, ${side(z, "S", "I")} mm`;
    const parts = where.values.map(({ name, value }) => {
      if (name.startsWith("ct")) return `${Math.round(value)} HU`;
      if (name.startsWith("probability")) return `probability ${(value / 255).toFixed(2)}`;
      if (name.startsWith("lungs")) return value > 0 ? "lungs" : "";
      return INFECTION.labels[Math.round(value)] ?? "";
    });
    return `${place}: ${parts.filter(Boolean).join(", ")}`;
  };

  const pane = async (id) => {
    if (panes[id]) return panes[id];
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], isRadiologicalConvention: true, loadingText: "", dragAndDropEnabled: false,
      logLevel: "error", crosshairColor: [1, 1, 0.6, 0.5], crosshairWidth: 0.5, show3Dcrosshair: true,
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS, isColorbar: false, isNearestInterpolation: false,
    });
    await nv.attachToCanvas(at(id));
    nv.onLocationChange = (where) => { // while comparing both panes say where they are: of the one in use
      const used = document.activeElement === at("right") ? "right" : "left";
      if (id === used) at("place").textContent = told(where);
    };
    panes[id] = nv;
    return nv;
  };

  const layout = (nv) => {
    const types = { multi: nv.sliceTypeMultiplanar, axial: nv.sliceTypeAxial, coronal: nv.sliceTypeCoronal, sagittal: nv.sliceTypeSagittal, render: nv.sliceTypeRender };
    nv.setMultiplanarLayout(niivue.MULTIPLANAR_TYPE.GRID);
    nv.setSliceType(types[at("layout").value]);
    nv.setClipPlane([0.1, 180, 20]); // the front is cut away: the lungs' inside is seen
  };

  // Volumes are cut to their own lungs, and each fills its canvas: side by side they must have one scale.
  const sameScale = (...both) => {
    const pieces = both.map((nv) => {
      const [low, high] = [nv.frac2mm([0, 0, 0]), nv.frac2mm([1, 1, 1])];
      const [x, y, z] = [0, 1, 2].map((axis) => Math.abs(high[axis] - low[axis]));
      const needed = { axial: [x, y], coronal: [x, z], sagittal: [y, z] }[at("layout").value] ?? [x + y, y + z];
      const scale = Math.min(nv.canvas.clientWidth / needed[0], nv.canvas.clientHeight / needed[1]);
      return { nv, scale, centre: [0, 1, 2].map((axis) => (low[axis] + high[axis]) / 2) };
    });
    const least = Math.min(...pieces.map(({ scale }) => scale));
    for (const { nv, scale, centre } of pieces) {
      const zoom = both.length > 1 ? least / scale : 1;
      nv.scene.pan2Dxyzmm = [...centre.map((mm) => mm * (1 - zoom)), zoom];
      nv.drawScene();
    }
  };

  const join = (one, two) => {
    joined = true;
    sameScale(one, two);
    // Not NiiVue's "2d": it would copy the zoom of one pane over that of the other.
    one.broadcastTo(two, { crosshair: true, "3d": true });
    two.broadcastTo(one, { crosshair: true, "3d": true });
  };

  const part = () => {
    joined = false;
    panes.left.broadcastTo([]);
    panes.right.broadcastTo([]);
    sameScale(panes.left);
  };

  const goTo = (nv, place) => {
    if (!place) return;
    nv.scene.crosshairPos = nv.mm2frac([-place[0], -place[1], place[2]]); // LPS to RAS
    nv.drawScene();
  };

  const put = (nv, images) => {
    const first = nv.volumes.length === 0;
    const order = LAYERS.filter((name) => images[name]);
    for (const name of order) {
      images[name].opacity = name === "ct" ? 1 : +at(name).value / 100;
      if (name === "ct") Object.assign(images.ct, window_());
    }
    const volumes = order.map((name) => images[name]);
    if (first) { for (const volume of volumes) nv.addVolume(volume); layout(nv); return; }
    [nv.volumes, nv.back, nv.overlays] = [volumes, volumes[0], volumes.slice(1)];
    nv.updateGLVolume();
  };

  const caption = (frame) => {
    const day = frame.day === null ? "" : `, day ${+frame.day.toFixed(2)}`;
    return `${frame.label}${frame.label.startsWith("day") ? "" : day}, ${frame.kind}`;
  };

  const summary = (frame) => `${caption(frame)}: infected ${ml(frame.volumes.infected_ml)}, GGO ${ml(frame.volumes.ggo_ml)}, consolidation ${ml(frame.volumes.consolidation_ml)}`;

  const show = async () => {
    const mine = ++asked, number = current, index = +at("day").value;
    at("day").setAttribute("aria-valuetext", caption(shownFrame()));
    at("now").textContent = `${caption(shownFrame())}: loading`;
    drawCurves(at("curves"), frames(), shownFrame(), choose, cases[current].observed);
    const left = await load(number, index);
    if (mine !== asked) return;
    if (left.error) { say(left.error); at("now").textContent = caption(shownFrame()); return; }
    say("");
    const nv = await pane("left");
    put(nv, left.images);
    if (placed !== number) goTo(nv, left.place); // where there is something to see; later the user chooses
    if (joined && at("second").hidden) part();
    placed = number;
    at("name-left").textContent = caption(shownFrame());
    at("now").textContent = summary(shownFrame());
    for (const name of ["lungs", "infection", "probability"]) at(name).disabled = !left.images[name];
    drawCurves(at("curves"), frames(), shownFrame(), choose, cases[current].observed);
    const other = at("compare").value;
    if (other !== "") {
      const right = await load(number, +other);
      if (mine !== asked) return;
      if (right.error) { say(right.error); return; }
      at("second").hidden = false;
      at("name-right").textContent = summary(frames()[+other]); // before the canvas is measured
      const [one, two] = [await pane("left"), await pane("right")];
      await new Promise(requestAnimationFrame);
      one.resizeListener();
      two.resizeListener();
      put(two, right.images);
      join(one, two);
      two.scene.crosshairPos = two.mm2frac(one.frac2mm(one.scene.crosshairPos).slice(0, 3));
      two.drawScene();
    }
    document.body.dataset.shown = `${number}-${index}`;
    const next = index + 1;
    if (next < frames().length) load(number, next); // so that playing does not stop
  };

  const choose = (index) => { at("day").value = index; show(); };

  const open = (number) => {
    stop();
    current = number;
    const count = frames().length;
    at("day").max = count - 1;
    at("day").value = 0;
    at("time").hidden = count < 2;
    at("about").textContent = cases[current].text;
    at("compare").replaceChildren(new Option("nothing", ""), ...frames().map((frame, index) => new Option(caption(frame), index)));
    at("second").hidden = true;
    say("");
    show();
  };

  const stop = () => {
    clearTimeout(playing);
    playing = null;
    at("play").textContent = "Play";
    at("play").setAttribute("aria-pressed", "false");
  };

  const step = async () => {
    if (playing === null) return;
    const next = (+at("day").value + 1) % frames().length;
    at("day").value = next;
    await show();
    if (playing !== null) playing = setTimeout(step, 500);
  };

  const toggle = () => {
    if (playing !== null) { stop(); return; }
    at("play").textContent = "Stop";
    at("play").setAttribute("aria-pressed", "true");
    playing = setTimeout(step, 0);
  };

  const restyle = () => {
    for (const nv of Object.values(panes)) {
      for (const volume of nv.volumes) {
        const name = volume.name.split(".")[0];
        if (name === "ct") Object.assign(volume, window_());
        else volume.opacity = +at(name).value / 100;
      }
      nv.updateGLVolume();
    }
  };

  const MOVES = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };

  at("day").addEventListener("input", () => { stop(); show(); });
  at("case").addEventListener("change", () => open(+at("case").value));
  at("compare").addEventListener("change", async () => {
    at("second").hidden = at("compare").value === "";
    await new Promise(requestAnimationFrame);
    panes.left?.resizeListener();
    show();
  });
  at("layout").addEventListener("change", () => {
    Object.values(panes).forEach(layout);
    const both = [panes.left, at("second").hidden ? null : panes.right].filter((nv) => nv?.volumes.length);
    if (both.length) sameScale(...both);
  });
  at("play").addEventListener("click", toggle);
  for (const id of ["window", "infection", "lungs", "probability"]) at(id).addEventListener("input", restyle);
  for (const id of ["left", "right"]) {
    at(id).addEventListener("keydown", (event) => {
      if (!MOVES[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      panes[id]?.moveCrosshairInVox(...MOVES[event.key]);
    }, true);
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || ["BUTTON", "SELECT", "SUMMARY"].includes(event.target.tagName)) return;
    event.preventDefault();
    if (!at("time").hidden) toggle();
  });

  globalThis.lungcast = {
    index: (content) => {
      cases = content.cases;
      document.title = content.title;
      at("title").textContent = content.title;
      at("foot").textContent += ` lungcast ${content.version}.`;
      at("case").replaceChildren(...cases.map((one, index) => new Option(one.title, index)));
      if (content.served) setInterval(() => fetch("alive").catch(() => say("lungcast has ended: start it again")), 1000);
      open(0);
    },
    panes, // for tests
    frame: (number, index, content) => waiting.get(`${number}-${index}`)?.(content),
  };
})();
