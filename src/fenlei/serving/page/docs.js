"use strict";
// The routes of openapi.json, each with a call to copy. Written here, since the usual viewers come from other people's servers.

function make(tag, text) {
  const one = document.createElement(tag);
  one.textContent = text;
  return one;
}

function resolved(description, schema) {
  const named = schema?.$ref?.split("/").pop();
  return named ? description.components.schemas[named] : schema;
}

function exampleOf(description, schema) {
  const alternatives = schema?.oneOf ?? schema?.anyOf ?? [schema];
  return alternatives.map((one) => resolved(description, one)?.examples?.[0]).find(Boolean);
}

function fieldsOf(description, schema) {
  const list = make("dl", "");
  for (const one of schema?.oneOf ?? schema?.anyOf ?? [schema]) {
    const whole = resolved(description, one);
    for (const [name, field] of Object.entries(whole?.properties ?? {})) {
      const kinds = (field.anyOf ?? [field]).map((kind) => kind.$ref?.split("/").pop() ?? kind.type ?? "").filter((kind) => kind && kind !== "null");
      const needed = whole.required?.includes(name) ? "" : " ?";
      list.append(make("dt", name + needed), make("dd", [kinds.join(" | "), field.description ?? ""].filter(Boolean).join(": ")));
    }
  }
  return list;
}

async function show() {
  const description = await (await fetch("openapi.json")).json();
  const here = new URL(".", location.href).href.replace(/\/$/, "");
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const section = make("section", "");
      section.append(make("h2", `${method.toUpperCase()} ${path}`), make("p", route.description ?? route.summary ?? ""));
      const schema = route.requestBody?.content?.["application/json"]?.schema;
      if (schema) section.append(fieldsOf(description, schema));
      const example = exampleOf(description, schema);
      const body = example ? ` \\\n  -H 'Content-Type: application/json' -d '${JSON.stringify(example)}'` : "";
      section.append(make("pre", `curl ${method === "post" ? "-X POST " : ""}${here}${path}${body}`));
      const told = Object.entries(route.responses).map(([status, one]) => `${status} ${one.description}`).join(", ");
      section.append(Object.assign(make("p", told), { className: "small" }));
      document.getElementById("routes").append(section);
    }
  }
}

show();
