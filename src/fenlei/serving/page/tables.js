"use strict";
// A small file to rows with a text, typed labels to names, as fenlei itself reads them; and answered rows to CSV.

// Names of columns that are taken for the text: TEXT_NAMES of data/columns.py.
const USUAL = [
  "text", "content", "sentence", "input", "document", "doc", "body", "article", "utterance", "query", "review", "comment",
  "文本", "正文", "内容", "句子", "新闻", "title", "headline", "标题", "instruction"
];

// Names of columns of labels: LABEL_NAMES there.
const LABELS = [
  "label", "labels", "target", "output", "class", "label_name", "class_name", "category", "intent", "topic", "标签", "类别", "分类", "类"
];

const SAMPLE = 1000, FEW_ROWS = 50, LONGEST_LABEL = 32; // of data/delimited.py
const COMMAS = /([,，、])/; // of labels.py; with the group, what is split has names and commas in turn

// Every row of `content` as an object; `name` tells the format, `own` are the columns that the run learned from.
// Throws an Error whose message is a word of WORDS, with `line` as its argument.
function readRows(name, content, own = []) {
  const text = content.replace(/^\uFEFF/, "");
  if (/\.(jsonl|ndjson|json)$/i.test(name)) return readJson(text);
  if (/\.csv$/i.test(name)) return withNames(readCells(text, separatorOf(text)), own);
  if (/\.tsv$/i.test(name)) return withNames(readTabbed(text), own);
  return readLines(text, own);
}

// One array of objects or one object, else an object a line.
function readJson(text) {
  let all;
  try { all = parsed(text); } catch {
    return text.split(/\r?\n/).map((line, at) => (line.trim() ? object(() => parsed(line), at + 1) : null)).filter(Boolean);
  }
  return (Array.isArray(all) ? all : [all]).map((one, at) => object(() => one, at + 1));
}

// A text a line, unless there are labels too: before the texts, as fastText has them, or with a tab between.
function readLines(text, own) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  if (lines[0]?.startsWith("__label__")) return lines.map(withoutMarks);
  if (lines.every((line) => line.includes("\t"))) {
    if (hasNames(lines.slice(0, SAMPLE).map((line) => line.split("\t")), own)) return withNames(readTabbed(text), own);
    const cut = (line, at) => [line.slice(0, at), line.slice(at + 1)];
    const pairs = lines.map((line) => cut(line, line.lastIndexOf("\t"))); // a tab more belongs to the text
    const sample = pairs.slice(0, SAMPLE), place = labelPlace(sample);
    if (areLabels(sample.map((pair) => pair[place]))) {
      return withNames(place === 1 ? pairs : lines.map((line) => cut(line, line.indexOf("\t"))), own);
    }
  }
  return lines.map((line) => ({ text: line }));
}

function withoutMarks(line) {
  const marks = line.trim().match(/^(__label__\S*(\s+|$))*/)[0];
  return { label: marks.replaceAll("__label__", "").trim(), text: line.trim().slice(marks.length) };
}

// Whether names are short, and come again, as labels do. Texts, one a line, may hold tabs too.
function areLabels(names) {
  return names.every((name) => name.length <= LONGEST_LABEL) && (names.length <= FEW_ROWS || 2 * new Set(names).size <= names.length);
}

function object(parse, line) {
  let value;
  try { value = parse(); } catch { value = null; }
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw Object.assign(new Error("badJson"), { line });
  return value;
}

// JSON, in which a whole number that JavaScript would round, an id most likely, stays as it is written.
function parsed(json) {
  const rounded = (value) => Number.isInteger(value) && !Number.isSafeInteger(value);
  return JSON.parse(json, (key, value, context) => (rounded(value) ? context?.source ?? value : value));
}

// A comma, unless the first line has none.
function separatorOf(text) {
  const first = text.split("\n", 1)[0];
  return [",", "\t", ";"].find((mark) => first.includes(mark)) ?? ",";
}

// TSV knows no quoting, unless only with it all rows have the same number of cells.
function readTabbed(text) {
  const even = (rows) => rows.every((row) => row.length === rows[0].length);
  const plain = text.split(/\r?\n/).filter((line) => line.trim()).map((line) => line.split("\t"));
  if (!even(plain)) {
    try {
      const quoted = readCells(text, "\t");
      if (even(quoted)) return quoted;
    } catch { /* the quote belongs to a text */ }
  }
  return plain.map((row) => row.map(unquoted));
}

// A cell in quotes with every inner quote doubled loses them; any other quote belongs to the text.
function unquoted(cell) {
  const inner = cell.slice(1, -1);
  const isQuoted = cell.length > 1 && cell.startsWith('"') && cell.endsWith('"') && !inner.replaceAll('""', "").includes('"');
  return isQuoted ? inner.replaceAll('""', '"') : cell;
}

// RFC 4180: quoted cells may hold separators, quotes (doubled) and line ends.
function readCells(text, separator) {
  const rows = [];
  let row = [], cell = "", quoted = false, opened = 0;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[at + 1] === '"') { cell += '"'; at++; }
      else quoted = false;
    } else if (letter === '"' && cell === "") { quoted = true; opened = at; }
    else if (letter === separator) { row.push(cell); cell = ""; }
    else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[at + 1] === "\n") at++;
      row.push(cell); cell = "";
      if (row.length > 1 || row[0] !== "") rows.push(row);
      row = [];
    } else cell += letter;
  }
  if (quoted) throw Object.assign(new Error("openQuote"), { line: text.slice(0, opened).split("\n").length });
  row.push(cell);
  if (row.length > 1 || row[0] !== "") rows.push(row);
  return rows;
}

// Rows of cells as objects, under the names of the first row where it has names.
function withNames(cells, own) {
  const sample = cells.slice(0, SAMPLE), named = hasNames(sample, own);
  const names = named ? sample[0].map((cell) => cell.trim()) : inventedNames(sample);
  return (named ? cells.slice(1) : cells).map((row) => Object.fromEntries(names.map((name, at) => [name, row[at] ?? ""])));
}

// Whether the first row names the columns: one of its cells is a usual name, or the run's own, and does not come again below.
function hasNames([first = [], ...below], own) {
  const isName = (cell) => USUAL.includes(cell.toLowerCase()) || LABELS.includes(cell.toLowerCase()) || own.includes(cell);
  return first.some((cell, at) => isName(cell.trim()) && !below.some((row) => row[at] === cell));
}

function inventedNames(sample) {
  const [first = []] = sample;
  if (first.length === 1) return ["text"];
  if (first.length === 2) return labelPlace(sample.filter((row) => row.length === 2)) === 0 ? ["label", "text"] : ["text", "label"];
  return first.map((_, at) => `column_${at + 1}`);
}

// Which of two columns without names is the label: that of fewer distinct values, then the shorter one, then the second.
function labelPlace(pairs) {
  const distinct = (at) => new Set(pairs.map((pair) => pair[at])).size;
  const letters = (at) => pairs.reduce((sum, pair) => sum + pair[at].length, 0);
  if (distinct(0) !== distinct(1)) return distinct(0) < distinct(1) ? 0 : 1;
  return letters(0) < letters(1) ? 0 : 1;
}

// The column that a text is likely in: one of the usual names, else that with the most letters.
function likelyColumn(rows) {
  const columns = [...new Set(rows.slice(0, 100).flatMap(Object.keys))];
  const named = USUAL.map((name) => columns.find((column) => column.trim().toLowerCase() === name)).find((column) => column !== undefined);
  const letters = (column) => rows.slice(0, 100).reduce((sum, row) => sum + (typeof row[column] === "string" ? row[column].length : 0), 0);
  return { columns, likely: named ?? columns.reduce((best, one) => (letters(one) > letters(best) ? one : best), columns[0]) };
}

// The columns that `name` stands for: `title,body` is two, unless there is one that is called just that.
function namedBy(name, columns) {
  return columns.includes(name) ? [name] : name.split(",").map((part) => part.trim()).filter(Boolean);
}

// The text of a row: those of its `columns`, joined by line breaks.
function textOf(row, columns) {
  return columns.map((name) => String(row[name] ?? "")).filter((part) => part.trim()).join("\n");
}

// The names that commas join in what was typed; commas within a name of `known` join nothing.
function namesIn(typed, known) {
  const parts = typed.split(COMMAS), longest = Math.max(1, ...known.map((name) => name.split(COMMAS).length));
  const joined = (at, end) => parts.slice(at, end).join("").trim();
  const found = [];
  for (let at = 0; at < parts.length;) {
    let end = Math.min(at + longest, parts.length);
    while (end > at + 1 && !known.includes(joined(at, end))) end -= 2;
    found.push(joined(at, end));
    at = end + 1;
  }
  return found.filter(Boolean);
}

function toCsv(rows) {
  const head = [...new Set(rows.flatMap(Object.keys))];
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    const isNumber = /^[+-]?(\d[\d.,]*|\.\d+)(e[+-]?\d+)?%?$/i.test(text);
    const computed = typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !isNumber;
    if (computed) text = "'" + text; // or a spreadsheet would
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  return "\uFEFF" + [head, ...rows.map((row) => head.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
