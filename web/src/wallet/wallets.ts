// The wallets that this page can use, by the Wallet Standard's registry.
import type { SolanaSignInFeature, SolanaSignInInput, SolanaSignMessageFeature } from "@solana/wallet-standard-features";
import { SolanaSignIn, SolanaSignMessage } from "@solana/wallet-standard-features";
import { getWallets } from "@wallet-standard/app";
import type { Wallet, WalletAccount } from "@wallet-standard/base";
import type { StandardConnectFeature } from "@wallet-standard/features";
import { StandardConnect } from "@wallet-standard/features";
import { useSyncExternalStore } from "react";

export type SolanaWallet = Wallet & { features: StandardConnectFeature };

/** What a wallet signed, as the server wants it. */
export interface Signed {
  message: Uint8Array;
  signature: Uint8Array;
}

/** The server's sign-in input: the fields for solana:signIn, and the text of the same fields for signMessage. */
export type SignInChallenge = SolanaSignInInput & { text: string };

/** Whether a wallet can connect to Solana and sign somebody in, by either feature. */
export function canSignIn(wallet: Wallet): wallet is SolanaWallet {
  return (
    StandardConnect in wallet.features &&
    (SolanaSignIn in wallet.features || SolanaSignMessage in wallet.features) &&
    wallet.chains.some((chain) => chain.startsWith("solana:"))
  );
}

export async function connect(wallet: SolanaWallet): Promise<readonly WalletAccount[]> {
  const { accounts } = await wallet.features[StandardConnect].connect();
  return accounts;
}

/** Asks the wallet for a sign-in signature: solana:signIn where it has it, else the plain text by signMessage. */
export async function signIn(wallet: SolanaWallet, account: WalletAccount, challenge: SignInChallenge): Promise<Signed> {
  const { text, ...input } = challenge;
  if (SolanaSignIn in wallet.features) {
    const feature = (wallet.features as unknown as SolanaSignInFeature)[SolanaSignIn];
    const [output] = await feature.signIn(input);
    if (output === undefined) throw new Error(`${wallet.name} returned no signature`);
    return { message: output.signedMessage, signature: output.signature };
  }
  const feature = (wallet.features as unknown as SolanaSignMessageFeature)[SolanaSignMessage];
  const [output] = await feature.signMessage({ account, message: new TextEncoder().encode(text) });
  if (output === undefined) throw new Error(`${wallet.name} returned no signature`);
  return { message: output.signedMessage, signature: output.signature };
}

let snapshot: readonly SolanaWallet[] | null = null;

function read(): readonly SolanaWallet[] {
  snapshot ??= getWallets().get().filter(canSignIn);
  return snapshot;
}

function subscribe(changed: () => void): () => void {
  const update = () => {
    snapshot = null;
    changed();
  };
  // A wallet may have announced itself between the first reading and this subscription.
  snapshot = null;
  const offs = [getWallets().on("register", update), getWallets().on("unregister", update)];
  return () => offs.forEach((off) => off());
}

/** The usable wallets, kept current while extensions announce themselves. */
export function useWallets(): readonly SolanaWallet[] {
  return useSyncExternalStore(subscribe, read);
}

const registered = new Set<string>();

/** Registers wallets once each, however often the caller renders. */
export function registerOnce(wallets: readonly Wallet[]): void {
  const fresh = wallets.filter((wallet) => !registered.has(wallet.name));
  fresh.forEach((wallet) => registered.add(wallet.name));
  if (fresh.length > 0) getWallets().register(...fresh);
}
