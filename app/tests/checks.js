// Returns a list of descriptions of everything on the page that is cut off, broken or hard to read.
() => {
  const found = [], wide = document.documentElement.clientWidth;
  for (const one of document.querySelectorAll("details")) one.open = true;
  const name = (e) => `<${e.localName} class="${e.getAttribute("class") ?? ""}"> ${(e.textContent ?? "").trim().slice(0, 40)}`;
  const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {  // of any way to write it
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] / 255 + below[i] * (1 - top[3] / 255));
  const print = matchMedia("print").matches, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const canvasColour = getComputedStyle(document.documentElement).colorScheme.includes("dark") && dark && !print
    ? [18, 18, 18] : [255, 255, 255];
  const behind = (e) => {
    if (!e) return canvasColour;
    const style = getComputedStyle(e);
    if (print && style.printColorAdjust !== "exact") return behind(e.parentElement);  // paper stays white
    const own = rgba(style.backgroundColor);
    return own[3] === 255 ? own.slice(0, 3) : over(own, behind(e.parentElement));
  };
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  if (document.documentElement.scrollWidth > innerWidth)
    found.push(`the page is ${document.documentElement.scrollWidth} px wide in a window of ${innerWidth}`);
  for (const e of document.body.querySelectorAll("*")) {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    if (box.width < 2 || box.height < 2 || style.visibility === "hidden" || !e.checkVisibility()) continue;
    if (e.localName === "img" && !(e.complete && e.naturalWidth)) found.push(`not loaded: ${e.src.slice(0, 80)}`);
    const says = [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!says && e.localName !== "img" && e.localName !== "svg") continue;
    const all = document.createRange();
    all.selectNodeContents(e);
    const text = all.getBoundingClientRect();  // may be wider than its box
    if (says && text.width && text.right > wide + 1 && !scrolls(e.parentElement) && !scrolls(e)) found.push(`text beyond the window: ${name(e)}`);
    if ((box.left < -1 || box.right > wide + 1) && !scrolls(e.parentElement)) found.push(`beyond the window: ${name(e)}`);
    if (/hidden|clip/.test(style.overflowX) && e.scrollWidth > e.clientWidth + 1 && style.textOverflow !== "ellipsis")
      found.push(`cut off: ${name(e)}`);
    const drawing = e.closest("svg");
    if (drawing && e !== drawing) {
      const frame = drawing.getBoundingClientRect();
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        if (getComputedStyle(drawing).overflow !== "visible") found.push(`beyond its drawing: ${name(e)}`);
    } else if (says) {
      const below = behind(e), colour = over(rgba(style.color), below);
      if (contrast(colour, below) < 3) found.push(`hardly to be read, ${colour.map(Math.round)} on ${below.map(Math.round)}: ${name(e)}`);
    }
  }
  return found;
}
