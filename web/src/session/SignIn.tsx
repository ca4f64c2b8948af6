import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useRouter, useSearch } from "@tanstack/react-router";
import type { WalletAccount } from "@wallet-standard/base";
import { useEffect, useState } from "react";
import { asApiError } from "../api/problem";
import type { Network } from "../api/types";
import { Loaded } from "../design/Loaded";
import { Button, Notice, SkeletonRows, Toned } from "../design/parts";
import { Mark } from "../shell/Mark";
import { DEVELOPMENT_PREFIX, developmentWallet } from "../wallet/development";
import { connect, registerOnce, signIn, useWallets, type SolanaWallet } from "../wallet/wallets";
import { challenge, meQuery, networkQuery, redeem } from "./session";

export function SignInPage() {
  const network = useQuery(networkQuery);
  return (
    <main className="sign-in">
      <div className="stack">
        <p className="line">
          <Mark /> <span className="strong">Muster</span>
        </p>
        <h1>Sign in with your wallet</h1>
        <p className="muted">Book Ray clusters on idle GPUs, earn with your own, or check that every token is accounted for. Signing in signs a text; it moves nothing.</p>
      </div>
      <Loaded query={network} skeleton={<SkeletonRows rows={3} height={60} />}>
        {(loaded) => <Wallets network={loaded} />}
      </Loaded>
    </main>
  );
}

const ROLE_WORDS: Record<string, string> = { engineer: "books clusters", owner: "earns with hosts", finance: "pays out and reconciles" };

function Wallets({ network }: { network: Network }) {
  const chain = network.sign_in_chain as `${string}:${string}`;
  const burners = network.burner_wallets;
  useEffect(() => registerOnce((burners ?? []).map((burner) => developmentWallet(burner, chain))), [burners, chain]);
  const wallets = useWallets();
  const development = wallets.filter((wallet) => wallet.name.startsWith(DEVELOPMENT_PREFIX));
  const own = wallets.filter((wallet) => !wallet.name.startsWith(DEVELOPMENT_PREFIX));
  const people = new Map((burners ?? []).map((burner) => [`${DEVELOPMENT_PREFIX}${burner.name}`, burner]));
  const attempt = useSignIn();
  return (
    <div className="stack">
      {attempt.error !== null && (
        <div role="alert">
          <Notice tone="bad">
            <Toned tone="bad">Not signed in</Toned>
            <p>{attempt.error}</p>
          </Notice>
        </div>
      )}
      {(burners?.length ?? 0) > 0 && (
        <section className="stack" data-gap="small" aria-label="Development wallets">
          <h2>Development wallets</h2>
          <p className="muted">This is a local network. These keys are public and worth nothing.</p>
          {development.map((wallet) => {
            const person = people.get(wallet.name);
            return (
              <Button key={wallet.name} className="wallet" onClick={() => attempt.one(wallet)} busy={attempt.busy === wallet.name} disabled={attempt.busy !== null}>
                <span className="wallet-words">
                  <span className="strong">{person?.name ?? wallet.name}</span>
                  <span className="muted">{person === undefined ? "" : (ROLE_WORDS[person.role] ?? person.role)}</span>
                </span>
                <span className="tag">development wallet</span>
              </Button>
            );
          })}
        </section>
      )}
      <section className="stack" data-gap="small" aria-label="Your wallets">
        {(burners?.length ?? 0) > 0 && <h2>Your wallets</h2>}
        {own.map((wallet) => (
          <OwnWallet key={wallet.name} wallet={wallet} attempt={attempt} />
        ))}
        {own.length === 0 && <p className="muted">No Solana wallet was found in this browser. Install one that supports the Wallet Standard, such as Phantom, Solflare or Backpack, and reload.</p>}
      </section>
    </div>
  );
}

type Attempt = ReturnType<typeof useSignIn>;

/** Two clicks, connect and sign: mobile browsers block a wallet call that does not follow a click directly. */
function OwnWallet({ wallet, attempt }: { wallet: SolanaWallet; attempt: Attempt }) {
  const [accounts, setAccounts] = useState<readonly WalletAccount[]>(wallet.accounts);
  const icon = <img src={wallet.icon} alt="" width={20} height={20} />;
  if (accounts.length === 0) {
    return (
      <Button className="wallet" onClick={() => attempt.connect(wallet, setAccounts)} busy={attempt.busy === wallet.name} disabled={attempt.busy !== null}>
        {icon} <span className="wallet-words">{wallet.name}</span>
      </Button>
    );
  }
  return accounts.map((account) => (
    <Button key={account.address} className="wallet" onClick={() => attempt.sign(wallet, account)} busy={attempt.busy === wallet.name} disabled={attempt.busy !== null}>
      {icon}
      <span className="wallet-words">
        <span>Sign in with {wallet.name}</span>
        <span className="mono muted">
          {account.address.slice(0, 6)}…{account.address.slice(-6)}
        </span>
      </span>
    </Button>
  ));
}

function useSignIn() {
  const [busy, setBusy] = useState<string | null>(null);
  const [error, setError] = useState<string | null>(null);
  const queries = useQueryClient();
  const navigate = useNavigate();
  const router = useRouter();
  const { next } = useSearch({ from: "/" });

  const guarded = async (wallet: SolanaWallet, step: () => Promise<void>) => {
    setBusy(wallet.name);
    setError(null);
    try {
      await step();
    } catch (cause) {
      setError(refusal(cause));
    } finally {
      setBusy(null);
    }
  };
  const signWith = async (wallet: SolanaWallet, account: WalletAccount) => {
    const asked = await challenge(account.address);
    const me = await redeem(account.address, await signIn(wallet, account, asked));
    queries.clear();
    queries.setQueryData(meQuery.queryKey, me);
    await navigate({ to: "/", search: next === undefined ? {} : { next } });
    await router.invalidate();
  };
  return {
    busy,
    error,
    connect: (wallet: SolanaWallet, found: (accounts: readonly WalletAccount[]) => void) => void guarded(wallet, async () => found(await connect(wallet))),
    sign: (wallet: SolanaWallet, account: WalletAccount) => void guarded(wallet, () => signWith(wallet, account)),
    one: (wallet: SolanaWallet) =>
      void guarded(wallet, async () => {
        const [account] = await connect(wallet);
        if (account === undefined) throw new Error(`${wallet.name} has no account.`);
        await signWith(wallet, account);
      }),
  };
}

const REJECTED_BY_PERSON = 4001;

function refusal(cause: unknown): string {
  if (typeof cause === "object" && cause !== null && "code" in cause && cause.code === REJECTED_BY_PERSON) return "The wallet declined. Try again and confirm in the wallet.";
  return asApiError(cause).message;
}
