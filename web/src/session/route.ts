import { createLazyRoute } from "@tanstack/react-router";
import { SignInPage } from "./SignIn";
import { WelcomePage } from "./Welcome";

export const signInRoute = createLazyRoute("/")({ component: SignInPage });
export const welcomeRoute = createLazyRoute("/welcome")({ component: WelcomePage });
