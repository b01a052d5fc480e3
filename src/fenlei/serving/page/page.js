"use strict";
// The page: one text, or a small file in bulk. What is shown of an answer is decided in `verdictOf`.

const MOST_BYTES = 5_000_000, PART = 32, SHOWN = 20, BARS = 10;
const NOVEL = 0.99; // stranger than so many of the known texts
const SURE = 0.8; // where the run promises nothing
const TOO_MUCH = [413, 504]; // fewer texts at a time may be answered
const $ = (id) => document.getElementById(id);
const state = { language: "en", info: null, last: null, rows: [], columns: [], file: "", answered: [], problem: null };

const words = () => WORDS[state.language];

// As percent() of report/wording.py: what is not certain is not shown as certain.
function percent(share) {
  const shown = `${(100 * share).toFixed(1)} %`;
  if (shown === "100.0 %" && share < 1) return "> 99.9 %";
  return shown === "0.0 %" && share > 0 ? "< 0.1 %" : shown;
}

function make(tag, text, name) {
  const one = document.createElement(tag);
  one.textContent = text;
  one.dir = "auto"; // names and texts may run from right to left
  if (name) one.className = name;
  return one;
}

// --- the service

async function call(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  const key = sessionStorage.getItem("fenlei-key");
  if (key) headers.Authorization = `Bearer ${key}`;
  for (let tries = 0; ; tries++) {
    let answer;
    try {
      answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch {
      $("busy").hidden = true;
      throw new Error(words().away);
    }
    const again = (answer.status === 429 || answer.status === 503) && tries < 8;
    $("busy").hidden = !again;
    if (answer.ok) return answer.json();
    if (answer.status === 401) {
      $("locked").hidden = false;
      throw new Error(words().wrongKey);
    }
    if (again) {
      await new Promise((wake) => setTimeout(wake, 1000 * (Number(answer.headers.get("Retry-After")) || 1)));
      continue;
    }
    const told = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told.error?.message ?? told.error ?? `HTTP ${answer.status}`), { status: answer.status });
  }
}

function classify(texts) {
  const labels = namesIn($("labels").value, Object.values(state.info?.model_type.classifier.id2label ?? {}));
  return call("POST", "v1/classify", labels.length ? { texts, labels } : { texts }).then((told) => told.results);
}

// --- what an answer comes to

function verdictOf(answer) {
  const set = answer.prediction_set;
  if (set && set.length === 0) return ["unknown", words().whyEmpty];
  if (answer.novelty !== null && answer.novelty >= NOVEL) return ["unknown", words().whyNovel(percent(answer.novelty))];
  if (answer.abstained) return ["review", words().whyAbstained];
  if (set && set.length > 1) return ["review", words().whySet(set.filter((name) => name !== answer.label).join(", "))];
  if (!answer.calibrated) return ["review", words().whyUncalibrated];
  if (set || answer.abstained === false) return ["sure", words().whySure];
  return answer.confidence >= SURE ? ["sure", words().whySureShare(percent(answer.confidence))] : ["review", words().whyLow];
}

function labelOf(answer) {
  return answer.labels ? answer.labels.join(" + ") || words().noLabel : answer.label;
}

function showAnswer(answer) {
  const [verdict, why] = verdictOf(answer);
  $("label").textContent = labelOf(answer);
  $("verdict").textContent = words()[verdict];
  $("verdict").className = `tag ${verdict}`;
  $("why").textContent = why;
  const likeliest = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]).slice(0, BARS);
  $("bars").replaceChildren(...likeliest.flatMap(([name, share]) => {
    const bar = make("i", "");
    bar.style.setProperty("--share", `${100 * share}%`);
    return [make("span", name), bar, make("b", percent(share))];
  }));
  const facts = [];
  if (answer.prediction_set) facts.push([words().set, answer.prediction_set.join(", ") || "∅"]);
  if (answer.novelty !== null) facts.push([words().novelty, words().ofKnown(percent(answer.novelty))]);
  if (answer.tokens_cut) facts.push([words().cut, words().cutTokens(answer.tokens_cut)]);
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  $("answer").hidden = false;
}

function showProblem(text) {
  state.problem = text;
  $("problem").textContent = text ?? "";
  $("problem").hidden = !text;
}

// --- one text

async function ask(event) {
  event.preventDefault();
  if (!$("text").value.trim()) return $("text").focus();
  $("send").disabled = true;
  showProblem(null);
  try {
    [state.last] = await classify([$("text").value]);
    showAnswer(state.last);
  } catch (error) {
    showProblem(error.message);
  } finally {
    $("send").disabled = false;
  }
}

// --- a file

const chosen = () => namedBy($("which").value, state.columns);

// All columns that the run learned from.
function ownColumns() {
  const { text_column, read_from, label_column, pair_column } = state.info ?? {};
  return [...namedBy(text_column ?? "", []), ...(read_from ?? []), label_column, pair_column].filter(Boolean);
}

async function take(file) {
  if (!file || state.info?.pair_column) return;
  showProblem(null);
  if (file.size > MOST_BYTES) return showProblem(words().tooLarge(MOST_BYTES / 1e6));
  let rows;
  try {
    rows = readRows(file.name, await decoded(file), ownColumns());
  } catch (error) {
    const word = words()[error.message];
    return showProblem(word ? word(error.line) : error.message);
  }
  const { columns, likely } = likelyColumn(rows);
  const own = state.info?.text_column ?? state.info?.read_from?.join(); // that which the run was trained on
  if (!columns.length) return showProblem(words().noRows);
  const hasOwn = own !== undefined && namedBy(own, columns).every((name) => columns.includes(name));
  Object.assign(state, { rows, columns, file: file.name, answered: [] });
  $("start").disabled = $("which").disabled = false;
  const options = [...new Set(hasOwn ? [...columns, own] : columns)];
  $("which").replaceChildren(...options.map((name) => Object.assign(make("option", name), { value: name })));
  $("which").value = hasOwn ? own : likely;
  $("column").hidden = columns.length < 2;
  $("bulk").hidden = false;
  showBulk();
  $("bulk").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

// UTF-8, else GB18030: as fenlei itself reads files.
async function decoded(file) {
  const bytes = await file.arrayBuffer();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("gb18030").decode(bytes);
  }
}

// Until all are done, or another file has been chosen.
async function classifyRows() {
  const { rows } = state, answered = [];
  const columns = chosen(), texts = rows.map((row) => textOf(row, columns));
  let part = Math.min(PART, state.info?.max_client_batch_size ?? PART);
  $("start").disabled = $("which").disabled = true;
  showProblem(null);
  state.answered = answered;
  try {
    while (answered.length < texts.length && state.rows === rows) {
      try {
        answered.push(...await classify(texts.slice(answered.length, answered.length + part)));
        showBulk();
      } catch (error) {
        if (part === 1 || !TOO_MUCH.includes(error.status)) throw error;
        part = Math.ceil(part / 2);
      }
    }
  } catch (error) {
    if (state.rows === rows) showProblem(error.message);
  } finally {
    if (state.rows === rows) $("start").disabled = $("which").disabled = false;
    showBulk();
  }
}

function showBulk() {
  const done = state.answered.length, all = state.rows.length;
  $("name").textContent = state.file;
  $("start").textContent = words().start(all);
  $("progress").hidden = done === 0 || done === all;
  $("progress").value = done / Math.max(all, 1);
  $("save").hidden = done === 0;
  const verdicts = state.answered.map((one) => verdictOf(one)[0]);
  $("told").textContent = done === 0 ? "" : done < all ? words().working(done, all) : words().done(done, verdicts.filter((one) => one !== "sure").length);
  const head = make("tr", "");
  head.append(...["row", "label", "confidence", "verdict"].map((name) => make("th", words()[name])));
  const rows = state.answered.slice(0, SHOWN).map((one, at) => {
    const line = make("tr", "");
    const verdict = make("td", "");
    verdict.append(make("span", words()[verdicts[at]], `tag ${verdicts[at]}`));
    const text = textOf(state.rows[at], chosen());
    line.append(make("td", text.length > 80 ? text.slice(0, 80) + "…" : text), make("td", labelOf(one)), make("td", percent(one.confidence), "number"), verdict);
    return line;
  });
  $("rows").replaceChildren(...(done ? [head, ...rows] : []));
}

// The columns that an answer adds to its row.
function columnsOf(one) {
  return {
    prediction: one.labels || one.label, confidence: one.confidence, verdict: verdictOf(one)[0],
    ...(one.prediction_set ? { prediction_set: one.prediction_set } : {}), ...(one.abstained === null ? {} : { abstained: one.abstained }),
    ...(one.novelty === null ? {} : { novelty: one.novelty }), calibrated: one.calibrated, tokens_cut: one.tokens_cut,
  };
}

function save() {
  const answers = state.answered.map(columnsOf);
  const own = new Set(state.rows.flatMap(Object.keys)), added = [...new Set(answers.flatMap(Object.keys))];
  let prefix = "";
  while (added.some((name) => own.has(prefix + name))) prefix += "fenlei_"; // the columns of the file stay as they are
  const prefixed = (answer) => Object.fromEntries(Object.entries(answer).map(([name, value]) => [prefix + name, value]));
  const rows = answers.map((one, at) => ({ ...state.rows[at], ...prefixed(one) }));
  const link = make("a", "");
  link.href = URL.createObjectURL(new Blob([toCsv(rows)], { type: "text/csv" }));
  link.download = state.file.replace(/\.[^.]*$/, "") + ".predicted.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --- the page itself

async function meet() {
  try {
    state.info = await call("GET", "info");
  } catch (error) {
    if (error.status === 503) setTimeout(meet, 2000); // it is loading still
    return showProblem(error.message);
  }
  $("locked").hidden = true;
  showProblem(null);
  say();
}

function say() {
  document.documentElement.lang = state.language;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = words()[one.dataset.word];
  $("language").textContent = words().other;
  if (state.info) {
    $("run").textContent = document.title = state.info.model_id;
    $("about").textContent = words().about(Object.keys(state.info.model_type.classifier.id2label).length, state.info.method);
    $("candidates").hidden = !state.info.takes_labels;
    $("ask").hidden = Boolean(state.info.pair_column);
    $("pairs").hidden = !$("ask").hidden;
  }
  if (state.last) showAnswer(state.last);
  if (state.rows.length) showBulk();
}

$("ask").addEventListener("submit", ask);
$("text").addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && ask(event));
$("file").addEventListener("change", () => { take($("file").files[0]); $("file").value = ""; });
$("start").addEventListener("click", classifyRows);
$("save").addEventListener("click", save);
$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("fenlei-key", $("key").value.trim());
  meet();
});
$("language").addEventListener("click", () => {
  state.language = state.language === "en" ? "zh" : "en";
  localStorage.setItem("fenlei-language", state.language);
  say();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return; // else no selected text could be dragged into the field
    event.preventDefault();
    $("ask").parentElement.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
state.language = localStorage.getItem("fenlei-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
say();
meet();
