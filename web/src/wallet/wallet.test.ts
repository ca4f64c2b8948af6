import type { SolanaSignInFeature } from "@solana/wallet-standard-features";
import { SolanaSignIn } from "@solana/wallet-standard-features";
import { generateKeyPairSync, verify } from "node:crypto";
import { describe, expect, it, vi } from "vitest";
import { base58, base64, fromBase64 } from "./base58";
import { developmentWallet } from "./development";
import { signInText } from "./message";
import { canSignIn, connect, signIn, type SignInChallenge } from "./wallets";

const CHALLENGE: SignInChallenge = {
  domain: "console.example",
  address: "overwritten",
  statement: "Sign in to Muster.",
  uri: "https://console.example",
  version: "1",
  chainId: "localnet",
  nonce: "abcdefgh12345678",
  issuedAt: "2026-11-22T12:00:00Z",
  expirationTime: "2026-11-22T12:05:00Z",
  text: "the server's own text",
};

function keyPair() {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const seed = privateKey.export({ format: "der", type: "pkcs8" }).subarray(-32);
  const raw = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  return { publicKey, address: base58(raw), secret: base64(Buffer.concat([seed, raw])) };
}

describe("base58", () => {
  it("keeps leading zeros", () => {
    expect(base58(new Uint8Array(32))).toBe("1".repeat(32));
    expect(base58(new TextEncoder().encode("Hello World!"))).toBe("2NEpo7TZRRrLZSi2U");
  });
  it("base64 goes there and back", () => {
    expect([...fromBase64(base64(Uint8Array.from([0, 255, 7])))]).toEqual([0, 255, 7]);
  });
});

describe("the sign-in text", () => {
  it("follows the standard's grammar", () => {
    expect(signInText({ ...CHALLENGE, domain: "console.example", address: "Addr" })).toBe(
      [
        "console.example wants you to sign in with your Solana account:",
        "Addr",
        "",
        "Sign in to Muster.",
        "",
        "URI: https://console.example",
        "Version: 1",
        "Chain ID: localnet",
        "Nonce: abcdefgh12345678",
        "Issued At: 2026-11-22T12:00:00Z",
        "Expiration Time: 2026-11-22T12:05:00Z",
      ].join("\n"),
    );
  });
  it("leaves out what is absent", () => {
    expect(signInText({ domain: "d", address: "a" })).toBe("d wants you to sign in with your Solana account:\na");
  });
});

describe("a development wallet", () => {
  it("signs in with a signature that verifies under its address", async () => {
    const key = keyPair();
    const wallet = developmentWallet({ name: "Ada", address: key.address, secret_key: key.secret }, "solana:localnet");
    if (!canSignIn(wallet)) throw new Error("a development wallet must be able to sign in");
    const [account] = await connect(wallet);
    if (account === undefined) throw new Error("no account");
    const signed = await signIn(wallet, account, { ...CHALLENGE, address: account.address });
    expect(new TextDecoder().decode(signed.message)).toContain(key.address);
    expect(verify(null, signed.message, key.publicKey, signed.signature)).toBe(true);
  });

  it("refuses a key of the wrong length", () => {
    expect(() => developmentWallet({ name: "Ada", address: "a", secret_key: base64(new Uint8Array(32)) }, "solana:localnet")).toThrow(/64 bytes/);
  });
});

describe("choosing the feature", () => {
  const key = keyPair();
  const full = developmentWallet({ name: "Ada", address: key.address, secret_key: key.secret }, "solana:localnet");

  it("falls back to signing the server's text", async () => {
    const plain = { ...full, features: Object.fromEntries(Object.entries(full.features).filter(([name]) => name !== SolanaSignIn)) };
    if (!canSignIn(plain)) throw new Error("signMessage suffices");
    const account = plain.accounts[0];
    if (account === undefined) throw new Error("no account");
    const signed = await signIn(plain, account, CHALLENGE);
    expect(new TextDecoder().decode(signed.message)).toBe("the server's own text");
  });

  it("says which wallet returned nothing", async () => {
    const feature: SolanaSignInFeature[typeof SolanaSignIn] = { version: "1.0.0", signIn: vi.fn().mockResolvedValue([]) };
    const silent = { ...full, name: "Silent", features: { ...full.features, [SolanaSignIn]: feature } };
    if (!canSignIn(silent)) throw new Error("it has the features");
    const account = silent.accounts[0];
    if (account === undefined) throw new Error("no account");
    await expect(signIn(silent, account, CHALLENGE)).rejects.toThrow("Silent returned no signature");
  });

  it("leaves out wallets of other chains and without signatures", () => {
    expect(canSignIn({ ...full, chains: ["bitcoin:mainnet"] })).toBe(false);
    expect(canSignIn({ ...full, features: {} })).toBe(false);
  });
});
