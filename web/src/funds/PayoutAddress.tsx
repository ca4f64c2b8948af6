// Where an organisation's money goes on the chain. The server wants a wallet signature of the last minutes for a change, so saving
// signs in anew with the wallet that this person signed in with.
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { client, unwrap } from "../api/client";
import { asApiError } from "../api/problem";
import { useAction } from "../api/useAction";
import { ActionError, Loaded } from "../design/Loaded";
import { Button, Dialog, Field, Notice, ShortId } from "../design/parts";
import { challenge, meQuery, networkQuery, redeem } from "../session/session";
import { developmentWallet } from "../wallet/development";
import { connect, registerOnce, signIn, useWallets, type SolanaWallet } from "../wallet/wallets";

const SHORTEST_ADDRESS = 32;
const LONGEST_ADDRESS = 44;

export function PayoutAddressButton({ org, current }: { org: string; current: string | undefined }) {
  const [open, setOpen] = useState(false);
  const close = () => setOpen(false);
  return (
    <>
      <Button size="small" onClick={() => setOpen(true)}>
        {current === undefined || current === "" ? "Set a payout address" : "Change"}
      </Button>
      <Dialog open={open} title="Payout address" onClose={close}>
        <PayoutAddress org={org} current={current} onDone={close} onClose={close} />
      </Dialog>
    </>
  );
}

/** The form alone; without onDone it stays until the membership shows the address. */
export function PayoutAddress({ org, current, onDone, onClose }: { org: string; current: string | undefined; onDone: (() => void) | undefined; onClose: () => void }) {
  const me = useQuery(meQuery);
  const network = useQuery(networkQuery);
  const [address, setAddress] = useState("");
  const wallets = useWallets();
  const burners = network.data?.burner_wallets;
  const chain = network.data?.sign_in_chain as `${string}:${string}` | undefined;
  useEffect(() => {
    if (chain !== undefined) registerOnce((burners ?? []).map((burner) => developmentWallet(burner, chain)));
  }, [burners, chain]);
  const save = useAction({
    run: async ({ wallet, to }: { wallet: string; to: string }, header) => {
      await signAnew(
        wallets.find((one) => one.name === wallet),
        me.data?.wallet_address ?? "",
      );
      return unwrap(client.PUT("/v1/organisation/payout-address", { params: { query: { org }, header }, body: { address: to } }));
    },
    invalidates: [meQuery.queryKey],
    done: "Payout address saved",
    onDone: () => onDone?.(),
  });
  const mistake = save.error === null ? undefined : asApiError(save.error).fields.find((field) => field.path.includes("address"))?.message;
  const valid = address.length >= SHORTEST_ADDRESS && address.length <= LONGEST_ADDRESS;
  return (
    <Loaded query={me}>
      {(person) => (
        <div className="stack">
          <p>Earnings and withdrawals are sent to one wallet of your organisation, and no other. {current === undefined || current === "" ? "It has none yet." : ""}</p>
          {current !== undefined && current !== "" && (
            <p className="line" data-gap="small">
              Now <ShortId id={current} what="Payout address" keep={8} />
            </p>
          )}
          <Field label="New payout address" hint="A wallet whose keys you hold: not a token account, and not a deposit address of an exchange" error={mistake}>
            {(props) => <input {...props} className="input mono" autoComplete="off" spellCheck={false} maxLength={LONGEST_ADDRESS} value={address} onChange={(event) => setAddress(event.target.value.trim())} />}
          </Field>
          {mistake === undefined && <ActionError error={save.error} />}
          <Notice tone="unknown">
            <p>
              To save it, sign once more with the wallet that you signed in with, <ShortId id={person?.wallet_address ?? ""} what="Your wallet" keep={4} />. Signing moves nothing.
            </p>
          </Notice>
          <div className="dialog-actions">
            <Button onClick={onClose}>Close</Button>
            {candidates(wallets, person?.wallet_address).map((wallet, _, all) => (
              <Button key={wallet.name} look="primary" busy={save.isPending} disabled={!valid} title={wallet.name} onClick={() => save.mutate({ wallet: wallet.name, to: address })}>
                {all.length === 1 ? "Sign and save" : `Sign with ${wallet.name} and save`}
              </Button>
            ))}
          </div>
          {wallets.length === 0 && <p className="muted">No Solana wallet was found in this browser.</p>}
        </div>
      )}
    </Loaded>
  );
}

/** The wallets that are known to hold an account, or else all: most tell their accounts only once they are connected. */
function candidates(wallets: readonly SolanaWallet[], address: string | undefined): readonly SolanaWallet[] {
  const known = wallets.filter((wallet) => wallet.accounts.some((account) => account.address === address));
  return known.length > 0 ? known : wallets;
}

async function signAnew(wallet: SolanaWallet | undefined, address: string): Promise<void> {
  if (wallet === undefined) throw new Error("The wallet is gone. Reload the page.");
  const account = (await connect(wallet)).find((one) => one.address === address);
  if (account === undefined) throw new Error(`${wallet.name} does not hold the account that you signed in with. Choose it in the wallet, or another wallet.`);
  await redeem(address, await signIn(wallet, account, await challenge(address)));
}
