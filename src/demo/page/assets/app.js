"use strict";
// The chat page. What users and models wrote only ever becomes text nodes.

const STEPS = ["webhook", "bronze", "asking", "answered", "silver", "sending", "replied"];
const COLUMNS = {
  bronze: ["update_id", "text", "username", "_received_at"],
  silver: ["update_id", "status", "response", "model", "latency_ms"],
  replies: ["update_id", "status", "part", "telegram_message_id", "sent_at"],
};
const WIDE = new Set(["text", "response"]);
const LESSER = new Set(["username", "model", "part"]); // not shown where there is little room
const HEADINGS = { _received_at: "received", latency_ms: "ms", telegram_message_id: "message", sent_at: "sent", username: "user" };
const at = (id) => document.getElementById(id);
const [log, welcome, typing, alertBox, form, field, send] =
  ["log", "welcome", "typing", "alert", "composer", "text", "send"].map(at);

const turns = new Map();   // update_id -> { steps, sentAt }
const replies = new Map(); // message_id -> bubble
let epoch = "", lastNumber = -1, source = null, typingTimer = 0;

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function clock(micros) {
  return new Date(micros / 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function span(micros) {
  const ms = Math.max(0, micros / 1000);
  if (ms < 9.95) return ms.toFixed(1) + " ms";
  return ms < 9999.5 ? Math.round(ms) + " ms" : (ms / 1000).toFixed(1) + " s";
}

/** Lets the oldest messages go, so that a page left open does not grow for ever. */
function trim() {
  while (log.childElementCount > 300) log.firstElementChild.remove();
  for (const known of [turns, replies]) while (known.size > 300) known.delete(known.keys().next().value);
}

/** Runs `change` and keeps the newest message in view if it was. */
function follow(change) {
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  change();
  trim();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

// ---- Text with entities; offsets are UTF-16 units, as in JavaScript strings ----

const TAGS = {
  bold: "strong", italic: "em", underline: "u", strikethrough: "s", code: "code", pre: "pre",
  blockquote: "blockquote", expandable_blockquote: "blockquote", spoiler: "span",
};

function elementOf(entity, text) {
  if (entity.type === "text_link" || entity.type === "url") {
    const address = entity.url || text;
    if (!/^(https?|mailto|tg):/i.test(address)) return make("span");
    const link = make("a");
    link.href = address;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    return link;
  }
  const element = make(TAGS[entity.type] || "span");
  if (entity.type === "pre" && entity.language) element.dataset.language = entity.language;
  if (entity.type === "spoiler") { element.className = "spoiler"; element.tabIndex = 0; }
  return element;
}

const isBlock = (element) => element.tagName === "PRE" || element.tagName === "BLOCKQUOTE";

/** Adds text; beside a block the line breaks that set it apart are not needed, as the block does so itself. */
function addText(parent, text, isBeforeBlock) {
  const isAfterBlock = parent.lastChild instanceof Element && isBlock(parent.lastChild);
  if (isAfterBlock) text = text.replace(/^\n{1,2}/, "");
  if (isBeforeBlock) text = text.replace(/\n{1,2}$/, "");
  if (text) parent.append(text);
}

/** Entities sorted by start, the longer first; one that crosses its parent's end is cut there. */
function render(parent, text, start, end, entities) {
  let position = start;
  for (let i = 0; i < entities.length;) {
    const entity = entities[i];
    const from = Math.max(entity.offset, position);
    const until = Math.min(entity.offset + entity.length, end);
    let next = i + 1;
    while (next < entities.length && entities[next].offset < until) next++;
    if (from < until) {
      const element = elementOf(entity, text.slice(from, until));
      addText(parent, text.slice(position, from), isBlock(element));
      render(element, text, from, until, entities.slice(i + 1, next));
      parent.append(element);
      position = until;
    }
    i = next;
  }
  addText(parent, text.slice(position, end), false);
}

function bubble(className, text, entities, micros) {
  const box = make("div", "bubble " + className);
  const body = make("div", "body");
  const sorted = [...(entities || [])].sort((a, b) => a.offset - b.offset || b.length - a.length);
  render(body, text, 0, text.length, sorted);
  const time = make("time", "", clock(micros));
  time.dateTime = new Date(micros / 1000).toISOString();
  body.append(time);
  box.append(body);
  return box;
}

// ---- What happens ----

const handlers = {
  user(event) {
    welcome.remove();
    const turn = make("article", "turn");
    const list = make("ol", "hops");
    list.setAttribute("aria-live", "off");
    list.setAttribute("aria-label", "The way of this message");
    const steps = new Map(STEPS.map((name) => {
      const item = make("li", "hop");
      item.append(make("i"), make("span", "name", name), make("span", "at"), make("span", "detail"));
      list.append(item);
      return [name, item];
    }));
    steps.get("webhook").classList.add("next");
    turn.append(bubble(event.pressed ? "mine pressed" : "mine", event.text, [], event.at), list);
    turns.set(event.update_id, { steps, sentAt: event.at });
    follow(() => log.append(turn));
    log.scrollTop = log.scrollHeight;
  },
  delivery(event) {
    const status = event.status ? String(event.status) : "no answer";
    light(event.update_id, "webhook", event.at, status, !event.acked);
  },
  hop(event) {
    light(event.update_id, event.step, event.at, event.detail, /^(failed|unknown)/.test(event.detail));
    if (["bronze", "silver", "replied"].includes(event.step)) refreshSoon();
  },
  reply(event) {
    showTyping(false);
    const box = bubble("theirs", event.text, event.entities, event.at);
    addButtons(box, event);
    replies.set(event.message_id, box);
    follow(() => log.append(box));
    refreshSoon();
  },
  edit(event) {
    const old = replies.get(event.message_id);
    if (!old) return handlers.reply(event);
    const box = bubble("theirs", event.text, event.entities, event.at);
    addButtons(box, event);
    replies.set(event.message_id, box);
    follow(() => old.replaceWith(box));
  },
  typing() { showTyping(true); },
};

function light(updateId, step, micros, detail, isBad) {
  const turn = turns.get(updateId);
  const item = turn && turn.steps.get(step);
  if (!item) return;
  const place = STEPS.indexOf(step);
  item.classList.remove("next", "skipped", "bad");
  item.classList.toggle("bad", Boolean(isBad));
  item.classList.add("lit");
  const [, , when, more] = item.children;
  more.textContent = /^\d+$/.test(detail) && (step === "bronze" || step === "silver") ? "v" + detail : detail;
  when.textContent = span(micros - turn.sentAt);
  item.title = [step, detail, "after " + when.textContent].filter(Boolean).join(" · ");
  const isLast = step === STEPS[STEPS.length - 1];
  item.classList.toggle("last", isLast && !isBad);
  STEPS.slice(0, place).map((earlier) => turn.steps.get(earlier)).forEach((earlier) => {
    earlier.classList.remove("next");
    if (!earlier.classList.contains("lit")) earlier.classList.add("skipped");
  });
  const following = !isLast && turn.steps.get(STEPS[place + 1]);
  const hasLater = STEPS.slice(place + 1).some((later) => turn.steps.get(later).classList.contains("lit"));
  if (following && !hasLater) following.classList.add("next");
}

function addButtons(box, event) {
  if (!event.buttons.length) return;
  const keys = make("div", "keys");
  for (const button of event.buttons) {
    const key = make("button", "", button.text);
    key.type = "button";
    key.onclick = () => post("api/presses", { message_id: event.message_id, data: button.data });
    keys.append(key);
  }
  box.append(keys);
}

function showTyping(shown) {
  clearTimeout(typingTimer);
  follow(() => { typing.hidden = !shown; });
  if (shown) typingTimer = setTimeout(() => { typing.hidden = true; }, 5500);
}

// ---- The stream ----

function connect() {
  const after = epoch ? "?after=" + encodeURIComponent(epoch + "." + lastNumber) : "";
  source = new EventSource("api/events" + after);
  source.addEventListener("hello", (message) => {
    state("live", "live");
    if (message.data !== epoch) {
      if (epoch) location.reload();
      epoch = message.data;
    }
    refreshSoon();
  });
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.number !== null) {
      if (event.number <= lastNumber) return;
      lastNumber = event.number;
    }
    handlers[event.type]?.(event);
  };
  source.onerror = () => {
    state("waiting", "reconnecting");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

function state(name, text) {
  at("link").dataset.state = name;
  if (at("link-text").textContent !== text) at("link-text").textContent = text;
}

// ---- The tables ----

let refreshTimer = 0, isRefreshing = false, isStale = false;
function refreshSoon() {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(refresh, 120);
}

async function refresh() {
  if (isRefreshing) { isStale = true; return; }
  isRefreshing = true;
  try {
    const response = await fetch("api/tables");
    if (response.ok) show(await response.json());
  } catch { /* the stream says when the server is back */ } finally {
    isRefreshing = false;
    if (isStale) { isStale = false; refreshSoon(); }
  }
}

const seen = {};
function show(tables) {
  for (const card of document.querySelectorAll("[data-table]")) {
    const name = card.dataset.table;
    const table = tables[name];
    const rows = Array.isArray(table) ? table : table?.rows || [];
    const version = table?.version;
    card.querySelector(".version").textContent = version === undefined || version === null ? "" : "v" + version;
    const known = seen[name];
    seen[name] = new Set(rows.map((row) => JSON.stringify(row)));
    card.querySelector(".rows").replaceChildren(rows.length ? grid(name, rows, known) : make("p", "", "no rows yet"));
  }
}

function grid(name, rows, known) {
  const wanted = COLUMNS[name].filter((column) => rows.some((row) => column in row));
  const columns = wanted.length ? wanted : Object.keys(rows[0]).slice(0, 5);
  const table = make("table");
  const head = make("tr");
  columns.forEach((column) => {
    const cell = make("th", LESSER.has(column) ? "lesser" : "", HEADINGS[column] || column);
    cell.scope = "col";
    head.append(cell);
  });
  const top = make("thead"), body = make("tbody");
  top.append(head);
  rows.forEach((row) => {
    const line = make("tr", known && !known.has(JSON.stringify(row)) ? "fresh" : "");
    columns.forEach((column) => {
      const value = row[column];
      const isNone = value === null || value === undefined || value === "";
      const kind = [isNone && "none", WIDE.has(column) && "wide", LESSER.has(column) && "lesser"];
      const cell = make("td", kind.filter(Boolean).join(" "), isNone ? "–" : shown(column, value));
      if (!isNone) cell.title = String(value);
      line.append(cell);
    });
    body.append(line);
  });
  table.append(top, body);
  return table;
}

function shown(column, value) {
  if (!column.endsWith("_at")) return typeof value === "object" ? JSON.stringify(value) : String(value);
  const time = new Date(typeof value === "number" ? value / 1000 : String(value).replace(" ", "T"));
  if (Number.isNaN(time.getTime())) return String(value);
  return time.toLocaleTimeString([], { hour12: false }) + "." + String(time.getMilliseconds()).padStart(3, "0");
}

async function describe() {
  const info = await (await fetch("api/info")).json();
  at("model").textContent = info.model;
  at("version").textContent = info.version;
  at("data").textContent = info.data;
  at("queries").replaceChildren(...info.queries.map((query) => {
    const item = make("li"), code = make("code", "", query), copy = make("button", "copy", "Copy");
    code.tabIndex = 0;
    copy.type = "button";
    copy.setAttribute("aria-label", "Copy the command: " + query);
    copy.onclick = async () => {
      try {
        await navigator.clipboard.writeText(query);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    };
    item.append(code, copy);
    return item;
  }));
}

// ---- Writing ----

async function post(path, body) {
  alertBox.hidden = true;
  let problem = "The demo cannot be reached. Is it still running?";
  try {
    const response = await fetch(path, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
    });
    if (response.ok) return true;
    problem = await response.text() || "The demo answered " + response.status + ".";
  } catch { /* said below */ }
  alertBox.textContent = problem;
  alertBox.hidden = false;
  return false;
}

function fit() {
  field.style.height = "auto";
  field.style.height = field.scrollHeight + 2 + "px";
  send.disabled = !field.value.trim();
}

form.onsubmit = async (event) => {
  event.preventDefault();
  const text = field.value.trim();
  if (!text || send.disabled) return;
  send.disabled = true;
  if (await post("api/messages", { text }) && field.value.trim() === text) field.value = "";
  fit();
};
field.oninput = fit;
field.onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
};
for (const idea of at("ideas").children) idea.onclick = () => post("api/messages", { text: idea.textContent });

fit();
connect();
describe().catch(() => {});
if (matchMedia("(hover: hover)").matches) field.focus();
