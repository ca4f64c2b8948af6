import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["src/**/*.test.ts"] } },
      // Both read dist/, which the npm scripts build first.
      { test: { name: "size", include: ["test/size.test.ts"] } },
      { test: { name: "pages", include: ["test/pages/**/*.test.ts"], testTimeout: 60_000, hookTimeout: 60_000, fileParallelism: false } },
    ],
  },
});
