// The model card: what the server says of the model, in words.

const STEPS = {
  fuse: "Fused against the trained network",
  export: "Exported graphs against the trained network",
  verify: "Engines against the reference",
  canary: "Engines when they were opened",
};

const plain = (value) =>
  value === null || value === undefined
    ? ""
    : typeof value === "object"
      ? JSON.stringify(value)
      : String(value);

function preparationText(how) {
  if (!how) return "none: it takes tensors only";
  const { height, width, resize, crop_fraction: fraction, interpolation, mean, std } = how;
  const to = fraction === 1 ? "" : `, the middle ${Number((100 * fraction).toFixed(1))} % kept`;
  const scaled = resize === "stretch" ? "stretched to" : "scaled to cover";
  const colours = `mean ${mean.join(", ")}; deviation ${std.join(", ")}`;
  return `${scaled} ${height} × ${width} (${interpolation})${to}; ${colours}`;
}

function tensorText({ name, datatype, shape }) {
  return `${name}: ${datatype} [${shape.map((side) => (side < 0 ? "any" : side)).join(", ")}]`;
}

function placementText(placement) {
  const segments = placement?.segments;
  if (!segments) return plain(placement);
  const devices = [...new Set(segments.map((segment) => segment.device))].sort((a, b) => a - b);
  const engines = segments.length === 1 ? "one engine" : `${segments.length} engines`;
  return `${engines}, device ${devices.join(", ")} (${placement.name})`;
}

function classesText({ classes, labels }) {
  const count = plain(classes ?? labels?.length);
  if (!labels?.length) return count && `${count}, without names`;
  const some = labels.slice(0, 10).join(", ");
  return `${count}: ${some}${labels.length > 10 ? ", and so on" : ""}`;
}

/** Every comparison in a report: objects that hold an error and its limit. */
function* comparisons(report) {
  if (report === null || typeof report !== "object") return;
  if (Number.isFinite(report.error) && Number.isFinite(report.tolerance)) yield report;
  else for (const inner of Object.values(report)) yield* comparisons(inner);
}

/** The comparison of a report that came closest to its limit, in words; "" if there is none. */
function checkText(report) {
  const all = [...comparisons(report)];
  if (all.length === 0) return "";
  const ratio = ({ error, tolerance }) => error / tolerance;
  const { error, tolerance } = all.reduce((a, b) => (ratio(b) > ratio(a) ? b : a));
  const passed = all.every((one) => one.passed !== false);
  const difference = `${error.toExponential(1)} of the largest value, limit ${tolerance}`;
  return `${passed ? "passed" : "FAILED"}: ${difference}`;
}

function showCard(card, metadata) {
  const running = { ...card, ...card.running };
  const { median_ms: medianMs, max_batch: maxBatch } = running;
  const parameters = card.source?.parameters;
  const facts = [
    ["Name", plain(card.name)],
    ["Digest", plain(card.digest).slice(0, 16)],
    ["Parameters", parameters ? parameters.toLocaleString("en") : ""],
    ["Classes", classesText(card)],
    ["Input size", plain(running.input_size).replaceAll("x", " × ").replaceAll(":", " to ")],
    ["Image", "preprocessing" in card ? preparationText(card.preprocessing) : ""],
    ["Precision", plain(running.precision)],
    ["Backend", plain(running.backend)],
    ["Plan", plain(running.plan)],
    ["Placement", placementText(running.placement)],
    ["Engine time", Number.isFinite(medianMs) ? `${msText(medianMs)}, median when built` : ""],
    ["Batch", maxBatch ? `up to ${maxBatch}` : ""],
    ["Inputs", metadata.inputs?.map(tensorText).join("\n") ?? ""],
    ["Outputs", metadata.outputs?.map(tensorText).join("\n") ?? ""],
  ];
  showPairs("facts", facts);
  const reports = { ...card.evidence, canary: running.canary };
  const checks = Object.entries(STEPS).map(([key, text]) => [text, checkText(reports[key])]);
  $("checks-block").hidden = !showPairs("checks", checks);
  for (const result of $("checks").querySelectorAll("dd")) {
    result.classList.toggle("failed", result.textContent.startsWith("FAILED"));
  }
  $("card").hidden = false;
}

/** Rows of a list of facts, without those of which nothing is known; how many there are. */
function showPairs(id, pairs) {
  const known = pairs.filter(([, value]) => value !== "");
  $(id).replaceChildren(...known.map(([term, value]) => fact("", term, value)));
  return known.length;
}
