// Sets the chosen theme before the first paint. "system" is the absence of the attribute.
(function () {
  try {
    var theme = localStorage.getItem("muster.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage may be denied; the system's theme is then used.
  }
})();
