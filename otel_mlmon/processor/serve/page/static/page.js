// Times in the reader's own zone, and the page fetched again when the processor has news. Without script: reload.
"use strict";
const pad = (number) => String(number).padStart(2, "0");

function addLocalTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const moment = new Date(element.dateTime);
    element.dataset.local = "yes";
    if (!moment.getTimezoneOffset()) continue;
    const clock = [moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(pad).join(":");
    element.textContent = `${clock} here, ${element.textContent}`;
  }
}

async function refresh() {
  if (document.hidden || document.getSelection().type === "Range" || document.activeElement.tagName === "INPUT") return;
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const focus = document.activeElement.getAttribute("href");
  for (const place of ["main", "nav[aria-label=Pages]", ".asof"]) {
    const [before, now] = [document.querySelector(place), page.querySelector(place)];
    if (before && now) before.replaceChildren(...now.childNodes);
  }
  addLocalTimes(document);
  showLive();
  if (focus) document.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
}

function showLive() {
  document.getElementById("live").textContent = source.readyState === EventSource.OPEN ? ", live" : "";
}

let pending = false;
const source = new EventSource("/updates");
source.onopen = source.onerror = showLive;
source.onmessage = () => {
  if (pending) return;
  pending = true;
  setTimeout(() => refresh().catch(() => {}).finally(() => { pending = false; }), 300);
};
document.addEventListener("visibilitychange", () => refresh().catch(() => {}));
addLocalTimes(document);
