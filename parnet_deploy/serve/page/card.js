// The model card: what the server says of the model, in words.

const plain = (value) =>
  value === null || value === undefined || value === ""
    ? ""
    : typeof value === "object"
      ? JSON.stringify(value)
      : String(value);

function preparationText(how) {
  if (!how) return "none: it takes tensors only";
  const { height, width, resize, crop_fraction: fraction, interpolation, mean, std } = how;
  const to = fraction === 1 ? "" : `, the middle ${Number((100 * fraction).toFixed(1))} % kept`;
  const scaled = resize === "stretch" ? "stretched" : "scaled to cover";
  const colours = `mean ${mean.join(", ")}; deviation ${std.join(", ")}`;
  return `${scaled} ${height} × ${width} (${interpolation})${to}; ${colours}`;
}

function tensorText({ name, datatype, shape }) {
  return `${name}: ${datatype} [${shape.map((side) => (side < 0 ? "any" : side)).join(", ")}]`;
}

function showCard(card, metadata) {
  const facts = [
    ["Name", plain(card.name)],
    ["Version", plain(card.version)],
    ["Digest", plain(card.digest)],
    ["Input size", plain(card.input_size).replaceAll("x", " × ").replaceAll(":", " to ")],
    ["Image", "preprocessing" in card ? preparationText(card.preprocessing) : ""],
    ["Classes", classesText(card)],
    ["Backend", plain(card.backend)],
    ["Plan", plain(card.plan)],
    ["Placement", plain(card.placement)],
    ["Precision", plain(card.precision)],
    ["Engine time", Number.isFinite(card.median_ms) ? `${msText(card.median_ms)} (median)` : ""],
    ["Inputs", metadata.inputs?.map(tensorText).join("\n") ?? ""],
    ["Outputs", metadata.outputs?.map(tensorText).join("\n") ?? ""],
  ];
  const known = facts.filter(([, value]) => value !== "");
  $("facts").replaceChildren(...known.map(([term, value]) => fact("", term, value)));
  const checks = card.checks ?? [];
  $("checks-block").hidden = checks.length === 0;
  $("checks").replaceChildren(
    ...checks.map(({ what, result }) =>
      make("li", {}, make("span", {}, plain(what)), make("span", {}, plain(result))),
    ),
  );
  $("card").hidden = false;
}

function classesText({ classes, labels }) {
  const count = plain(classes ?? labels?.length);
  if (!labels?.length) return count && `${count}, without names`;
  const some = labels.slice(0, 10).join(", ");
  return `${count}: ${some}${labels.length > 10 ? ", and so on" : ""}`;
}
