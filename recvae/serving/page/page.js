"use strict";
const LISTED = 10, FOUND = 8, PAUSE = 120;
const element = (id) => document.getElementById(id);
const search = element("search"), found = element("found"), picked = element("picked"), items = element("items");
const picks = new Map();
let key = "", active = -1, asked = 0, searched = 0, timer = 0;

const named = (item) => item.title ?? String(item.id);

function made(kind, text, attributes = {}) {
  const node = document.createElement(kind);
  node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers["X-API-Key"] = key;
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const response = await fetch(path, options);
  element("lock").hidden = response.status !== 401;
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? response.statusText);
  return answer;
}

function close() {
  found.replaceChildren();
  active = -1;
  search.setAttribute("aria-expanded", "false");
  search.removeAttribute("aria-activedescendant");
}

function mark(index) {
  const options = [...found.children];
  if (!options.length) return;
  active = (index + options.length) % options.length;
  options.forEach((option, i) => option.setAttribute("aria-selected", String(i === active)));
  search.setAttribute("aria-activedescendant", options[active].id);
  options[active].scrollIntoView({ block: "nearest" });
}

async function look() {
  const number = ++searched, text = search.value.trim();
  if (!text) return close();
  try {
    const answer = await call(`items?n=${FOUND + picks.size}&query=${encodeURIComponent(text)}`);
    if (number !== searched) return;
    close();
    const left = answer.items.filter((item) => !picks.has(item.id)).slice(0, FOUND);
    left.forEach((item, i) => {
      const option = made("li", named(item), { role: "option", id: `found-${i}`, "aria-selected": "false" });
      option.addEventListener("mousedown", (event) => { event.preventDefault(); pick(item); });
      option.pick = () => pick(item);
      found.append(option);
    });
    search.setAttribute("aria-expanded", String(left.length > 0));
    if (left.length) mark(0); else element("state").textContent = `No title with “${text}”.`;
  } catch (error) { element("state").textContent = error.message; }
}

function pick(item) {
  picks.set(item.id, item);
  search.value = "";
  close();
  changed();
  search.focus();
}

function drop(id) {
  picks.delete(id);
  changed();
  (picked.querySelector("button") ?? search).focus();
}

function changed() {
  picked.replaceChildren(...[...picks.values()].map((item) => {
    const row = made("li", ""), button = made("button", "Remove", { type: "button", "aria-label": `Remove ${named(item)}` });
    button.addEventListener("click", () => drop(item.id));
    row.append(made("span", named(item)), button);
    return row;
  }));
  element("none").hidden = picks.size > 0;
  element("clear").hidden = picks.size === 0;
  recommend();
}

async function recommend() {
  const number = ++asked;
  try {
    const answer = await call("recommend", { history: [...picks.keys()], n: LISTED, explain: picks.size > 0 });
    if (number !== asked) return;
    items.replaceChildren(...answer.items.map((item) => {
      const row = made("li", named(item));
      if (item.because?.length) row.append(made("span", `because of ${item.because.map(named).join(", ")}`, { class: "because" }));
      return row;
    }));
    element("state").textContent = picks.size ? `${answer.items.length} titles for ${picks.size} picked` : "Popular titles";
    element("model").textContent = `${answer.model.name} ${answer.model.version}`;
  } catch (error) { if (number === asked) element("state").textContent = error.message; }
}

search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, PAUSE); });
search.addEventListener("blur", close);
search.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") mark(active + 1);
  else if (event.key === "ArrowUp") mark(active - 1);
  else if (event.key === "Enter" && active >= 0) found.children[active].pick();
  else if (event.key === "Escape") close();
  else return;
  event.preventDefault();
});
element("clear").addEventListener("click", () => { picks.clear(); changed(); search.focus(); });
element("lock").addEventListener("submit", (event) => { event.preventDefault(); key = element("key").value; recommend(); });
recommend();
