"use strict";
const shown = document.getElementById("operations");

function added(parent, kind, text) {
  const node = document.createElement(kind);
  node.textContent = text;
  parent.append(node);
  return node;
}

function resolved(schema, all) {
  return schema?.$ref ? all[schema.$ref.split("/").pop()] : schema;
}

function described(schema, all) {
  const { title, examples, description, $defs, ...rest } = resolved(schema, all) ?? {};
  return JSON.stringify(rest, null, 1);
}

function operation(path, method, about, all) {
  const section = document.createElement("section");
  added(section, "h2", `${method.toUpperCase()} ${path}`);
  added(section, "p", about.description ?? about.summary);
  for (const one of about.parameters ?? []) {
    const { title, ...kind } = one.schema;
    added(section, "p", `${one.name} (${one.in}${one.required ? ", required" : ""}): ${JSON.stringify(kind)}`).className = "note";
  }
  const body = about.requestBody?.content["application/json"]?.schema;
  if (body) {
    const example = resolved(body, all)?.examples?.[0];
    if (example) added(section, "pre", JSON.stringify(example));
    const details = added(section, "details", "");
    added(details, "summary", "Request");
    added(details, "pre", described(body, all));
  }
  for (const [status, response] of Object.entries(about.responses)) {
    const [kind, content] = Object.entries(response.content ?? {})[0] ?? ["", {}];
    const details = added(section, "details", "");
    added(details, "summary", `${status} ${kind}`);
    added(details, "pre", described(content.schema, all));
  }
  return section;
}

fetch("openapi.json").then((response) => response.json()).then((document_) => {
  const all = document_.components?.schemas ?? {};
  for (const [path, methods] of Object.entries(document_.paths))
    for (const [method, about] of Object.entries(methods)) shown.append(operation(path, method, about, all));
}).catch((error) => { shown.textContent = error.message; });
