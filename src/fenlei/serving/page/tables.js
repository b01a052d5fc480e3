"use strict";
// A small file to rows with a text, and answered rows to CSV.

// Every row of `content` as an object; `name` tells the format. Throws an Error whose message is a word of WORDS with its argument.
function readRows(name, content) {
  const text = content.replace(/^\uFEFF/, "");
  if (/\.(jsonl|ndjson)$/i.test(name)) {
    return text.split(/\r?\n/).map((line, at) => (line.trim() ? object(() => JSON.parse(line), at + 1) : null)).filter(Boolean);
  }
  if (/\.json$/i.test(name)) {
    const all = object(() => ({ all: JSON.parse(text) }), 1).all;
    return (Array.isArray(all) ? all : [all]).map((one, at) => object(() => one, at + 1));
  }
  if (/\.(csv|tsv)$/i.test(name)) {
    const [head, ...rows] = readCells(text, /\.tsv$/i.test(name) ? "\t" : ",");
    return rows.map((cells) => Object.fromEntries((head || []).map((column, at) => [column, cells[at] ?? ""])));
  }
  return text.split(/\r?\n/).filter((line) => line.trim()).map((line) => ({ text: line }));
}

function object(parse, line) {
  let value;
  try { value = parse(); } catch { value = null; }
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw Object.assign(new Error("badJson"), { line });
  return value;
}

// RFC 4180: quoted cells may hold separators, quotes (doubled) and line ends.
function readCells(text, separator) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[at + 1] === '"') { cell += '"'; at++; }
      else quoted = false;
    } else if (letter === '"' && cell === "") quoted = true;
    else if (letter === separator) { row.push(cell); cell = ""; }
    else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[at + 1] === "\n") at++;
      row.push(cell); cell = "";
      if (row.length > 1 || row[0] !== "") rows.push(row);
      row = [];
    } else cell += letter;
  }
  row.push(cell);
  if (row.length > 1 || row[0] !== "") rows.push(row);
  return rows;
}

// The column that a text is likely in: one of the usual names, else that with the most letters.
function likelyColumn(rows) {
  const columns = [...new Set(rows.slice(0, 100).flatMap(Object.keys))];
  const usual = ["text", "sentence", "content", "title", "body", "文本", "内容", "标题", "正文"];
  const named = usual.find((name) => columns.includes(name));
  const letters = (column) => rows.slice(0, 100).reduce((sum, row) => sum + (typeof row[column] === "string" ? row[column].length : 0), 0);
  return { columns, likely: named ?? columns.reduce((best, one) => (letters(one) > letters(best) ? one : best), columns[0]) };
}

function toCsv(rows) {
  const head = [...new Set(rows.flatMap(Object.keys))];
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text; // a spreadsheet would compute it
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  return "\uFEFF" + [head, ...rows.map((row) => head.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}
