// Before the first paint: the theme that was chosen last, where the browser lets pages remember anything.
try {
  const theme = localStorage.getItem("thresh.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage is forbidden here */ }
// Sections are drawn while they are hidden, so that nothing that was painted moves.
document.documentElement.classList.add("drawing");
