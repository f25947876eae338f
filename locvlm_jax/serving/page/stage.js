// The picture, the boxes drawn on it, and the box that is being selected.
// Boxes are [x1, y1, x2, y2] in pixels of the picture.

const SVG = "http://www.w3.org/2000/svg";
const HUES = ["#e0795a", "#4f8fd0", "#c9a227", "#58a869", "#a678c9", "#d2698f"];
const POINT = 0.1; // a click selects a box of this share of the shorter side

export const hue = (index) => HUES[index % HUES.length];

export class Stage {
  constructor(element, changed) {
    this.element = element;
    this.image = element.querySelector("img");
    this.overlay = element.querySelector("svg");
    this.changed = changed;
    this.selected = null;
    this.found = [];
    this.start = null;
    element.addEventListener("pointerdown", (e) => this.#down(e));
    element.addEventListener("pointermove", (e) => this.#move(e));
    element.addEventListener("pointerup", (e) => this.#up(e));
    element.addEventListener("pointercancel", () => (this.start = null));
    element.addEventListener("keydown", (e) => this.#key(e));
  }

  async show(uri) {
    this.image.src = uri;
    await this.image.decode();
    this.width = this.image.naturalWidth;
    this.height = this.image.naturalHeight;
    this.element.style.setProperty("--ratio", this.width / this.height);
    this.overlay.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.overlay.setAttribute("preserveAspectRatio", "none");
    this.found = [];
    this.select(null);
  }

  add(box) {
    const [x1, y1, x2, y2] =
      box.length === 4 ? box : this.#around(box[0], box[1]);
    this.found.push([x1, y1, x2, y2]);
    this.#draw();
    return this.found.length - 1;
  }

  stress(index) {
    this.overlay.querySelectorAll(".found").forEach((rect, i) => {
      rect.classList.toggle("strong", i === index);
    });
  }

  clear() {
    this.found = [];
    this.select(null);
  }

  select(box) {
    this.selected = box && this.#inside(box);
    this.#draw();
    this.changed(this.selected);
  }

  #at(event) {
    const frame = this.element.getBoundingClientRect();
    return [
      ((event.clientX - frame.left) / frame.width) * this.width,
      ((event.clientY - frame.top) / frame.height) * this.height,
    ];
  }

  #around(x, y) {
    const half = (POINT * Math.min(this.width, this.height)) / 2;
    return [x - half, y - half, x + half, y + half];
  }

  #inside([x1, y1, x2, y2]) {
    const clip = (v, most) => Math.round(Math.min(Math.max(v, 0), most) * 10) / 10;
    return [
      clip(Math.min(x1, x2), this.width), clip(Math.min(y1, y2), this.height),
      clip(Math.max(x1, x2), this.width), clip(Math.max(y1, y2), this.height),
    ];
  }

  #down(event) {
    this.start = this.#at(event);
    this.element.setPointerCapture(event.pointerId);
  }

  #move(event) {
    if (this.start && this.#isDrag(event)) {
      this.select([...this.start, ...this.#at(event)]);
    }
  }

  #up(event) {
    if (!this.start) return;
    const box = this.#isDrag(event)
      ? [...this.start, ...this.#at(event)]
      : this.#around(...this.start);
    this.start = null;
    this.select(box);
  }

  #isDrag(event) {
    const [x, y] = this.#at(event);
    const far = Math.min(Math.abs(x - this.start[0]), Math.abs(y - this.start[1]));
    return far > 0.02 * Math.min(this.width, this.height);
  }

  #key(event) {
    const step = 0.02 * Math.min(this.width, this.height);
    const way = {
      ArrowLeft: [-step, 0], ArrowRight: [step, 0],
      ArrowUp: [0, -step], ArrowDown: [0, step],
    }[event.key];
    if (event.key === "Escape") this.select(null);
    if (event.key === "Enter") this.element.dispatchEvent(new Event("asked"));
    if (!way) return;
    event.preventDefault();
    const box = this.selected ?? this.#around(this.width / 2, this.height / 2);
    const [x1, y1, x2, y2] = box;
    const [dx, dy] = way;
    this.select(
      event.shiftKey
        ? [x1, y1, Math.max(x2 + dx, x1 + step), Math.max(y2 + dy, y1 + step)]
        : [x1 + dx, y1 + dy, x2 + dx, y2 + dy],
    );
  }

  #draw() {
    this.overlay.replaceChildren(
      ...this.found.map((box, i) => this.#rect(box, "found", hue(i))),
      ...(this.selected ? [this.#rect(this.selected, "selected", null)] : []),
    );
  }

  #rect([x1, y1, x2, y2], kind, color) {
    const rect = document.createElementNS(SVG, "rect");
    const size = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
    for (const [name, value] of Object.entries(size)) {
      rect.setAttribute(name, Math.max(value, 0));
    }
    rect.setAttribute("class", kind);
    if (color) rect.setAttribute("stroke", color);
    return rect;
  }
}
