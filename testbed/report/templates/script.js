"use strict";
// Opens the evidence behind a cell, shows a dissected packet in place, and copies commands. Nothing is fetched or stored.
document.documentElement.classList.add("js");

function setOpen(button, open) {
  button.setAttribute("aria-expanded", String(open));
  const row = document.getElementById(button.getAttribute("aria-controls"));
  row.classList.toggle("open", open);
  const first = row.querySelector("details[open] a[data-packet], .panel > .proof a[data-packet]");
  if (open && first && !row.querySelector(".packet-slot:not(:empty)")) showPacket(first, false);
}

function closeSlot(slot) {
  slot.replaceChildren();
  slot.dataset.shown = "";
  const link = slot.closest("[data-shows]").querySelector("a[data-showing]");
  link?.removeAttribute("data-showing");
  return link;
}

function quoted(word) {
  return /^[\w.\/-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

function command(text) {
  const line = document.createElement("div");
  const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
  line.className = "command";
  line.append(Object.assign(document.createElement("code"), { textContent: text }), button);
  return line;
}

function showPacket(link, go) {
  const slot = link.closest("[data-shows]")?.querySelector(".packet-slot");
  const packet = document.getElementById(link.dataset.packet);
  if (!slot || !packet) return false;
  const again = slot.dataset.shown === link.dataset.packet;
  const isInside = slot.contains(link);
  const before = closeSlot(slot);
  if (again) return true;
  const opener = isInside ? before : link;
  if (opener) opener.dataset.showing = "";
  slot.dataset.shown = link.dataset.packet;
  const { file, frame } = packet.dataset;
  const title = `${file} frame ${frame}`;
  const head = document.createElement("p");
  const close = document.createElement("button");
  head.className = "slot-head";
  head.append(Object.assign(document.createElement("b"), { textContent: title }), close);
  close.type = "button";
  close.className = "quiet close";
  close.textContent = "Close";
  const copy = packet.cloneNode(true);
  copy.removeAttribute("id");
  slot.append(head, copy);
  if (!slot.closest(".proof")) slot.append(command(`wireshark -r ${quoted(file)} -g ${frame}`));
  slot.setAttribute("role", "region");
  slot.setAttribute("aria-label", title);
  slot.tabIndex = -1;
  if (go) {
    slot.focus({ preventScroll: true });
    slot.scrollIntoView({ block: "nearest" });
  }
  return true;
}

async function copy(button) {
  const text = button.parentElement.querySelector("code").textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.parentElement.querySelector("code"));
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    done = document.execCommand("copy");
  }
  button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
  setTimeout(() => { button.textContent = "Copy"; }, 1600);
}

document.addEventListener("click", (event) => {
  const cell = event.target.closest("button.cell");
  if (cell) return setOpen(cell, cell.getAttribute("aria-expanded") !== "true");
  const all = event.target.closest("button.all");
  if (all) {
    const open = all.getAttribute("aria-pressed") !== "true";
    all.setAttribute("aria-pressed", String(open));
    all.textContent = all.textContent.replace(open ? "Open" : "Close", open ? "Close" : "Open");
    document.querySelectorAll("details.reveal").forEach((one) => { one.open = open; });
    return all.closest("section, details")?.querySelectorAll("button.cell").forEach((one) => setOpen(one, open));
  }
  const button = event.target.closest("button.copy");
  if (button) return void copy(button);
  const close = event.target.closest("button.close");
  if (close) return closeSlot(close.closest(".packet-slot"))?.focus();
  const link = event.target.closest("a[data-packet]");
  if (link && showPacket(link, true)) event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const slot = event.target.closest(".packet-slot");
  if (slot) return closeSlot(slot)?.focus();
  const row = event.target.closest("tr.evidence");
  const button = row ? document.querySelector(`button[aria-controls="${row.id}"]`) : event.target.closest("button.cell");
  if (button) { setOpen(button, false); button.focus(); }
});

// On paper, what is folded for the screen but belongs to the story is open: ladders, comparisons, each observer's table,
// not each packet. Afterwards the screen is as it was.
let openedForPaper = [];
addEventListener("beforeprint", () => {
  const folds = "#ladders > details.fold, #twice > details, #others > details, details.seal";
  openedForPaper = [...document.querySelectorAll(folds)].filter((one) => !one.open);
  openedForPaper.forEach((one) => { one.open = true; });
});
addEventListener("afterprint", () => {
  openedForPaper.forEach((one) => { one.open = false; });
  openedForPaper = [];
});
