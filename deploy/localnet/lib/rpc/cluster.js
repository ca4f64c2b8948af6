/**
 * The cluster as one node reports it: version, slots, epochs, blockhashes.
 */

import { MAX_BLOCKHASH_AGE, SLOTS_PER_EPOCH } from "../vm.js";
import { invalid } from "./errors.js";
import { contextSlot, pubkey } from "./params.js";

export const VERSION = "4.2.0-localnet";
const FEATURE_SET = 0x6c6f_636c;
const MAX_FEE_ACCOUNTS = 128;
const MAX_LEADERS = 5000;

/** @typedef {import("../chain.js").Chain} Chain */
/** @typedef {import("./params.js").Params} Params */

/**
 * @param {Chain} chain
 * @returns {{[method: string]: (params: Params) => unknown}}
 */
export function clusterMethods(chain) {
  /** @param {number} slot */
  const context = (slot) => ({ slot, apiVersion: "4.2.0" });
  /** @param {Params} params */
  const slotOf = (params) => contextSlot(chain, params.config(0));

  return {
    getHealth: () => "ok",
    getVersion: () => ({
      "solana-core": VERSION,
      "feature-set": FEATURE_SET,
      localnet: "development chain on LiteSVM, one node, no consensus, worthless tokens",
    }),
    getGenesisHash: () => chain.genesis.genesisHash,
    getIdentity: () => ({ identity: chain.genesis.identity }),
    getSlot: slotOf,
    // Every slot has a block.
    getBlockHeight: slotOf,
    getSlotLeader(params) {
      slotOf(params);
      return chain.genesis.identity;
    },
    getSlotLeaders(params) {
      params.count(0, "the start slot");
      const limit = params.count(1, "the limit");
      if (limit === 0 || limit > MAX_LEADERS) throw invalid(`Invalid limit; max ${MAX_LEADERS}`);
      return Array(limit).fill(chain.genesis.identity);
    },
    getEpochInfo(params) {
      const slot = slotOf(params);
      return {
        absoluteSlot: slot,
        blockHeight: slot,
        epoch: Math.floor(slot / SLOTS_PER_EPOCH),
        slotIndex: slot % SLOTS_PER_EPOCH,
        slotsInEpoch: SLOTS_PER_EPOCH,
        transactionCount: chain.ledger.total,
      };
    },
    getEpochSchedule: () => ({
      slotsPerEpoch: SLOTS_PER_EPOCH,
      leaderScheduleSlotOffset: SLOTS_PER_EPOCH,
      warmup: false,
      firstNormalEpoch: 0,
      firstNormalSlot: 0,
    }),
    getLatestBlockhash(params) {
      const config = params.config(0);
      const slot = contextSlot(chain, config);
      return { context: context(slot), value: chain.latestBlockhash(config.commitment ?? "finalized") };
    },
    isBlockhashValid(params) {
      const slot = contextSlot(chain, params.config(1));
      return { context: context(slot), value: chain.isRecent(params.pubkey(0), slot) };
    },
    getFirstAvailableBlock: () => chain.ledger.firstSlot,
    minimumLedgerSlot: () => chain.ledger.firstSlot,
    getTransactionCount(params) {
      slotOf(params);
      return chain.ledger.total;
    },
    getRecentPrioritizationFees(params) {
      if (params.list[0] !== undefined && params.list[0] !== null) {
        const addresses = params.texts(0, "the addresses");
        if (addresses.length > MAX_FEE_ACCOUNTS) throw invalid(`Too many inputs provided; max ${MAX_FEE_ACCOUNTS}`);
        addresses.forEach(pubkey);
      }
      // Blocks are never full, so no transaction has to outbid another.
      const first = Math.max(0, chain.slot - MAX_BLOCKHASH_AGE);
      return Array.from({ length: chain.slot - first }, (_, i) => ({ slot: first + i, prioritizationFee: 0 }));
    },
  };
}
