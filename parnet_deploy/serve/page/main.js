// What happens when: the state of the page, and who calls whom.

const RUNS = 20;
const RETRIES = 3;
const LOOK_AGAIN_MS = 2000;

const state = {
  cards: [], // of all models
  card: null, // of the chosen one
  metadata: {},
  file: null,
  bytes: null,
  running: null, // AbortController of the request on its way
  onServer: null, // what to do once the server is back
  onToken: null, // what to do again once there is a token
};

function setHealth(kind, text) {
  $("health-dot").className = kind;
  $("health-text").textContent = text;
}

/** Ask until the server is ready, then call back: the newest caller, once. Looks while it is seen. */
async function awaitServer(then) {
  const looking = state.onServer !== null;
  state.onServer = then;
  if (looking) return;
  while (!(await isServerReady())) await new Promise((go) => setTimeout(go, LOOK_AGAIN_MS));
  setHealth("good", "ready");
  const next = state.onServer;
  state.onServer = null;
  next();
}

async function isServerReady() {
  if (document.hidden) return false;
  try {
    await ask("v2/health/ready");
  } catch (error) {
    if (error instanceof Refused) setHealth("wait", "not ready");
    return false;
  }
  return true;
}

async function loadModels() {
  try {
    state.cards = await listModels();
  } catch (error) {
    if (needsToken(error, loadModels)) return;
    setHealth("bad", error instanceof Unreachable ? "no answer" : "not ready");
    if (error instanceof Unreachable || error.status === 503) return awaitServer(loadModels);
    return cardProblem(error.message);
  }
  $("models").replaceChildren(
    ...state.cards.map(({ name }) => make("option", { value: name }, name)),
  );
  $("models-label").hidden = state.cards.length < 2;
  setHealth("good", "ready");
  if (state.cards.length === 0) return cardProblem("This server has no model.");
  await chooseModel(state.card?.name ?? state.cards[0].name);
}

/** The cards; of a server that gives none, the names in its repository. */
async function listModels() {
  try {
    return Object.values((await askJson("card")).models);
  } catch (error) {
    if (error.status !== 404) throw error;
    return askJson("v2/repository/index", { method: "POST" });
  }
}

async function chooseModel(name) {
  state.card = state.cards.find((card) => card.name === name) ?? state.cards[0];
  $("models").value = state.card.name;
  $("name").textContent = state.cards.length > 1 ? "parnet_deploy" : state.card.name;
  document.title = `${state.card.name} - parnet_deploy`;
  state.metadata = {};
  $("card-problem").hidden = true;
  try {
    state.metadata = await askJson(modelPath(state.card.name));
  } catch (error) {
    if (needsToken(error, () => chooseModel(name))) return;
    cardProblem(error.message);
  }
  showCard(state.card, state.metadata);
  showSnippet(state.card.name, state.file);
  const { inputs } = state.metadata;
  if (inputs && !inputs.some((input) => input.name === "encoded_image")) {
    const reason = state.card.tensors_only ?? "its deployment has no preprocessing";
    return cardProblem(`This model takes tensors, not images: ${reason}.`);
  }
  if (state.bytes) await classify();
}

function cardProblem(text) {
  $("card-problem").textContent = text;
  $("card-problem").hidden = false;
  $("card").hidden = false;
}

function needsToken(error, again) {
  if (error.status !== 401) return false;
  setHealth("wait", "wants a token");
  $("token-form").hidden = false;
  $("token-form").firstElementChild.textContent = token ? error.message : "This server wants a token.";
  $("token").focus();
  state.onToken = again;
  return true;
}

async function take(file) {
  state.running?.abort();
  clearTimeout(state.retryTimer);
  state.file = file;
  $("result").hidden = true; // it belongs to the picture before
  showPicture(file, state.card?.preprocessing);
  try {
    state.bytes = await file.arrayBuffer();
  } catch {
    state.bytes = null;
    return showProblem(new Error(`${file.name} cannot be read. Is it a folder, or was it moved?`));
  }
  if (state.card) showSnippet(state.card.name, file);
  await classify();
}

/** Send the image so many times, one after the other, and show the last answer. */
async function classify({ runs = 1, retries = RETRIES } = {}) {
  if (!state.card) return awaitServer(loadModels);
  state.running?.abort();
  clearTimeout(state.retryTimer);
  const running = (state.running = new AbortController());
  const timings = [];
  let answer;
  begin();
  try {
    for (let run = 1; run <= runs; run++) {
      answer = await infer(state.card.name, state.bytes, running.signal);
      timings.push(answer.timing);
      if (runs > 1) $("repeat").textContent = `Run ${run} of ${runs}`;
    }
  } catch (error) {
    if (running.signal.aborted) return;
    if (!needsToken(error, () => classify({ runs }))) showProblem(error, retries);
    return finish();
  }
  if (running.signal.aborted) return;
  finish();
  showAnswer(answer, timings);
}

function begin() {
  $("answer").hidden = false;
  $("problem").hidden = true;
  $("series").textContent = "";
  $("working").hidden = !$("result").hidden;
  $("result").ariaBusy = "true";
  $("again").disabled = $("repeat").disabled = true;
}

function finish() {
  $("repeat").textContent = `Run ${RUNS} times`;
  $("working").hidden = true;
  $("result").ariaBusy = "false";
  $("again").disabled = $("repeat").disabled = false;
}

function showAnswer({ logits, timing }, timings) {
  setHealth("good", "ready");
  const { labels } = state.card;
  const ranked = rank(logits);
  showClasses(ranked, labels);
  showTiming(timing);
  $("series").textContent = timings.length > 1 ? seriesText(timings) : "";
  $("result").hidden = false;
  const [best] = ranked;
  $("said").textContent = `Most likely ${className(best.index, labels)}, ${percent(best.share)}`;
}

/** Say what went wrong; after a busy server's own waiting time, try again a few times. */
function showProblem(error, retries = 0) {
  $("answer").hidden = false;
  $("result").hidden = true;
  $("problem").hidden = false;
  $("problem-text").textContent = error.message;
  $("problem-next").textContent = "";
  const mayPass = error instanceof Unreachable || error.status >= 500 || error.status === 408;
  $("retry").hidden = !(state.bytes && mayPass);
  if (error instanceof Unreachable) {
    setHealth("bad", "no answer");
    $("problem-next").textContent = "This page goes on when the server is back.";
    awaitServer(() => state.running?.signal.aborted || classify());
  } else if (error.status === 503 && retries > 0 && Number.isFinite(error.retryAfterS)) {
    countDown(Math.ceil(error.retryAfterS), retries - 1);
  }
}

function countDown(seconds, retries) {
  $("problem-next").textContent = `Trying again in ${seconds} s.`;
  if (seconds <= 0) return classify({ retries });
  state.retryTimer = setTimeout(() => countDown(seconds - 1, retries), 1000);
}

function setUp() {
  $("file").onchange = () => {
    const [file] = $("file").files;
    $("file").value = ""; // so that the same file can be picked again
    if (file) take(file);
  };
  const takeFrom = (transfer) => {
    try {
      take(fileOf(transfer));
    } catch (error) {
      showProblem(error);
    }
  };
  document.addEventListener("paste", (event) => {
    if (event.target.matches?.("input")) return;
    takeFrom(event.clipboardData);
  });
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    dragging(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || dragging(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(false);
    takeFrom(event.dataTransfer);
  });
  $("token-form").onsubmit = (event) => {
    event.preventDefault();
    token = $("token").value;
    $("token").value = "";
    $("token-form").hidden = true;
    state.onToken?.();
  };
  $("models").onchange = () => chooseModel($("models").value);
  $("again").onclick = () => classify();
  $("repeat").onclick = () => classify({ runs: RUNS });
  $("retry").onclick = () => classify();
  setUpSnippets(() => state.card && showSnippet(state.card.name, state.file));
  loadModels();
}

setUp();
