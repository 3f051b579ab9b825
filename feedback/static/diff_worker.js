// The difference of two texts by words, for any length, as whet/word_diff.py computes it for decided items: words
// that occur once in both texts divide them, or runs of words where no word does; what is left between two of those is
// compared word by word, and pieces too long for that are one removal and one addition.
"use strict";
const MOST_CELLS = 4e6; // of a table of the longest common subsequence: about 20 ms and 16 MB

const RUN = 8; // words that are looked at together where single words repeat

const wordsOf = (text) => text.match(/\s+|[^\s]+/g) || [];

function diffWords(before, after) {
  const found = [];
  compare(wordsOf(before), wordsOf(after), found);
  const joined = []; // removals before additions, neighbours of a kind together
  for (const [kind, text] of found) {
    const last = joined[joined.length - 1];
    if (last && last[0] === kind) last[1] += text; else joined.push([kind, text]);
  }
  return joined;
}

function compare(a, b, found) {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  if (head) found.push(["same", a.slice(0, head).join("")]);
  const end = tail ? ["same", a.slice(a.length - tail).join("")] : null;
  a = a.slice(head, a.length - tail);
  b = b.slice(head, b.length - tail);
  const isShort = a.length * b.length <= MOST_CELLS;
  let anchors = isShort ? [] : commonOnce(a, b, 1);
  if (!isShort && !anchors.length) anchors = commonOnce(a, b, RUN);
  if (isShort && a.length && b.length) {
    longestCommon(a, b, found);
  } else if (!anchors.length) {
    if (a.length) found.push(["del", a.join("")]);
    if (b.length) found.push(["ins", b.join("")]);
  } else {
    let i = 0, j = 0;
    for (const [x, y] of anchors) { // linear in the anchors: what lies between two of them is small or has none
      if (x < i || y < j) continue;
      compare(a.slice(i, x), b.slice(j, y), found);
      found.push(["same", a[x]]);
      i = x + 1; j = y + 1;
    }
    compare(a.slice(i), b.slice(j), found);
  }
  if (end) found.push(end);
}

// [[index in a, index in b]] of runs that occur once in each, the longest chain of them that is in order in both.
function commonOnce(a, b, run) {
  const count = (words) => {
    const at = new Map();
    for (let index = 0; index + run <= words.length; index++) {
      const key = run === 1 ? words[index] : words.slice(index, index + run).join("");
      at.set(key, at.has(key) ? -1 : index);
    }
    return at;
  };
  const inA = count(a), inB = count(b);
  const pairs = [];
  for (const [word, x] of inA) if (x >= 0 && inB.get(word) >= 0) pairs.push([x, inB.get(word)]);
  const ends = [], links = []; // patience sorting
  pairs.forEach(([, y], index) => {
    let low = 0, high = ends.length;
    while (low < high) { const middle = (low + high) >> 1; if (pairs[ends[middle]][1] < y) low = middle + 1; else high = middle; }
    links[index] = low ? ends[low - 1] : -1;
    ends[low] = index;
  });
  const chain = [];
  for (let index = ends.length ? ends[ends.length - 1] : -1; index >= 0; index = links[index]) chain.push(pairs[index]);
  return chain.reverse();
}

function longestCommon(a, b, found) {
  const width = b.length + 1;
  const table = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * width + j] = a[i] === b[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { found.push(["same", a[i]]); i++; j++; }
    else if (i < a.length && (j >= b.length || table[(i + 1) * width + j] >= table[i * width + j + 1])) found.push(["del", a[i++]]);
    else found.push(["ins", b[j++]]);
  }
}

self.addEventListener("message", (event) => {
  const { id, before, after } = event.data;
  self.postMessage({ id, pieces: diffWords(before, after) });
});
