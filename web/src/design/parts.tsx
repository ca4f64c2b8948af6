// The small parts every page is made of.
import { useEffect, useId, useRef, type ButtonHTMLAttributes, type ReactNode } from "react";
import type { Money } from "../api/types";
import { formatMoney, type Amount } from "../money/money";
import { formatClock, formatInstant, utcText } from "../time/time";
import { announce } from "./announce";
import { icons } from "./icons";
import { lookOf, type Machine, type Tone } from "./state";

export function Button({
  look,
  size,
  busy = false,
  type = "button",
  className,
  disabled,
  ...rest
}: ButtonHTMLAttributes<HTMLButtonElement> & { look?: "primary" | "danger" | "quiet" | undefined; size?: "small" | "large"; busy?: boolean }) {
  return <button type={type} className={`button ${className ?? ""}`} data-look={look} data-size={size} aria-busy={busy} disabled={disabled === true || busy} {...rest} />;
}

export function State({ machine, state }: { machine: Machine; state: string }) {
  const look = lookOf(machine, state);
  return <Toned tone={look.tone}>{look.word}</Toned>;
}

export function Toned({ tone, children }: { tone: Tone; children: ReactNode }) {
  return (
    <span className="state" data-tone={tone}>
      {icons[tone]}
      {children}
    </span>
  );
}

export function MoneyText({ of }: { of: Money | Amount }) {
  return <span className="nowrap">{formatMoney(of)}</span>;
}

/** An instant in the viewer's zone, UTC on hover. With `utc` the other way round is not needed: it is UTC. */
export function Time({ at, clock = false, utc = false }: { at: string; clock?: boolean; utc?: boolean }) {
  return (
    <time dateTime={at} title={utcText(at)} className="nowrap">
      {clock ? formatClock(at, { utc }) : formatInstant(at, { utc })}
    </time>
  );
}

export function Skeleton({ height, width = "100%" }: { height: number; width?: number | string }) {
  return <span className="skeleton" style={{ height, width }} aria-hidden="true" />;
}

/** Rows of the height that the loaded rows will have. */
export function SkeletonRows({ rows, height = 32 }: { rows: number; height?: number }) {
  return (
    <div className="stack" data-gap="tiny" role="status">
      <span className="visually-hidden">Loading</span>
      {Array.from({ length: rows }, (_, index) => (
        <Skeleton key={index} height={height - 4} />
      ))}
    </div>
  );
}

export function Panel({ title, aside, flush = false, children }: { title: ReactNode; aside?: ReactNode; flush?: boolean; children: ReactNode }) {
  const id = useId();
  return (
    <section className="panel" aria-labelledby={id}>
      <div className="panel-head">
        <h2 id={id}>{title}</h2>
        {aside}
      </div>
      <div className="panel-body" data-flush={flush ? "" : undefined}>
        {children}
      </div>
    </section>
  );
}

export function Empty({ children, action }: { children: ReactNode; action?: ReactNode }) {
  return (
    <div className="empty">
      <p className="muted">{children}</p>
      {action}
    </div>
  );
}

export function Notice({ tone, children }: { tone: Tone; children: ReactNode }) {
  return (
    <div className="notice" data-tone={tone}>
      {children}
    </div>
  );
}

/** A table that scrolls sideways by itself where the page is narrow. */
export function TableScroll({ label, children }: { label: string; children: ReactNode }) {
  return (
    // A region that scrolls must be reachable by keyboard.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <div className="table-scroll" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}

async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${what} copied`);
  } catch {
    announce(`${what} could not be copied: the browser refused`);
  }
}

export function CopyIcon({ text, what }: { text: string; what: string }) {
  return (
    <button type="button" className="icon-button" onClick={() => void copy(text, what)} title={`Copy ${what.toLowerCase()}`}>
      {icons.copy}
      <span className="visually-hidden">Copy {what.toLowerCase()}</span>
    </button>
  );
}

export function CopyButton({ text, what }: { text: string; what: string }) {
  return (
    <Button size="small" onClick={() => void copy(text, what)}>
      {icons.copy} Copy
      <span className="visually-hidden"> {what.toLowerCase()}</span>
    </Button>
  );
}

const LONG_CHARS = 200;

/** A reason that may be a program's whole complaint: its first line, the rest on request. */
export function LongText({ text }: { text: string }) {
  const [first = "", ...rest] = text.split("\n");
  if (rest.length === 0 && text.length <= LONG_CHARS) return <>{text}</>;
  return (
    <>
      {first.slice(0, LONG_CHARS)}
      <details>
        <summary>Show all of it</summary>
        <TableScroll label="The whole text">
          <pre className="long-text">{text}</pre>
        </TableScroll>
      </details>
    </>
  );
}

const KEPT = 6;

/** An id without its middle; the kind in front of it stays. */
export function shortened(id: string, keep = KEPT): string {
  const prefix = /^[a-z]+_/.exec(id)?.[0].length ?? 0;
  return id.length > prefix + keep * 2 + 1 ? `${id.slice(0, prefix + keep)}…${id.slice(-keep)}` : id;
}

/** An id, address or signature, shortened in the middle, whole on hover and when copied. */
export function ShortId({ id, what, keep = KEPT }: { id: string; what: string; keep?: number }) {
  return (
    <span className="copyable">
      <span className="mono nowrap" title={id}>
        {shortened(id, keep)}
      </span>
      <CopyIcon text={id} what={what} />
    </span>
  );
}

export function Dialog({ open, title, onClose, children }: { open: boolean; title: string; onClose: () => void; children: ReactNode }) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    if (dialog === null) return;
    if (open && !dialog.open) dialog.showModal();
    if (!open && dialog.open) dialog.close();
  }, [open]);
  return (
    <dialog ref={ref} aria-labelledby={id} onClose={onClose}>
      {open && (
        <div className="dialog-body">
          <h2 id={id}>{title}</h2>
          {children}
        </div>
      )}
    </dialog>
  );
}

export function Tabs<T extends string>({ label, tabs, value, onChange, children }: { label: string; tabs: readonly { id: T; word: string }[]; value: T; onChange: (id: T) => void; children: ReactNode }) {
  const base = useId();
  const list = useRef<HTMLDivElement>(null);
  const move = (step: number) => {
    const index = tabs.findIndex((tab) => tab.id === value);
    const next = tabs[(index + step + tabs.length) % tabs.length];
    if (next === undefined) return;
    onChange(next.id);
    list.current?.querySelector<HTMLElement>(`[data-tab="${next.id}"]`)?.focus();
  };
  return (
    <div className="stack" data-gap="small">
      <div className="tabs" role="tablist" aria-label={label} ref={list}>
        {tabs.map((tab) => (
          <button
            key={tab.id}
            type="button"
            role="tab"
            className="tab"
            id={`${base}-${tab.id}`}
            data-tab={tab.id}
            aria-selected={tab.id === value}
            aria-controls={`${base}-panel`}
            tabIndex={tab.id === value ? 0 : -1}
            onClick={() => onChange(tab.id)}
            onKeyDown={(event) => {
              if (event.key === "ArrowRight") move(1);
              if (event.key === "ArrowLeft") move(-1);
            }}
          >
            {tab.word}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={`${base}-panel`} aria-labelledby={`${base}-${value}`}>
        {children}
      </div>
    </div>
  );
}

export function Field({ label, hint, error, children }: { label: string; hint?: ReactNode; error?: string | undefined; children: (props: { id: string; "aria-describedby": string | undefined; "aria-invalid": boolean }) => ReactNode }) {
  const id = useId();
  const described = error !== undefined || hint !== undefined ? `${id}-help` : undefined;
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {children({ id, "aria-describedby": described, "aria-invalid": error !== undefined })}
      {described !== undefined && (
        <span id={described} className={error === undefined ? "hint" : "field-error"}>
          {error ?? hint}
        </span>
      )}
    </div>
  );
}
