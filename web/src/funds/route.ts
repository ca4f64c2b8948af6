import { createLazyRoute } from "@tanstack/react-router";
import { WalletPage } from "./WalletPage";

export const walletRoute = createLazyRoute("/o/$org/wallet")({ component: WalletPage });
