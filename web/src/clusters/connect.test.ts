import { describe, expect, it } from "vitest";
import { jobSnippet, pythonSnippet } from "./connect";

const token = {
  token: "secret-token",
  expires_at: "2026-11-22T13:00:00Z",
  env: { RAY_API_SERVER_ADDRESS: "http://127.0.0.1:8080/v1/clusters/cl_1/ray", RAY_AUTH_MODE: "token", RAY_AUTH_TOKEN: "secret-token" },
};

describe("snippets", () => {
  it.each([jobSnippet(token), pythonSnippet(token)])("mask the token on screen and copy it whole", (snippet) => {
    expect(snippet.shown).not.toContain("secret-token");
    expect(snippet.shown).toContain("/v1/clusters/cl_1/ray");
    expect(snippet.copied).toContain("secret-token");
  });

  it("quotes what a shell would read", () => {
    const odd = { ...token, env: { X: "it's $HOME" } };
    expect(jobSnippet(odd).copied).toContain(`export X='it'\\''s $HOME'`);
  });
});
