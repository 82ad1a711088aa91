// Asks the console for its page again every two seconds and changes only what differs, so that focus, selection and open details stay.
"use strict";

const every = 2000;
let active = false; // whether the person did something since the last poll: only that keeps a session alive
let refreshed = 0;
let lastGood = new Date();

for (const event of ["pointerdown", "keydown", "wheel", "touchstart"]) {
  addEventListener(event, () => { active = true; }, { passive: true });
}

const clock = (at) => at.toLocaleTimeString([], { hourCycle: "h23" });

// Times come in UTC, for pages without a script; people think in their own.
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    time.textContent = clock(at);
    time.title = at.toLocaleString();
  }
}

function morph(old, now) {
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || old.id !== now.id) {
    old.replaceWith(now);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== now.data) old.data = now.data;
    return;
  }
  for (const { name, value } of now.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !now.hasAttribute(name)) old.removeAttribute(name);
  }
  const before = [...old.childNodes], after = [...now.childNodes];
  after.forEach((child, i) => (i < before.length ? morph(before[i], child) : old.append(child)));
  before.slice(after.length).forEach((child) => child.remove());
}

async function poll() {
  if (document.hidden) return;
  const headers = active ? { "X-User-Active": "1" } : {};
  active = false;
  let answer;
  try {
    answer = await fetch("/live", { headers, signal: AbortSignal.timeout(8000) });
  } catch {
    answer = null;
  }
  if (answer && (answer.status === 401 || answer.status === 403)) {
    location.assign("/"); // leads to the login
    return;
  }
  const live = document.getElementById("live");
  document.body.classList.toggle("stale", !answer?.ok);
  if (!answer?.ok) {
    document.getElementById("beat").textContent = "No answer from the console since " + clock(lastGood);
    return;
  }
  const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
  localTimes(next);
  morph(live, next);
  lastGood = new Date();
  document.title = (document.querySelector(".summary.bad") ? "● " : "") + "Trading platform";
  if (live.dataset.refresh === "true" && Date.now() - refreshed > 20000) {
    refreshed = Date.now();
    const renewal = await fetch("/refresh", { method: "POST" }).catch(() => null);
    if (renewal?.status === 401) location.assign("/");
  }
}

async function beat() {
  try {
    await poll();
  } finally {
    setTimeout(beat, every);
  }
}

localTimes(document);
setTimeout(beat, every);
document.addEventListener("visibilitychange", poll);
