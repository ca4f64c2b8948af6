/**
 * Accounts: their encodings and the methods that read them.
 */

import { DecodeError, decodeBase58, decodeBase64, encodeBase58, encodeBase64 } from "../bytes.js";
import {
  MINT_BYTES,
  SYSTEM_PROGRAM,
  NONCE_BYTES,
  TOKEN_2022_PROGRAM,
  TOKEN_ACCOUNT_BYTES,
  TOKEN_PROGRAM,
  decodeLookupTable,
  decodeMint,
  decodeNonce,
  decodeTokenAccount,
  isTokenProgram,
  tokenAmount,
} from "../programs.js";
import { INVALID_REQUEST, RpcError, invalid } from "./errors.js";
import { commitment, contextSlot, pubkey, wholeNumber } from "./params.js";

const MAX_BASE58_DATA = 128;
const MAX_MULTIPLE_ACCOUNTS = 100;
const MAX_FILTERS = 4;
const MAX_MEMCMP_BYTES = 128;
const LARGEST_ACCOUNTS = 20;
const UNSET_SLOT = 0xffff_ffff_ffff_ffffn;

/** @typedef {import("../vm.js").Account} Account */
/** @typedef {import("../chain.js").Chain} Chain */
/** @typedef {import("./params.js").Params} Params */
/** @typedef {import("./params.js").Config} Config */
/** @typedef {(address: string) => Account | null} Lookup */

/**
 * @param {Account} account
 * @param {Config} config encoding and dataSlice
 * @param {Lookup} lookup for the decimals of a token account's mint
 */
export function encodeAccount(account, config, lookup) {
  const { lamports, owner, executable, rentEpoch, data } = account;
  return { lamports, owner, executable, rentEpoch, space: data.length, data: encodeData(account, config, lookup) };
}

/**
 * @param {Account} account
 * @param {Config} config
 * @param {Lookup} lookup
 */
function encodeData(account, config, lookup) {
  const encoding = config.encoding ?? "binary";
  if (encoding === "jsonParsed") return parsed(account, lookup) ?? [encodeBase64(slice(account.data, config)), "base64"];
  const data = slice(account.data, config);
  if (encoding === "base64") return [encodeBase64(data), "base64"];
  if (encoding === "base64+zstd") throw invalid("base64+zstd is not supported by this development chain; use base64");
  if (encoding !== "base58" && encoding !== "binary") throw invalid(`Invalid params: unknown encoding ${JSON.stringify(encoding)}`);
  if (data.length > MAX_BASE58_DATA) {
    throw new RpcError(INVALID_REQUEST, `Encoded binary (base 58) data should be less than ${MAX_BASE58_DATA} bytes, please use Base64 encoding.`);
  }
  return encoding === "base58" ? [encodeBase58(data), "base58"] : encodeBase58(data);
}

/**
 * @param {Uint8Array} data
 * @param {Config} config
 * @returns {Uint8Array}
 */
function slice(data, config) {
  if (!config.dataSlice) return data;
  const offset = wholeNumber(config.dataSlice.offset, "dataSlice.offset");
  return data.subarray(Math.min(offset, data.length), Math.min(offset + wholeNumber(config.dataSlice.length, "dataSlice.length"), data.length));
}

/**
 * @param {Account} account
 * @param {Lookup} lookup
 * @returns {{program: string, parsed: {type: string, info?: unknown}, space: number} | null} null for
 *   what has no parser; the caller then gets base64
 */
function parsed(account, lookup) {
  const space = account.data.length;
  const nonce = decodeNonce(account);
  if (nonce) {
    const info = { authority: nonce.authority, blockhash: nonce.value, feeCalculator: { lamportsPerSignature: nonce.lamportsPerSignature.toString() } };
    return { program: "nonce", parsed: { type: "initialized", info }, space };
  }
  if (account.owner === SYSTEM_PROGRAM && space === NONCE_BYTES) return { program: "nonce", parsed: { type: "uninitialized" }, space };
  const table = decodeLookupTable(account);
  if (table) return { program: "address-lookup-table", parsed: { type: "lookupTable", info: lookupTableInfo(table) }, space };
  if (!isTokenProgram(account.owner)) return null;
  const program = account.owner === TOKEN_PROGRAM ? "spl-token" : "spl-token-2022";
  const mint = decodeMint(account);
  if (mint) return { program, parsed: { type: "mint", info: { ...mintInfo(mint), ...extensions(account) } }, space };
  const token = decodeTokenAccount(account);
  const tokenMint = token && decodeMint(lookup(token.mint));
  if (!token || !tokenMint) return null;
  return { program, parsed: { type: "account", info: { ...tokenInfo(token, tokenMint.decimals), ...extensions(account) } }, space };
}

/** @param {import("../programs.js").LookupTable} table */
function lookupTableInfo(table) {
  return {
    addresses: table.addresses,
    ...(table.authority ? { authority: table.authority } : {}),
    deactivationSlot: table.deactivationSlot.toString(),
    lastExtendedSlot: (table.lastExtendedSlot === UNSET_SLOT ? 0n : table.lastExtendedSlot).toString(),
    lastExtendedSlotStartIndex: table.lastExtendedStart,
  };
}

/** @param {import("../programs.js").Mint} mint */
function mintInfo(mint) {
  return { mintAuthority: mint.mintAuthority, supply: mint.supply.toString(), decimals: mint.decimals, isInitialized: true, freezeAuthority: mint.freezeAuthority };
}

/**
 * @param {import("../programs.js").TokenAccount} token
 * @param {number} decimals
 */
function tokenInfo(token, decimals) {
  return {
    isNative: token.rentExemptReserve !== null,
    mint: token.mint,
    owner: token.owner,
    state: token.state,
    tokenAmount: tokenAmount(token.amount, decimals),
    ...(token.delegate ? { delegate: token.delegate, delegatedAmount: tokenAmount(token.delegatedAmount, decimals) } : {}),
    ...(token.rentExemptReserve !== null ? { rentExemptReserve: tokenAmount(token.rentExemptReserve, decimals) } : {}),
    ...(token.closeAuthority ? { closeAuthority: token.closeAuthority } : {}),
  };
}

/**
 * Token-2022 extensions are there but not parsed: said in the RPC's own words for that.
 * @param {Account} account
 */
function extensions(account) {
  const base = decodeMint(account) ? MINT_BYTES : TOKEN_ACCOUNT_BYTES;
  return account.data.length > base ? { extensions: [{ extension: "unparseableExtension" }] } : {};
}

/**
 * @param {Config} config
 * @returns {(account: Account) => boolean}
 */
export function accountFilter(config) {
  const filters = config.filters ?? [];
  if (!Array.isArray(filters) || filters.length > MAX_FILTERS) throw invalid(`Too many filters provided; max ${MAX_FILTERS}`);
  /** @type {((account: Account) => boolean)[]} */
  const tests = filters.map(oneFilter);
  return (account) => tests.every((test) => test(account));
}

/**
 * @param {Config} filter
 * @returns {(account: Account) => boolean}
 */
function oneFilter(filter) {
  if (filter?.dataSize !== undefined) {
    const size = wholeNumber(filter.dataSize, "dataSize");
    return (account) => account.data.length === size;
  }
  if (!filter?.memcmp) throw invalid("Invalid params: a filter must be dataSize or memcmp");
  const offset = wholeNumber(filter.memcmp.offset, "memcmp.offset");
  const bytes = memcmpBytes(filter.memcmp);
  return ({ data }) => offset + bytes.length <= data.length && Buffer.compare(data.subarray(offset, offset + bytes.length), bytes) === 0;
}

/**
 * @param {Config} memcmp
 * @returns {Uint8Array}
 */
function memcmpBytes({ bytes, encoding }) {
  if (typeof bytes !== "string") throw invalid("Invalid params: memcmp.bytes must be a string");
  if (encoding !== undefined && encoding !== "base58" && encoding !== "base64") throw invalid("Invalid params: memcmp.encoding must be base58 or base64");
  if (bytes.length > 2 * MAX_MEMCMP_BYTES) throw invalid("encoded data is too large");
  try {
    const decoded = encoding === "base64" ? decodeBase64(bytes) : decodeBase58(bytes);
    if (decoded.length > MAX_MEMCMP_BYTES) throw invalid("decoded data is too large");
    return decoded;
  } catch (err) {
    if (err instanceof DecodeError) throw invalid(err.message);
    throw err;
  }
}

/**
 * @param {Chain} chain
 * @returns {{[method: string]: (params: Params) => unknown}}
 */
export function accountMethods(chain) {
  /** @param {number} slot */
  const at = (slot) => (/** @type {string} */ address) => chain.accountAt(address, slot);

  /**
   * @param {number} slot
   * @param {unknown} value
   */
  const answer = (slot, value) => ({ context: { slot, apiVersion: "4.2.0" }, value });

  /**
   * @param {[string, Account][]} found
   * @param {Config} config
   * @param {number} slot
   */
  const listed = (found, config, slot) => found.map(([address, account]) => ({ pubkey: address, account: encodeAccount(account, config, at(slot)) }));

  /** @param {Params} params */
  const mintAndSlot = (params) => {
    const slot = contextSlot(chain, params.config(1));
    const mint = decodeMint(chain.accountAt(params.pubkey(0), slot));
    if (!mint) throw invalid("Invalid param: could not find mint");
    return { slot, mint };
  };

  /**
   * @param {Params} params
   * @param {(token: import("../programs.js").TokenAccount) => boolean} belongs
   */
  const tokenAccounts = (params, belongs) => {
    const filter = params.config(1);
    const config = params.config(2);
    const slot = contextSlot(chain, config);
    const mint = filter.mint === undefined ? null : pubkey(filter.mint);
    if (mint === null && filter.programId === undefined) throw invalid("Invalid params: mint or programId is required");
    const program = mint === null ? pubkey(filter.programId) : chain.accountAt(mint, slot)?.owner;
    if (!program) throw invalid("Invalid param: could not find mint");
    if (!isTokenProgram(program)) throw invalid(mint === null ? "Invalid param: unrecognized Token program id" : "Invalid param: not a Token mint");
    const found = chain.programAccountsAt(program, slot).filter(([, account]) => {
      const token = decodeTokenAccount(account);
      return token !== null && belongs(token) && (mint === null || token.mint === mint);
    });
    return answer(slot, listed(found, config, slot));
  };

  return {
    getAccountInfo(params) {
      const config = params.config(1);
      const slot = contextSlot(chain, config);
      const account = chain.accountAt(params.pubkey(0), slot);
      return answer(slot, account && encodeAccount(account, config, at(slot)));
    },
    getMultipleAccounts(params) {
      const config = params.config(1);
      const slot = contextSlot(chain, config);
      const addresses = params.texts(0, "the addresses");
      if (addresses.length > MAX_MULTIPLE_ACCOUNTS) throw invalid(`Too many inputs provided; max ${MAX_MULTIPLE_ACCOUNTS}`);
      const accounts = addresses.map((address) => chain.accountAt(pubkey(address), slot));
      return answer(slot, accounts.map((account) => account && encodeAccount(account, config, at(slot))));
    },
    getBalance(params) {
      const slot = contextSlot(chain, params.config(1));
      return answer(slot, chain.accountAt(params.pubkey(0), slot)?.lamports ?? 0n);
    },
    getProgramAccounts(params) {
      const config = params.config(1);
      const slot = contextSlot(chain, config);
      const matches = accountFilter(config);
      const found = chain.programAccountsAt(params.pubkey(0), slot).filter(([, account]) => matches(account));
      const list = listed(found, config, slot);
      return config.withContext === true ? answer(slot, list) : list;
    },
    getTokenAccountBalance(params) {
      const slot = contextSlot(chain, params.config(1));
      const account = chain.accountAt(params.pubkey(0), slot);
      if (!account) throw invalid("Invalid param: could not find account");
      const token = decodeTokenAccount(account);
      const mint = token && decodeMint(chain.accountAt(token.mint, slot));
      if (!token || !mint) throw invalid("Invalid param: not a Token account");
      return answer(slot, tokenAmount(token.amount, mint.decimals));
    },
    getTokenSupply(params) {
      const { slot, mint } = mintAndSlot(params);
      return answer(slot, tokenAmount(mint.supply, mint.decimals));
    },
    getTokenLargestAccounts(params) {
      const { slot, mint } = mintAndSlot(params);
      const address = params.pubkey(0);
      const holders = [TOKEN_PROGRAM, TOKEN_2022_PROGRAM]
        .flatMap((program) => chain.programAccountsAt(program, slot))
        .flatMap(([holder, account]) => {
          const token = decodeTokenAccount(account);
          return token?.mint === address ? [{ holder, amount: token.amount }] : [];
        })
        .sort((a, b) => (a.amount < b.amount ? 1 : -1))
        .slice(0, LARGEST_ACCOUNTS);
      return answer(slot, holders.map(({ holder, amount }) => ({ address: holder, ...tokenAmount(amount, mint.decimals) })));
    },
    getTokenAccountsByOwner(params) {
      const owner = params.pubkey(0);
      return tokenAccounts(params, (token) => token.owner === owner);
    },
    getTokenAccountsByDelegate(params) {
      const delegate = params.pubkey(0);
      return tokenAccounts(params, (token) => token.delegate === delegate);
    },
    getMinimumBalanceForRentExemption(params) {
      commitment(params.config(1).commitment);
      return chain.vm.rentExemption(params.count(0, "the data length"));
    },
  };
}
