// The same request from a program.

const shellText = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function curlSnippet(url, file, withToken) {
  const json = inferHead("SIZE", { classification: FIRST }).replace(',"outputs"', ',\n "outputs"');
  const [before, after] = json.split('"SIZE"');
  const auth = withToken ? '  -H "Authorization: Bearer $TOKEN" \\\n' : "";
  return `image=${shellText(file)}
size=$(wc -c < "$image")
json='${before}'$((size + 4))'${after}'
{ printf %s "$json"
  printf %b "$(printf '\\\\0%03o' $((size & 255)) $((size >> 8 & 255)) $((size >> 16 & 255)) $((size >> 24)))"
  cat "$image"
} | curl -sS ${shellText(url)} \\
  -H "Inference-Header-Content-Length: \${#json}" \\
${auth}  --data-binary @-`;
}

function pythonSnippet(url, file, withToken) {
  const auth = withToken ? '\n    "Authorization": f"Bearer {os.environ[\'TOKEN\']}",' : "";
  return `import json, ${withToken ? "os, " : ""}struct, urllib.request

image = open(${JSON.stringify(file)}, "rb").read()
head = json.dumps({
    "inputs": [{
        "name": "encoded_image", "datatype": "BYTES", "shape": [1],
        "parameters": {"binary_data_size": 4 + len(image)},
    }],
    "outputs": [{"name": "logits", "parameters": {"classification": ${FIRST}}}],
}).encode()
headers = {
    "Content-Type": "application/octet-stream",
    "Inference-Header-Content-Length": str(len(head)),${auth}
}
body = head + struct.pack("<I", len(image)) + image
request = urllib.request.Request(${JSON.stringify(url)}, body, headers)
with urllib.request.urlopen(request) as response:
    print(json.load(response)["outputs"][0]["data"])  # "logit:class:label"`;
}

const SNIPPETS = { curl: curlSnippet, python: pythonSnippet };
let language = "curl";

function showSnippet(model, file) {
  const url = address(`${modelPath(model)}/infer`);
  $("code").textContent = SNIPPETS[language](url, file?.name || "photo.jpg", token !== "");
  $("program").hidden = false;
}

function setUpSnippets(redraw) {
  const tabs = [$("tab-curl"), $("tab-python")];
  const select = (tab) => {
    for (const one of tabs) {
      one.ariaSelected = String(one === tab);
      one.tabIndex = one === tab ? 0 : -1;
    }
    language = tab.id.replace("tab-", "");
    $("snippet").setAttribute("aria-labelledby", tab.id);
    redraw();
  };
  for (const tab of tabs) {
    tab.onclick = () => select(tab);
    tab.onkeydown = (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = tabs[1 - tabs.indexOf(tab)];
      other.focus();
      select(other);
    };
  }
  $("copy").onclick = async () => {
    const done = await copyText($("code"));
    $("copy").textContent = done ? "Copied" : "Selected: press Ctrl+C";
    setTimeout(() => ($("copy").textContent = "Copy"), 2000);
  };
}

/** Browsers give the clipboard to secure pages only; elsewhere the text is selected and copied. */
async function copyText(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}
