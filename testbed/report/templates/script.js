"use strict";
// Opens the evidence behind a cell, copies commands, and shows a dissected packet in place. Nothing is fetched or stored.
document.documentElement.classList.add("js");

function setOpen(button, open) {
  button.setAttribute("aria-expanded", String(open));
  document.getElementById(button.getAttribute("aria-controls")).classList.toggle("open", open);
}

function showPacket(link) {
  const slot = link.closest(".proof").querySelector(".packet-slot");
  const packet = document.getElementById(link.dataset.packet);
  if (!slot || !packet) return;
  const again = slot.dataset.shown === link.dataset.packet;
  slot.replaceChildren();
  slot.dataset.shown = again ? "" : link.dataset.packet;
  if (!again) slot.append(packet.querySelector(".opened").cloneNode(true));
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
    all.textContent = open ? "Close all evidence" : "Open all evidence";
    return all.closest("section, details").querySelectorAll("button.cell").forEach((one) => setOpen(one, open));
  }
  const button = event.target.closest("button.copy");
  if (button) return void copy(button);
  const link = event.target.closest("a[data-packet]");
  if (link) { event.preventDefault(); showPacket(link); }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const row = event.target.closest("tr.evidence");
  const button = row ? document.querySelector(`button[aria-controls="${row.id}"]`) : event.target.closest("button.cell");
  if (button) { setOpen(button, false); button.focus(); }
});
