// One polite live region for what has changed. Ticking numbers never go here.

let region: HTMLElement | null = null;

export function announce(text: string): void {
  if (region === null) {
    region = document.createElement("div");
    region.setAttribute("role", "status");
    region.className = "visually-hidden";
    document.body.append(region);
  }
  // The same text twice would not be read again.
  region.textContent = region.textContent === text ? `${text}\u00a0` : text;
}
