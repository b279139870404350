"use strict";
const LISTED = 10, FOUND = 8, PAUSE = 120, MOST_CHOICES = 40, SHOWN_CHOICES = 24;
const element = (id) => document.getElementById(id);
const search = element("search"), found = element("found"), picked = element("picked"), choices = element("choices");
const articles = [...element("lists").children], dialog = element("dialog"), state = element("state");
const picks = new Map(), widgets = [];
let key = "", active = -1, asked = 0, searched = 0, timer = 0, models = [];

const named = (item) => item.title ?? String(item.id);
const worded = (name) => name.replaceAll("_", " ");
const counted = (number) => number.toLocaleString("en");

function made(kind, content = "", attributes = {}) {
  const node = document.createElement(kind);
  if (Array.isArray(content)) node.append(...content); else node.textContent = content;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function pressable(text, label, press, attributes = {}) {
  const button = made("button", text, { type: "button", "aria-label": label, ...attributes });
  button.addEventListener("click", press);
  return button;
}

function soon(call) { clearTimeout(timer); timer = setTimeout(call, PAUSE); }

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers["X-API-Key"] = key;
  const response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  element("lock").hidden = response.status !== 401;
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? response.statusText);
  return answer;
}

/* Search: a combobox with a list of titles. */

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
      option.addEventListener("mousedown", (event) => { event.preventDefault(); option.pick(); });
      option.pick = () => { pick(item); search.focus(); };
      found.append(option);
    });
    search.setAttribute("aria-expanded", String(left.length > 0));
    if (left.length) mark(0); else state.textContent = `No title with “${text}”.`;
  } catch (error) { state.textContent = error.message; }
}

/* Picks. */

function pick(item) {
  picks.set(item.id, item);
  search.value = "";
  close();
  changed();
}

function drop(id) {
  picks.delete(id);
  changed();
  (picked.querySelector("button") ?? search).focus();
}

function changed() {
  picked.replaceChildren(...[...picks.values()].map((item) =>
    made("li", [made("span", named(item)), pressable("×", `Remove ${named(item)}`, () => drop(item.id))])));
  element("none").hidden = picks.size > 0;
  element("clear").hidden = picks.size === 0;
  recommend();
}

/* Filters: a widget for each column that gives its condition, or nothing. */

function offerValues(name, column) {
  const boxes = column.values.slice(0, SHOWN_CHOICES).map((value) => made("input", "", { type: "checkbox", value }));
  const condition = () => boxes.filter((box) => box.checked).map((box) => box.value);
  widgets.push(() => condition().length ? { [name]: condition() } : {});
  return [chips(boxes)];
}

function offerTruth(name) {
  const [any, yes, no] = ["any", "yes", "no"].map((value) => made("input", "", { type: "radio", name, value }));
  any.defaultChecked = true;
  widgets.push(() => any.checked ? {} : { [name]: yes.checked });
  return [chips([any, yes, no])];
}

function chips(inputs) {
  return made("div", inputs.map((input) => made("label", [input, input.value], { class: "choice" })), { class: "chips" });
}

function offerBounds(name, column) {
  const dated = column.kind === "date", shown = (bound) => dated ? bound.slice(0, 10) : String(bound);
  const [least, largest] = [["from", column.least], ["to", column.largest]].map(([text, bound]) =>
    [text, made("input", "", { type: dated ? "date" : "number", step: "any", placeholder: shown(bound), min: shown(column.least), max: shown(column.largest) })]);
  const day = (input, operator) => operator === "le" ? `${input.value}T23:59:59.999999` : input.value;  // the whole day
  const bound = ([, input], operator) => input.value === "" ? {} : { [operator]: dated ? day(input, operator) : Number(input.value) };
  widgets.push(() => {
    const condition = { ...bound(least, "ge"), ...bound(largest, "le") };
    return Object.keys(condition).length ? { [name]: condition } : {};
  });
  return [made("div", [least, largest].map(([text, input]) => made("label", [text, input])), { class: "pair" })];
}

function offerDiversity() {
  const range = made("input", "", { type: "range", min: 0, max: 0.9, step: 0.1, value: 0, id: "diversity", "aria-label": "variety" });
  return made("fieldset", [made("legend", "variety"), range]);
}

async function offerFilters() {
  widgets.length = 0;
  const columns = Object.entries((await call("columns")).columns);
  const fields = columns.flatMap(([name, column]) => {
    const offer = column.kind === "truth value" ? offerTruth : column.least !== null ? offerBounds : offerValues;
    const many = offer === offerValues && column.n_values > Math.min(MOST_CHOICES, models[0].n_items / 2);
    return many || column.n_values < 2 && offer !== offerTruth ? [] : [made("fieldset", [made("legend", worded(name)), ...offer(name, column)])];
  });
  choices.replaceChildren(...fields, offerDiversity());
  element("filters").hidden = false;
  element("filters").open = matchMedia("(min-width: 52.01rem)").matches;
}

function chosen() {
  const filter = Object.assign({}, ...widgets.map((widget) => widget())), diversity = Number(element("diversity")?.value ?? 0);
  const count = Object.keys(filter).length + (diversity > 0);
  element("active").textContent = String(count);
  element("active").hidden = element("reset").hidden = count === 0;
  return { ...(Object.keys(filter).length ? { filter } : {}), ...(diversity ? { diversity } : {}) };
}

/* Lists. */

function tile(item) {
  const node = made("span", named(item).trim().charAt(0).toUpperCase(), { class: "tile", "aria-hidden": "true" });
  const hue = [...String(item.id)].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  node.style.setProperty("--hue", String(hue));
  return node;
}

function reasons(because) {
  const most = Math.max(...because.map((reason) => reason.contribution));
  const node = made("div", "because of ", { class: "because" });
  node.append(...because.map((reason) => {
    const one = made("span", named(reason), { title: `adds ${reason.contribution.toFixed(2)} to the score` });
    one.style.setProperty("--share", `${100 * reason.contribution / most}%`);
    return one;
  }));
  return node;
}

function row(item, note) {
  const title = made("span", named(item), { class: "title" });
  if (note) title.append(made("span", note, { class: "only" }));
  const actions = made("div", [
    pressable("Similar", `Items similar to ${named(item)}`, () => showSimilar(item), { "aria-haspopup": "dialog" }),
    ...(picks.has(item.id) ? [] : [pressable("Pick", `Pick ${named(item)}`, () => { dialog.close(); pick(item); element("listed").focus(); }, { class: "main" })]),
  ], { class: "actions" });
  return made("li", [tile(item), title, actions, ...(item.because?.length ? [reasons(item.because)] : [])]);
}

async function recommend() {
  const number = ++asked, compared = element("compare").checked;
  const body = { history: [...picks.keys()], n: LISTED, explain: picks.size > 0, ...chosen() };
  element("lists").setAttribute("aria-busy", "true");
  try {
    const shown = compared ? articles : articles.slice(0, 1);
    const answers = await Promise.all(shown.map((article) => {
      const variant = article.querySelector("select").value;
      return call("recommend", variant ? { ...body, variant } : body);
    }));
    if (number !== asked) return;
    const lists = answers.map((answer) => new Set(answer.items.map((item) => item.id)));
    shown.forEach((article, i) => {
      const alone = (item) => compared && !lists[1 - i].has(item.id) ? "only here" : "";
      article.querySelector("ol").replaceChildren(...answers[i].items.map((item) => row(item, alone(item))));
    });
    const listed = answers[0].items.length, common = compared ? `, ${[...lists[0]].filter((id) => lists[1].has(id)).length} in both lists` : "";
    state.textContent = (picks.size ? `${listed} titles for ${picks.size} picked` : listed ? "Popular titles" : "No title meets the filters") + common;
  } catch (error) { if (number === asked) state.textContent = error.message; }
  if (number === asked) element("lists").setAttribute("aria-busy", "false");
}

/* The dialog: similar items, or the model's card. */

function show(title, ...content) {
  element("dialog-title").textContent = title;
  element("content").replaceChildren(...content);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

async function showSimilar(item) {
  try {
    const answer = await call(`items/${encodeURIComponent(item.id)}/similar?n=${LISTED + 1}`);
    const others = answer.items.filter((other) => other.id !== item.id).slice(0, LISTED);
    show(`Similar to ${named(item)}`, others.length
      ? made("ol", others.map((other) => row(other, picks.has(other.id) ? "picked" : "")), { class: "items" }) : made("p", "Nothing is known of it yet.", { class: "note" }));
  } catch (error) { show(`Similar to ${named(item)}`, made("p", error.message, { class: "note" })); }
}

function facts(content) {
  const flat = (value) => typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.entries(value).filter(([, inner]) => inner !== null).map(([name, inner]) => `${worded(name)} ${flat(inner)}`).join(", ")
    : typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value);
  const known = Object.entries(content).filter(([name, value]) => value !== null && value !== "" && !name.endsWith("sha256"));
  return made("dl", known.flatMap(([name, value]) => [made("dt", worded(name)), made("dd", flat(value))]), { class: "facts" });
}

function figures(sides) {
  const measured = Object.entries(sides).filter(([, figures]) => typeof figures === "object" && figures !== null);
  const metrics = [...new Set(measured.flatMap(([, figures]) => Object.keys(figures)))];
  const cell = (figure) => typeof figure?.mean !== "number" ? "" : figure.mean.toFixed(4) + (typeof figure.stderr === "number" ? ` ± ${figure.stderr.toFixed(4)}` : "");
  const rows = metrics.map((metric) => [metric, ...measured.map(([, figures]) => cell(figures[metric]))]).filter(([, ...cells]) => cells.some(Boolean));
  const head = made("tr", ["metric", ...measured.map(([side]) => `${side} users`)].map((text) => made("th", text, { scope: "col" })));
  return rows.length ? [made("h3", "Figures"), made("table", [made("thead", [head]), made("tbody",
    rows.map(([metric, ...cells]) => made("tr", [made("th", metric, { scope: "row" }), ...cells.map((text) => made("td", text))])))])] : [];
}

function describe(model) {
  const card = model.card, trained = card.trained_at ? new Date(card.trained_at).toLocaleDateString("en", { dateStyle: "long" }) : "at an unknown time";
  const numbers = { items: card.catalogue.items, users: card.users, interactions: card.data.fitted_counts?.interactions ?? card.data.counts?.interactions };
  const tiles = Object.entries(numbers).filter(([, number]) => number).map(([name, number]) => made("div", [made("dt", name), made("dd", counted(number))]));
  const seconds = card.fit_seconds === null ? "" : `, in ${card.fit_seconds < 10 ? card.fit_seconds.toFixed(1) : counted(Math.round(card.fit_seconds))} seconds`;
  return [
    made("p", `Trained ${trained}${seconds}. Version ${model.version}.`, { class: "note" }),
    made("dl", tiles, { class: "tiles" }),
    ...figures(card.figures),
    ...(card.limits.length ? [made("h3", "Limits"), made("ul", card.limits.map((limit) => made("li", limit.replaceAll("`", ""))), { class: "limits" })] : []),
    made("h3", "Settings"), facts(card.settings),
    made("h3", "Data"), facts(card.data),
    made("h3", "Made with"), facts(card.versions),
  ];
}

async function showModel() {
  try {
    await loadModels();
    const name = articles[0].querySelector("select").value;
    const names = [name, ...(element("compare").checked ? [articles[1].querySelector("select").value] : [])];
    const described = models.filter((model) => !name || names.includes(model.variant));
    if (described.length === 1) show(titled(described[0]), ...describe(described[0]));
    else show("The models", ...described.map((model) => made("section", [made("h3", titled(model)), ...describe(model)])));
  } catch (error) { state.textContent = error.message; }
}

/* One model, or several to compare. */

const titled = (model) => model.variant ? `${model.variant} (${model.name})` : model.name;

async function loadModels() {
  const answer = await call("model");
  models = answer.variants?.length ? answer.variants.filter((one) => one.model).map((one) => ({ ...one.model, variant: one.variant })) : [answer];
  element("about").textContent = models.length > 1 ? `${models.length} models` : `${answer.name} · ${counted(answer.n_items)} items`;
  element("about").hidden = false;
}

function offerModels() {
  if (models.length < 2) return;
  articles.forEach((article, i) => {
    const select = article.querySelector("select");
    select.replaceChildren(...models.map((model) => made("option", titled(model), { value: model.variant })));
    select.selectedIndex = i;
    select.parentElement.hidden = false;
    select.addEventListener("change", recommend);
  });
  element("compare-label").hidden = false;
}

async function start() {
  await Promise.all([recommend(), offer()]);
  if (models.length > 1) recommend();
}

async function offer() {
  try {
    await loadModels();
    offerModels();
    await offerFilters();
  } catch (error) { state.textContent = error.message; }
}

search.addEventListener("input", () => soon(look));
search.addEventListener("blur", close);
search.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") mark(active + 1);
  else if (event.key === "ArrowUp") mark(active - 1);
  else if (event.key === "Enter" && active >= 0) found.children[active].pick();
  else if (event.key === "Escape") close();
  else return;
  event.preventDefault();
});
choices.addEventListener("input", () => soon(recommend));
choices.addEventListener("submit", (event) => event.preventDefault());
element("reset").addEventListener("click", () => { choices.reset(); recommend(); });
element("clear").addEventListener("click", () => { picks.clear(); changed(); search.focus(); });
element("compare").addEventListener("change", (event) => { articles[1].hidden = !event.target.checked; recommend(); });
element("about").addEventListener("click", showModel);
element("shut").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
element("lock").addEventListener("submit", (event) => { event.preventDefault(); key = element("key").value; start(); });
start();
