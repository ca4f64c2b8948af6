import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// MUSTER_API_URL names a running musterd for `npm run dev`; the built console is served by musterd itself.
const api = process.env.MUSTER_API_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2022",
    manifest: true,
    // Inlined fonts would land in the style sheet that blocks the first paint.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/v1": api } },
});
