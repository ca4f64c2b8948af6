/**
 * The chain's only file: an append-only log of JSON lines, each with its CRC-32 in front.
 *
 * `append` resolves when the line is on disk (one fdatasync for all lines that wait), so what the
 * RPC acknowledges survives kill -9 and power loss. A torn last line is cut off at start; damage
 * anywhere else stops the start, because everything after it would be built on a hole.
 *
 * Beside it lie `slot` (the current slot, overwritten in place, not synced: it only keeps slots that
 * held no transaction from being used twice) and `lock` (the owner's process id).
 */

import fs from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import process from "node:process";
import { crc32 } from "node:zlib";
import { stringify } from "./json.js";

const LEDGER = "ledger.jsonl";
const SLOT = "slot";
const LOCK = "lock";
const CRC_CHARS = 8;
const REWRITE_SLICE_MS = 5; // of a rewrite, between which the chain goes on
const REWRITE_WRITE_BYTES = 1024 * 1024;

/** The state folder cannot be used. */
export class StateError extends Error {}

/** @typedef {{k: string, [field: string]: any}} Record */

export class Journal {
  /**
   * Opens the folder, made if it is missing, and takes its lock.
   * @param {string} dir
   */
  constructor(dir) {
    fs.mkdirSync(dir, { recursive: true, mode: 0o700 });
    this.dir = dir;
    this.path = path.join(dir, LEDGER);
    takeLock(path.join(dir, LOCK));
    this.fd = fs.openSync(this.path, "a+", 0o600);
    this.size = fs.fstatSync(this.fd).size;
    this.slotFd = fs.openSync(path.join(dir, SLOT), fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
    /** @type {{line: Buffer, done: () => void, drawn: boolean}[]} */
    this.waiting = [];
    /** @type {Promise<void> | null} */
    this.flushing = null;
    /** What has been written since a rewrite began. @type {Buffer[] | null} */
    this.since = null;
    /** What is to be done when no line is on its way to the disk. @type {(() => void) | null} */
    this.between = null;
    this.closed = false;
    /** @type {(err: Error) => void} */
    this.onFailure = (err) => {
      throw err;
    };
  }

  /**
   * Reads all records, oldest first.
   * @returns {Generator<Record>}
   */
  *records() {
    const bytes = fs.readFileSync(this.path);
    for (let start = 0; start < bytes.length; ) {
      const newline = bytes.indexOf(0x0a, start);
      const end = newline < 0 ? bytes.length : newline;
      const record = newline < 0 ? null : parseLine(bytes.subarray(start, end));
      if (!record) {
        if (newline >= 0 && newline + 1 < bytes.length) {
          throw new StateError(`${this.path} is damaged at byte ${start}; move ${this.dir} away to start a new chain`);
        }
        fs.ftruncateSync(this.fd, start);
        this.size = start;
        return;
      }
      yield record;
      start = end + 1;
    }
  }

  /** @returns {number} the last slot that was marked, 0 when none was */
  lastSlot() {
    const slot = Number(fs.readFileSync(path.join(this.dir, SLOT), "utf8").trim());
    return Number.isSafeInteger(slot) ? slot : 0;
  }

  /** @param {number} slot */
  markSlot(slot) {
    fs.writeSync(this.slotFd, `${String(slot).padStart(20, "0")}\n`, 0);
  }

  /**
   * @param {Record} record
   * @returns {Promise<void>} resolves when it is on disk
   */
  append(record) {
    const line = encodeLine(record);
    return new Promise((done) => {
      this.waiting.push({ line, done, drawn: false });
      this.flushing ??= this.flush();
    });
  }

  /** Writes and syncs until nothing waits. A failure is fatal: memory is ahead of the disk. */
  async flush() {
    // Lets every transaction of the same turn of the event loop share one sync.
    await new Promise((next) => setImmediate(next));
    while (this.waiting.length > 0) {
      const batch = this.waiting;
      this.waiting = [];
      try {
        const bytes = Buffer.concat(batch.map(({ line }) => line));
        writeAll(this.fd, bytes);
        this.size += bytes.length;
        this.since?.push(...batch.filter(({ drawn }) => !drawn).map(({ line }) => line));
        await new Promise((resolve, reject) => fs.fdatasync(this.fd, (err) => (err ? reject(err) : resolve(null))));
      } catch (err) {
        this.onFailure(/** @type {Error} */ (err));
        return;
      }
      for (const { done } of batch) done();
      this.between?.();
    }
    this.flushing = null;
  }

  /**
   * Replaces the whole log, atomically, by these records and what is appended after the first of them was drawn. The others are drawn a
   * few at a time, so that nobody has to wait for all. Call it again only when it has resolved.
   * @param {Iterable<Record>} records what has been appended, on the disk or not
   */
  async rewrite(records) {
    const next = `${this.path}.next`;
    const fd = fs.openSync(next, "w+", 0o600);
    const rest = records[Symbol.iterator]();
    const first = await this.betweenWrites(() => {
      this.since = [];
      for (const waiting of this.waiting) waiting.drawn = true;
      return rest.next();
    });
    const size = await this.draw(fd, first, rest);
    await new Promise((resolve, reject) => fs.fdatasync(fd, (err) => (err ? reject(err) : resolve(null))));
    await this.betweenWrites(() => this.swap(next, fd, size));
  }

  /**
   * @template T
   * @param {() => T} work
   * @returns {Promise<T>}
   */
  betweenWrites(work) {
    return new Promise((resolve) => {
      const run = () => {
        this.between = null;
        resolve(work());
      };
      if (this.flushing) this.between = run;
      else run();
    });
  }

  /**
   * @param {number} fd
   * @param {IteratorResult<Record>} first
   * @param {Iterator<Record>} rest
   * @returns {Promise<number>} how many bytes they are
   */
  async draw(fd, first, rest) {
    let [size, bytes, until] = [0, 0, performance.now() + REWRITE_SLICE_MS];
    /** @type {Buffer[]} */
    let lines = [];
    const write = () => {
      writeAll(fd, Buffer.concat(lines));
      [size, bytes, lines] = [size + bytes, 0, []];
    };
    for (let record = first; !record.done && !this.closed; record = rest.next()) {
      const line = encodeLine(record.value);
      lines.push(line);
      bytes += line.length;
      if (bytes >= REWRITE_WRITE_BYTES) write();
      if (performance.now() < until) continue;
      await new Promise((resume) => setImmediate(resume));
      until = performance.now() + REWRITE_SLICE_MS;
    }
    write();
    return size;
  }

  /**
   * Has a rewritten log, to which what was appended meanwhile is added, take the place of the old one.
   * @param {string} next
   * @param {number} fd
   * @param {number} size
   */
  swap(next, fd, size) {
    const since = Buffer.concat(this.since ?? []);
    this.since = null;
    if (this.closed) {
      fs.closeSync(fd);
      return;
    }
    writeAll(fd, since);
    fs.fsyncSync(fd);
    fs.renameSync(next, this.path);
    fs.closeSync(fd);
    syncDir(this.dir);
    fs.closeSync(this.fd);
    this.fd = fs.openSync(this.path, "a+", 0o600);
    this.size = size + since.length;
  }

  /** Waits for what was appended, gives a rewrite up, and lets go of the folder. */
  async close() {
    this.closed = true;
    while (this.flushing) await this.flushing;
    fs.closeSync(this.fd);
    fs.closeSync(this.slotFd);
    fs.rmSync(path.join(this.dir, LOCK), { force: true });
  }
}

/**
 * @param {Record} record
 * @returns {Buffer}
 */
function encodeLine(record) {
  const json = Buffer.from(stringify(record));
  const crc = crc32(json).toString(16).padStart(CRC_CHARS, "0");
  return Buffer.concat([Buffer.from(`${crc} `), json, Buffer.from("\n")]);
}

/**
 * @param {Buffer} line
 * @returns {Record | null} null when the checksum does not match
 */
function parseLine(line) {
  const json = line.subarray(CRC_CHARS + 1);
  if (json.length === 0 || parseInt(line.toString("latin1", 0, CRC_CHARS), 16) !== crc32(json)) return null;
  return JSON.parse(json.toString());
}

/**
 * @param {number} fd
 * @param {Buffer} bytes
 */
function writeAll(fd, bytes) {
  for (let at = 0; at < bytes.length; ) at += fs.writeSync(fd, bytes, at);
}

/** @param {string} dir */
function syncDir(dir) {
  const fd = fs.openSync(dir, "r");
  fs.fsyncSync(fd);
  fs.closeSync(fd);
}

/**
 * One process per folder. The lock of a process that is gone, or whose id now belongs to another
 * program, is taken over: kill -9 must not need cleaning up by hand.
 * @param {string} file
 */
function takeLock(file) {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      fs.writeFileSync(file, `${process.pid}\n`, { flag: "wx", mode: 0o600 });
      return;
    } catch (err) {
      if (/** @type {NodeJS.ErrnoException} */ (err).code !== "EEXIST") throw err;
    }
    const pid = Number(fs.readFileSync(file, "utf8"));
    if (isServer(pid)) throw new StateError(`${path.dirname(file)} is in use by process ${pid}; stop it or choose another --state`);
    fs.rmSync(file, { force: true });
  }
  throw new StateError(`cannot lock ${file}: another process takes it at the same time`);
}

/**
 * @param {number} pid
 * @returns {boolean}
 */
function isServer(pid) {
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
  } catch (err) {
    if (/** @type {NodeJS.ErrnoException} */ (err).code !== "EPERM") return false;
  }
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("server.js");
  } catch {
    // No /proc (macOS), or a zombie's empty entry: the signal's answer stands only without /proc.
    return !fs.existsSync("/proc/self");
  }
}
