// The picture with its maps: everything is drawn here, from one answer of the server; no further request is made.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const canvas = part("canvas"), pen = canvas.getContext("2d");
const VIEWS = { classes: "Classes", latent: "Latent classes", sure: "Confidence", photo: "Photo" };
const RAMP = [[68, 1, 84], [33, 145, 140], [253, 231, 37]];
let shown = null, photo = null, view = "classes", at = null, turn = 0;

const unpacked = async (text) => {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const made = (tag, className, text) => {
  const one = document.createElement(tag);
  one.className = className;
  one.textContent = text ?? "";
  return one;
};

const ramp = (percent) => {
  const place = Math.min(percent, 99.9) / 50, low = RAMP[Math.floor(place)], high = RAMP[Math.floor(place) + 1];
  return low.map((from, channel) => from + (high[channel] - from) * (place % 1));
};

// A picture of the answer's size, from a colour for each value of a map.
const painted = (values, colors) => {
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [shown.width, shown.height];
  const image = new ImageData(shown.width, shown.height), words = new Uint32Array(image.data.buffer);
  const table = new Uint32Array(new Uint8Array(colors.flatMap((color) => [...color, 255])).buffer);
  for (let pixel = 0; pixel < values.length; pixel++) words[pixel] = table[values[pixel]];
  sheet.getContext("2d").putImageData(image, 0, 0);
  return sheet;
};

const layerOf = (run) => (view === "latent" ? run.latent : run.classes);

const sheetOf = (run) => {
  if (view === "photo" || !layerOf(run)) return null;
  run.sheets[view] ??= view === "sure"
    ? painted(run.classes.sure, Array.from({ length: 101 }, (_, percent) => ramp(percent)))
    : painted(layerOf(run).ids, layerOf(run).colors);
  return run.sheets[view];
};

const split = () => (shown.runs.length > 1 ? Math.round((part("divide").value / 100) * shown.width) : shown.width);

const draw = () => {
  pen.globalAlpha = 1;
  pen.drawImage(photo, 0, 0, shown.width, shown.height);
  pen.globalAlpha = part("opacity").value / 100;
  const spans = [[0, split()], [split(), shown.width - split()]];
  shown.runs.forEach((run, side) => {
    const [start, wide] = spans[side], sheet = sheetOf(run);
    if (sheet && wide > 0) pen.drawImage(sheet, start, 0, wide, shown.height, start, 0, wide, shown.height);
  });
  pen.globalAlpha = 1;
};

// What only the screen shows and no file: where the runs meet, and the pointer.
const mark = () => {
  draw();
  const thick = Math.max(1, shown.width / 400);
  if (shown.runs.length > 1) {
    pen.fillStyle = "#fff";
    pen.fillRect(split() - thick, 0, 2 * thick, shown.height);
  }
  if (at && document.activeElement === canvas) {
    for (const [color, line] of [["#000", 3 * thick], ["#fff", thick]]) {
      [pen.strokeStyle, pen.lineWidth] = [color, line];
      pen.beginPath();
      pen.arc(at[0] + 0.5, at[1] + 0.5, 8 * thick, 0, 7);
      pen.stroke();
    }
  }
};

const swatch = (color) => {
  const one = made("span", "ls-swatch");
  one.style.background = `rgb(${color.join(" ")})`;
  return one;
};

const said = (layer, pixel) => `${layer.names[layer.ids[pixel]]}, ${layer.sure[pixel]} %`;

const tell = () => {
  const pixel = at && at[1] * shown.width + at[0], lines = [];
  for (const run of at ? shown.runs : []) {
    const line = made("div", "");
    const name = shown.runs.length > 1 ? `${run.name}: ` : "";
    line.append(swatch(run.classes.colors[run.classes.ids[pixel]]), `${name}${said(run.classes, pixel)}`);
    if (run.latent) {
      const color = swatch(run.latent.colors[run.latent.ids[pixel]]);
      color.style.marginLeft = "1em";
      line.append(color, `latent ${said(run.latent, pixel)}`);
    }
    lines.push(line);
  }
  part("readout").replaceChildren(...(lines.length ? lines : ["Point at the picture, or tap it, to read the class."]));
  const here = at && view !== "sure" ? shown.runs.map((run, side) => `${side}:${layerOf(run)?.ids[pixel]}`) : [];
  for (const item of part("legend").children) {
    const keys = (item.dataset.keys ?? "").split(" ");
    item.classList.toggle("ls-here", here.some((key) => keys.includes(key)));
  }
};

const shares = (layer) => {
  const counts = new Array(layer.names.length).fill(0);
  for (const id of layer.ids) counts[id]++;
  return counts.map((count) => (100 * count) / layer.ids.length);
};

const percent = (share) => (share > 0 && share < 1 ? "< 1 %" : `${Math.round(share)} %`);

// Entries of the classes in the picture, by area; of runs that share them, with the area in each.
const entries = (runs) => {
  const areas = runs.map((run) => shares(layerOf(run))), layer = layerOf(runs[0]);
  const largest = (id) => Math.max(...areas.map((area) => area[id]));
  const ids = layer.names.map((_, id) => id).filter((id) => largest(id) > 0);
  return ids.sort((one, other) => largest(other) - largest(one)).map((id) => {
    const item = made("li", ""), figures = areas.map((area) => percent(area[id])).join(" | ");
    item.dataset.keys = runs.map((run) => `${shown.runs.indexOf(run)}:${id}`).join(" ");
    item.append(swatch(layer.colors[id]), made("span", "ls-name", layer.names[id]), made("span", "ls-share", figures));
    return item;
  });
};

const legend = () => {
  const runs = shown.runs.filter(layerOf), items = [];
  if (view === "sure") {
    items.push(made("li", ""));
    items[0].append("unsure", made("span", "ls-ramp"), "sure");
  } else if (view === "latent") {
    for (const run of runs) {
      if (shown.runs.length > 1) items.push(made("li", "ls-head", run.name));
      items.push(...entries([run]));
    }
  } else if (view === "classes") {
    items.push(...entries(runs));
  }
  part("legend").replaceChildren(...items);
};

const again = () => { legend(); mark(); tell(); };

const choices = () => {
  const known = Object.keys(VIEWS).filter((name) => name !== "latent" || shown.runs.some((run) => run.latent));
  if (!known.includes(view)) view = "classes";
  part("views").replaceChildren(part("views").firstElementChild, ...known.map((name) => {
    const label = made("label", ""), button = document.createElement("input");
    Object.assign(button, { type: "radio", name: "ls-view", value: name, checked: name === view });
    button.addEventListener("change", () => { view = name; again(); });
    label.append(button, VIEWS[name]);
    return label;
  }));
};

const files = () => {
  const overlay = made("a", "", "Download overlay");
  Object.assign(overlay, { href: "#", download: "overlay.png" });
  // Drawn as it is asked for; the mark of the pointer and of the divide are not on it.
  for (const event of ["pointerdown", "focus", "click"]) {
    overlay.addEventListener(event, () => { draw(); overlay.href = canvas.toDataURL("image/png"); mark(); });
  }
  part("files").replaceChildren(overlay, ...shown.runs.map((run, side) => {
    const several = shown.runs.length > 1;
    const link = made("a", "", several ? `Download mask of ${run.name}` : "Download mask");
    Object.assign(link, { href: run.mask, download: several ? `mask-${side + 1}.png` : "mask.png" });
    return link;
  }));
};

const point = (event) => {
  if (!shown) return;
  const box = canvas.getBoundingClientRect();
  move(((event.clientX - box.left) / box.width) * shown.width, ((event.clientY - box.top) / box.height) * shown.height);
};

const move = (x, y) => {
  const inside = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
  at = [inside(x, shown.width), inside(y, shown.height)];
  mark();
  tell();
};

const press = (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!shown || !way) return;
  event.preventDefault();
  const step = Math.max(1, Math.round(shown.width / (event.shiftKey ? 200 : 40)));
  const from = at ?? [shown.width / 2, shown.height / 2];
  move(from[0] + way[0] * step, from[1] + way[1] * step);
};

const show = async () => {
  const mine = ++turn, answer = JSON.parse(props.value || "{}");
  if (!answer.runs) {
    shown = null;
    part("body").hidden = true;
    part("message").hidden = false;
    part("message").classList.toggle("ls-error", Boolean(answer.error));
    part("message").textContent = answer.error ?? "Drop a photo, take one with the camera, or choose an example.";
    return;
  }
  const picture = new Image();
  picture.src = answer.photo;
  await picture.decode();
  for (const run of answer.runs) {
    run.sheets = {};
    for (const layer of [run.classes, run.latent].filter(Boolean)) {
      [layer.ids, layer.sure] = await Promise.all([unpacked(layer.ids), unpacked(layer.sure)]);
    }
  }
  if (mine !== turn) return; // a newer answer came meanwhile
  [shown, photo, at] = [answer, picture, null];
  [canvas.width, canvas.height] = [shown.width, shown.height];
  const two = shown.runs.length > 1;
  part("message").hidden = true;
  part("body").hidden = false;
  part("sides").hidden = part("divide").hidden = !two;
  part("frame").style.maxWidth = `calc(75vh * ${shown.width / shown.height})`;
  part("left").textContent = two ? `◀ ${shown.runs[0].name}` : "";
  part("right").textContent = two ? `${shown.runs[1].name} ▶` : "";
  part("note").textContent = shown.note;
  choices();
  files();
  again();
};

canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerdown", point);
canvas.addEventListener("keydown", press);
for (const event of ["focus", "blur"]) canvas.addEventListener(event, () => shown && mark());
for (const name of ["opacity", "divide"]) part(name).addEventListener("input", () => shown && mark());
watch("value", show);
show();
