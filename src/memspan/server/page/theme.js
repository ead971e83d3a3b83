"use strict";
// Before anything is painted: the theme that was chosen here, else the system's.
const chosen = localStorage.getItem("memspan.theme");
if (chosen === "light" || chosen === "dark") document.documentElement.className = chosen;
