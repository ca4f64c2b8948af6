// Development wallets: the local network publishes the keys of three people, and this registers them as Wallet Standard
// wallets, so that signing in takes the same path as with a real one. They exist only where GET /v1/network lists them.
import type { SolanaSignInFeature, SolanaSignMessageFeature } from "@solana/wallet-standard-features";
import { SolanaSignIn, SolanaSignMessage } from "@solana/wallet-standard-features";
import type { Wallet, WalletAccount, WalletIcon } from "@wallet-standard/base";
import type { StandardConnectFeature, StandardEventsFeature } from "@wallet-standard/features";
import { StandardConnect, StandardEvents } from "@wallet-standard/features";
import { fromBase64 } from "./base58";
import { signInText } from "./message";

/** A burner wallet as the API lists it. */
export interface PublishedKey {
  name: string;
  address: string;
  secret_key: string;
}

export const DEVELOPMENT_PREFIX = "Development wallet: ";

const SEED_BYTES = 32;
const KEY_BYTES = 64;

// PKCS #8 framing of an Ed25519 seed (RFC 8410), the only private form that WebCrypto imports.
const PKCS8_PREFIX = Uint8Array.from([0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20]);

const ICON: WalletIcon =
  "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciIHZpZXdCb3g9IjAgMCAxNiAxNiI+PGNpcmNsZSBjeD0iOCIgY3k9IjgiIHI9IjciIGZpbGw9IiM1YjYxNmIiLz48L3N2Zz4=";

export function developmentWallet(published: PublishedKey, chain: `${string}:${string}`): Wallet {
  const secret = fromBase64(published.secret_key);
  if (secret.length !== KEY_BYTES) throw new RangeError("a development wallet's key has 64 bytes");
  const account: WalletAccount = {
    address: published.address,
    publicKey: secret.slice(SEED_BYTES),
    chains: [chain],
    features: [SolanaSignIn, SolanaSignMessage],
  };
  const sign = (message: Uint8Array) => signEd25519(secret.slice(0, SEED_BYTES), message);
  const features: StandardConnectFeature & StandardEventsFeature & SolanaSignInFeature & SolanaSignMessageFeature = {
    [StandardConnect]: { version: "1.0.0", connect: () => Promise.resolve({ accounts: [account] }) },
    // Its one account never changes, so there is nothing to tell.
    [StandardEvents]: { version: "1.0.0", on: () => () => undefined },
    [SolanaSignIn]: {
      version: "1.0.0",
      signIn: (...inputs) =>
        Promise.all(
          inputs.map(async (input) => {
            const text = signInText({ ...input, domain: input.domain ?? location.host, address: input.address ?? account.address });
            const signedMessage = new TextEncoder().encode(text);
            return { account, signedMessage, signature: await sign(signedMessage), signatureType: "ed25519" as const };
          }),
        ),
    },
    [SolanaSignMessage]: {
      version: "1.0.0",
      signMessage: (...inputs) =>
        Promise.all(inputs.map(async ({ message }) => ({ signedMessage: message, signature: await sign(message), signatureType: "ed25519" as const }))),
    },
  };
  return { version: "1.0.0", name: `${DEVELOPMENT_PREFIX}${published.name}`, icon: ICON, chains: [chain], accounts: [account], features };
}

async function signEd25519(seed: Uint8Array, message: Uint8Array): Promise<Uint8Array> {
  const pkcs8 = new Uint8Array(PKCS8_PREFIX.length + seed.length);
  pkcs8.set(PKCS8_PREFIX);
  pkcs8.set(seed, PKCS8_PREFIX.length);
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, { name: "Ed25519" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign({ name: "Ed25519" }, key, Uint8Array.from(message)));
}
