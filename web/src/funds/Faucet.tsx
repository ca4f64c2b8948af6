import { useQuery } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import { ActionError } from "../design/Loaded";
import { Button } from "../design/parts";
import { networkQuery } from "../session/session";

const AMOUNT = "100";

/** Test tokens, on a local network only: a real transfer to the deposit address, credited once it is final. */
export function Faucet({ org }: { org: string }) {
  const network = useQuery(networkQuery);
  const faucet = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/local/faucet", { params: { query: { org }, header }, body: { amount: AMOUNT } })),
    invalidates: [["wallet", org]],
    done: "Test tokens sent",
  });
  if (network.data?.name !== "local") return null;
  return (
    <>
      <Button onClick={() => faucet.mutate(undefined)} busy={faucet.isPending}>
        Add {AMOUNT} test {network.data.symbol}
      </Button>
      <ActionError error={faucet.error} />
    </>
  );
}
