// Mutations. Each carries an idempotency key that stays the same until the action succeeds or its input changes: a click
// repeated after a lost answer repeats the answer, not the deed.
import { useMutation, useQueryClient, type QueryKey } from "@tanstack/react-query";
import { useRef } from "react";
import { announce } from "../design/announce";
import { asApiError } from "./problem";

export interface ActionOptions<In, Out> {
  run: (input: In, key: { "Idempotency-Key": string }) => Promise<Out>;
  /** Which cached answers the action makes out of date. */
  invalidates: readonly QueryKey[];
  onDone?: (out: Out, input: In) => void;
  /** What a screen reader hears when it has worked. */
  done?: string;
}

export function useAction<In, Out>({ run, invalidates, onDone, done }: ActionOptions<In, Out>) {
  const queries = useQueryClient();
  const intent = useRef<{ input: string; key: string } | null>(null);
  return useMutation({
    mutationFn: (input: In) => {
      const text = JSON.stringify(input ?? null);
      if (intent.current?.input !== text) intent.current = { input: text, key: crypto.randomUUID() };
      return run(input, { "Idempotency-Key": intent.current.key });
    },
    onSuccess: async (out, input) => {
      intent.current = null;
      if (done !== undefined) announce(done);
      onDone?.(out, input);
      await Promise.all(invalidates.map((queryKey) => queries.invalidateQueries({ queryKey })));
    },
    onError: (error) => {
      // A definite refusal ends the intent; only a lost answer is repeated under the same key.
      if (asApiError(error).status !== 0) intent.current = null;
    },
  });
}
