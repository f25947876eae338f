// The page: a picture on one side, a conversation about it on the other.

import * as server from "/page/server.js";
import { Stage, hue } from "/page/stage.js";

const REMEMBERED = 4; // turns that go along with a question
const BRACKET = /\[[0-9.,\s]+\]/g;
const $ = (id) => document.getElementById(id);

let model = null;
let uri = null; // of the picture
let turns = []; // {question, answer, boxes}
let isBusy = false;

const stage = new Stage($("stage"), (box) => {
  $("chip").hidden = !box;
  $("chip-text").textContent = box ? "this place" : "";
  $("question").placeholder = box ? "What is here?" : "Ask, or find ...";
});

// ------------------------------------------------------------------ picture

async function open(blob) {
  if (!blob?.type.startsWith("image/")) return;
  const reader = new FileReader();
  reader.onload = () => show(reader.result).catch(tell);
  reader.readAsDataURL(blob);
}

async function show(found, current = null) {
  await stage.show(found);
  uri = found;
  $("drop").hidden = true;
  $("stage").hidden = $("tools").hidden = false;
  seen(false);
  fresh();
  for (const button of $("examples").children) {
    button.setAttribute("aria-current", button === current);
  }
}

async function seen(isOn) {
  if (isOn) {
    $("square").src = await server.square(uri);
    const how = { pad: "padded to a square", center_crop: "its middle, cropped",
      square: "stretched to a square" }[model.geometry];
    $("seen").querySelector("figcaption").textContent =
      `${model.image_size} × ${model.image_size} pixels, ${how}`;
  }
  $("stage").hidden = isOn;
  $("seen").hidden = !isOn;
  $("as-seen").setAttribute("aria-pressed", isOn);
}

async function offer() {
  const names = await server.examples();
  for (const name of names) {
    const button = document.createElement("button");
    const image = document.createElement("img");
    button.type = "button";
    image.src = `/examples/${name}`;
    image.alt = `Example ${name}`;
    button.append(image);
    button.onclick = async () => {
      const blob = await (await fetch(image.src)).blob();
      const reader = new FileReader();
      reader.onload = () => show(reader.result, button).catch(tell);
      reader.readAsDataURL(blob);
    };
    $("examples").append(button);
  }
  $("examples").hidden = !names.length;
  $("examples").firstElementChild?.click();
  return names.length > 0;
}

// ------------------------------------------------------------- conversation

function fresh() {
  turns = [];
  stage.clear();
  $("talk").replaceChildren();
  $("hello").hidden = false;
  tell(null);
}

function tell(error) {
  $("error").hidden = !error;
  $("error").textContent = error?.message ?? "";
}

function messages(question, before = turns) {
  const found = before.slice(-REMEMBERED).flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answer },
  ]);
  found.push({ role: "user", content: question });
  const picture = { type: "image_url", image_url: { url: uri } };
  const text = { type: "text", text: found[0].content };
  found[0] = { role: "user", content: uri ? [picture, text] : [text] };
  return found;
}

async function ask(typed) {
  const box = stage.selected;
  if (isBusy || (!typed && !box)) return;
  const place = box && `[${placed(box).join(",")}]`;
  const question = !place ? typed
    : !typed ? `What is at ${place}?`
    : typed.replace(/\bhere\b|$/i, (word) => (word ? `at ${place}` : ` ${place}`));
  busy(true);
  tell(null);
  $("hello").hidden = true;
  const asked = line("asked", typed || "What is here?");
  const answered = line("answered", "…");
  try {
    const all = !box && /^find\s+every\s+(.+?)[.?!]?$/i.exec(typed);
    const one = !box && /^find\s+(.+?)[.?!]?$/i.exec(typed);
    const turn = all ? await findEvery(all[1])
      : one ? await find(one[1])
      : await talk(question, answered);
    turns.push(turn);
    write(answered, turn);
    stage.select(null);
  } catch (error) {
    asked.remove();
    answered.remove();
    $("question").value ||= typed;
    tell(error);
  }
  busy(false);
}

/** What the model reads of a place: a box, or its center. */
function placed([x1, y1, x2, y2]) {
  const middle = [(x1 + x2) / 2, (y1 + y2) / 2].map((v) => Math.round(v));
  return model.location === "point" ? middle : [x1, y1, x2, y2];
}

/** Asks with the turns before, as many of them as there is room for. */
async function talk(question, answered) {
  const grow = (text) => {
    answered.textContent = text || "…";
    answered.scrollIntoView({ block: "nearest" });
  };
  for (let before = turns; ; before = before.slice(-REMEMBERED).slice(1)) {
    try {
      const asked = messages(question, before);
      const { content, boxes } = await server.stream(model.id, asked, grow);
      return { question, answer: content, boxes };
    } catch (error) {
      if (error.code !== "context_length_exceeded" || !before.length) throw error;
    }
  }
}

/** Asks freely, so that it can be denied, and for one box that can be read.
 *  What was said before does not matter for where things are. */
async function find(name) {
  const bare = withoutArticle(name);
  const question = `Where is the ${bare}?`;
  const asked = messages(question, []);
  const [free, sure] = await Promise.all([
    server.answer(model.id, asked, {}),
    server.answer(model.id, asked, { constrained: true }),
  ]);
  const found = free.boxes.length ? sure : free;
  return { question, answer: found.content, boxes: found.boxes, name: bare };
}

/** Asks for every object of some categories, "cup, plate and ball". */
async function findEvery(names) {
  if (!model.lists) {
    throw new Error("This model was not trained to find every object of a kind;"
      + " “find the cup” finds one.");
  }
  const bare = names.split(/\s*,\s*(?:and\s+)?|\s+and\s+/i).map(withoutArticle);
  const question = `Find every ${bare.join(", ")}.`;
  const found = await server.answer(
    model.id, messages(question, []), { constrained: true });
  return { question, answer: found.content, boxes: found.boxes, lists: true };
}

function withoutArticle(name) {
  return name.trim().replace(/^(the|a|an)\s+/i, "");
}

function line(kind, text) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = text;
  $("talk").append(item);
  item.scrollIntoView({ block: "nearest" });
  return item;
}

/** Writes an answer; each box is a word that lights up in the picture. */
function write(item, turn) {
  if (turn.name && turn.boxes.length) {
    item.replaceChildren(...turn.boxes.map((box) => mark(box, turn.name)));
    return;
  }
  if (turn.lists) {
    const rest = turn.answer.replace(BRACKET, "");
    const denied = [...rest.matchAll(/(?:^|\. )(no [^.]+)/g)].map((m) => m[1]);
    const found = turn.boxes.map((box) => mark(box, box.label));
    item.replaceChildren(...found.flatMap((x) => [x, " "]), denied.join(", "));
    return;
  }
  const parts = turn.answer.split(BRACKET);
  const brackets = turn.answer.match(BRACKET) ?? [];
  const boxes = brackets.length === turn.boxes.length ? turn.boxes : [];
  item.replaceChildren(parts[0]);
  brackets.forEach((text, i) => {
    const box = boxes[i];
    const whole = text.replace(/\d+\.\d+/g, (number) => Math.round(number));
    item.append(box ? mark(box, whole) : text, parts[i + 1]);
  });
}

function mark(found, text) {
  const index = stage.add(found.box);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "mark";
  button.style.setProperty("--hue", hue(index));
  button.textContent =
    found.score == null ? text : `${text} · ${found.score.toFixed(2)}`;
  button.title = `[${found.box.join(", ")}] in pixels` +
    (found.score == null ? "" : `; the number is the IoU to expect`);
  button.onmouseenter = button.onfocus = () => stage.stress(index);
  button.onmouseleave = button.onblur = () => stage.stress(-1);
  return button;
}

function busy(isNow) {
  isBusy = isNow;
  $("send").disabled = isNow;
  $("right").setAttribute("aria-busy", isNow);
}

async function copy() {
  const picture = { width: stage.width ?? null, height: stage.height ?? null };
  const found = { model: model?.id, locations: "pixels", picture, turns };
  const text = JSON.stringify(found, null, 2);
  await navigator.clipboard.writeText(text);
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy as JSON"), 1500);
}

// -------------------------------------------------------------------- start

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = $("question").value.trim();
  $("question").value = "";
  ask(typed);
});
$("stage").addEventListener("asked", () => ask(""));
$("unselect").onclick = () => stage.select(null);
$("choose").onclick = $("change").onclick = () => $("file").click();
$("file").onchange = () => open($("file").files[0]);
$("as-seen").onclick = () =>
  seen($("as-seen").getAttribute("aria-pressed") !== "true").catch(tell);
$("fresh").onclick = fresh;
$("copy").onclick = () => copy().catch(tell);

document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) open(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () =>
  document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  open(event.dataTransfer.files[0]);
});

function suggest(texts) {
  for (const text of texts) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.onclick = () => ask(text);
    $("ideas").append(button);
  }
}

server.onToken(() => new Promise((resolve) => {
  $("token").onclose = () => resolve($("bearer").value.trim());
  $("token").showModal();
}));

try {
  model = await server.model();
  $("model").textContent = model.id;
  const thing = (await offer()) ? "heart" : "cup"; // the first example has two
  suggest([`find the ${thing}`, ...(model.lists ? [`find every ${thing}`] : []),
    "Is there a cup in the image?"]);
} catch (error) {
  tell(error);
}
