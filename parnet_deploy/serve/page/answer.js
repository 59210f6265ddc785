// The answer: likeliest classes with bars, and where the time went.

const FIRST = 5;
const STEP = 10;
const PARTS = [
  ["wire", "Network and browser"],
  ["serve", "Receive and answer"],
  ["prepare", "Prepare image"],
  ["queue", "Wait for engine"],
  ["infer", "Engine"],
];

/** Probabilities, the largest first. */
function rank(logits) {
  const largest = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - largest));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights
    .map((weight, index) => ({ index, share: weight / sum, logit: logits[index] }))
    .sort((a, b) => b.share - a.share || a.index - b.index);
}

const className = (index, labels) => labels?.[index] ?? `class ${index}`;

function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  if (share < 1 && share > 0.9995) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
}

function showClasses(ranked, labels, count = FIRST) {
  const rows = ranked.slice(0, count).map(({ index, share, logit }) => {
    const bar = make("span", { className: "bar", ariaHidden: "true" }, make("span"));
    bar.firstChild.style.width = `${100 * share}%`;
    const name = make("span", { className: "class" }, className(index, labels));
    if (labels) name.title = `class ${index}`;
    const value = make("span", { className: "share", title: `logit ${logit.toPrecision(6)}` });
    value.textContent = percent(share);
    return make("li", {}, name, value, bar);
  });
  $("classes").replaceChildren(...rows);
  const left = ranked.length - rows.length;
  $("more").hidden = left <= 0;
  $("more").textContent = left > STEP ? `Show ${STEP} more of ${left}` : `Show ${left} more`;
  $("more").onclick = () => {
    showClasses(ranked, labels, count + STEP);
    if ($("more").hidden) $("again").focus();
  };
}

function msText(ms) {
  return `${ms.toFixed(ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
}

function showTiming({ totalMs, serverMs, prepareMs, queueMs, inferMs, batch }) {
  $("total").textContent = msText(totalMs);
  const told = { prepare: prepareMs, queue: queueMs, infer: inferMs };
  const work = Object.values(told).reduce((sum, ms) => sum + (ms ?? 0), 0);
  told.serve = serverMs === null ? null : Math.max(0, serverMs - work);
  told.wire = Math.max(0, totalMs - (serverMs ?? work));
  const known = PARTS.filter(([key]) => told[key] !== null);
  $("split").replaceChildren(
    ...known.map(([key]) => {
      const piece = make("span", { className: key });
      piece.style.flexGrow = told[key];
      return piece;
    }),
  );
  const rows = known.map(([key, text]) => {
    const shared = key === "infer" && batch > 1 ? `, a batch of ${batch}` : "";
    return fact(make("span", { className: `key ${key}` }), text + shared, msText(told[key]));
  });
  $("parts").replaceChildren(...rows);
}

const fact = (mark, term, value) =>
  make("div", {}, make("dt", {}, mark, term), make("dd", {}, value));

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** One line on a series of timings. */
function seriesText(timings) {
  const totals = timings.map((timing) => timing.totalMs);
  const engines = timings.map((timing) => timing.inferMs).filter((ms) => ms !== null);
  const range = `${msText(Math.min(...totals))} to ${msText(Math.max(...totals))}`;
  const engine = engines.length ? `; engine ${msText(median(engines))}` : "";
  return `${timings.length} runs, one after the other: median ${msText(median(totals))} (${range})${engine}`;
}
