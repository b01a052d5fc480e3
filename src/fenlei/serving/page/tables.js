"use strict";
// A small file to rows with a text, and answered rows to CSV.

// Names of columns that are taken for the text, as by fenlei itself: TEXT_NAMES of data/columns.py.
const USUAL = [
  "text", "content", "sentence", "input", "document", "doc", "body", "article", "utterance", "query", "review", "comment",
  "文本", "正文", "内容", "句子", "新闻", "title", "headline", "标题", "instruction"
];

// Every row of `content` as an object; `name` tells the format. Throws an Error whose message is a word of WORDS, with `line` as its argument.
function readRows(name, content) {
  const text = content.replace(/^\uFEFF/, "");
  if (/\.(jsonl|ndjson)$/i.test(name)) {
    return text.split(/\r?\n/).map((line, at) => (line.trim() ? object(() => parsed(line), at + 1) : null)).filter(Boolean);
  }
  if (/\.json$/i.test(name)) {
    const all = object(() => ({ all: parsed(text) }), 1).all;
    return (Array.isArray(all) ? all : [all]).map((one, at) => object(() => one, at + 1));
  }
  if (/\.csv$/i.test(name)) return withNames(readCells(text, separatorOf(text)));
  if (/\.tsv$/i.test(name)) return withNames(readTabbed(text));
  return text.split(/\r?\n/).filter((line) => line.trim()).map((line) => ({ text: line }));
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

// Rows of cells as objects. The first has the names where it holds a usual one, or looks so: no number, and nothing that comes again below.
function withNames(cells) {
  const [first = [], ...below] = cells;
  const again = first.map((cell, at) => cell !== "" && below.some((row) => row[at] === cell));
  const usual = first.some((cell, at) => USUAL.includes(cell.trim().toLowerCase()) && !again[at]);
  const likely = first.length > 1 && below.length > 0 && !first.some((cell, at) => again[at] || /^[\d.]+$/.test(cell));
  const named = usual || likely;
  const names = named ? first : first.length === 1 ? ["text"] : first.map((_, at) => `column_${at + 1}`);
  return (named ? below : cells).map((row) => Object.fromEntries(names.map((name, at) => [name, row[at] ?? ""])));
}

// The column that a text is likely in: one of the usual names, else that with the most letters.
function likelyColumn(rows) {
  const columns = [...new Set(rows.slice(0, 100).flatMap(Object.keys))];
  const named = USUAL.find((name) => columns.includes(name));
  const letters = (column) => rows.slice(0, 100).reduce((sum, row) => sum + (typeof row[column] === "string" ? row[column].length : 0), 0);
  return { columns, likely: named ?? columns.reduce((best, one) => (letters(one) > letters(best) ? one : best), columns[0]) };
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
