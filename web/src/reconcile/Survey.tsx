import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { HoldingsSurvey, TokenHolding } from "../api/types";
import { LoadedList, SafePanel } from "../design/Loaded";
import { Empty, ShortId, TableScroll, Toned } from "../design/parts";
import { holdingsQuery } from "./queries";
import { surveyFindings } from "./words";

const SHOWN = 5;

/** What a run found in our wallets that the ledger does not mirror. The counts are the run's; the accounts are as the newest run saw them. */
export function Survey({ org, survey }: { org: string; survey: HoldingsSurvey }) {
  const found = survey.settlement + survey.foreign > 0;
  return (
    <SafePanel title="Held beside the ledger" aside={<span className="muted">{asked(survey)}</span>} flush>
      {!found && (
        <Empty>
          <Toned tone="ok">Nothing</Toned> No wallet that was asked holds a token in a further account.
        </Empty>
      )}
      {found && (
        <div className="panel-body">
          <Toned tone={survey.settlement > 0 ? "bad" : "unknown"}>{survey.settlement > 0 ? "An open question" : "Other tokens only"}</Toned>
          <p>{surveyFindings(survey)}</p>
        </div>
      )}
      {found && <Found org={org} />}
      <Unread survey={survey} />
    </SafePanel>
  );
}

function asked({ asked: some, wallets }: HoldingsSurvey): string {
  return `${some.toLocaleString()} of ${wallets.toLocaleString()} ${wallets === 1 ? "wallet" : "wallets"} asked`;
}

/** What the survey could not look at, so that nobody takes it for nothing. */
function Unread({ survey }: { survey: HoldingsSurvey }) {
  if (survey.left_out === 0 && survey.too_many === 0) return null;
  return (
    <div className="panel-body muted">
      {survey.left_out > 0 && <p>{survey.left_out.toLocaleString()} more accounts of other tokens were counted and not listed.</p>}
      {survey.too_many > 0 && (
        <p>
          {survey.too_many.toLocaleString()} {survey.too_many === 1 ? "wallet has" : "wallets have"} too many accounts for one answer: only those of the platform&apos;s token were read.
        </p>
      )}
    </div>
  );
}

function Found({ org }: { org: string }) {
  const holdings = useInfiniteQuery(holdingsQuery(org, undefined));
  return (
    <>
      <LoadedList query={{ ...holdings, data: holdings.data?.slice(0, SHOWN), hasNextPage: false }} rows={1} empty={<Empty>The newest run does not see them any more.</Empty>}>
        {(list) => (
          <TableScroll label="Held beside the ledger">
            <table>
              <thead>
                <tr>
                  <th scope="col">Wallet</th>
                  <th scope="col">Kind</th>
                  <th scope="col">Token</th>
                  <th scope="col" className="number">
                    Amount
                  </th>
                </tr>
              </thead>
              <tbody>
                {list.map((holding) => (
                  <Row key={holding.id} holding={holding} />
                ))}
              </tbody>
            </table>
          </TableScroll>
        )}
      </LoadedList>
      <p className="panel-body">
        <Link to="/o/$org/finance/reconcile" params={{ org }}>
          All of them, and why each is not counted
        </Link>
      </p>
    </>
  );
}

function Row({ holding }: { holding: TokenHolding }) {
  return (
    <tr>
      <th scope="row">
        {holding.customer ?? "The treasury"}
        <div>
          <ShortId id={holding.wallet} what="Wallet" keep={4} />
        </div>
      </th>
      <td>
        <Toned tone={holding.kind === "settlement" ? "bad" : "unknown"}>{holding.kind === "settlement" ? "The platform's token" : "Another token"}</Toned>
        {!holding.present && <div className="muted">not there any more</div>}
      </td>
      <td>
        <ShortId id={holding.mint} what="Mint" keep={4} />
      </td>
      <td className="number">{holding.amount}</td>
    </tr>
  );
}
