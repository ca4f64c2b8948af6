/* eslint-disable @typescript-eslint/no-unused-vars -- merging needs the same type parameters */
// React 18 passes these attributes through but does not know them yet.
import "react";

declare module "react" {
  interface HTMLAttributes<T> {
    popover?: "auto" | "manual";
  }
  interface ButtonHTMLAttributes<T> {
    popovertarget?: string;
  }
}
