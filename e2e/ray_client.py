"""Uses a cluster as a program of Ray's users does: with the stock JobSubmissionClient, configured by its environment alone.

    ray_client.py jobs      submit, follow, stop, list and delete jobs; the last line is a JSON object of what was seen
    ray_client.py refused   one request that must be refused; prints what Ray's client says
"""

import asyncio
import json
import sys
import time

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

LONG_LINE = 1_500_000
LINES = 4  # more than 4 MiB in all, which is what one websocket message may have
BOUND = 120

CHATTY = f"""python -c "
import time
for i in range({LINES}):
    print(chr(97 + i) * {LONG_LINE}, flush=True)
    time.sleep(0.5)
print('the end')
" """


def wait_for(client, job, *wanted):
    deadline = time.monotonic() + BOUND
    while (status := client.get_job_status(job)) not in wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{job} is {status}, not {wanted}")
        time.sleep(0.5)
    return str(status.value)


async def follow(client, job):
    return [chunk async for chunk in client.tail_job_logs(job)]


def jobs():
    client = JobSubmissionClient()
    seen = {}

    chatty = client.submit_job(entrypoint=CHATTY)
    followed = asyncio.run(asyncio.wait_for(follow(client, chatty), BOUND))
    lines = "".join(followed).splitlines()
    seen["chatty_status"] = wait_for(client, chatty, JobStatus.SUCCEEDED, JobStatus.FAILED)
    seen["long_lines"] = sum(len(line) == LONG_LINE for line in lines)
    seen["chatty_ended"] = lines[-1:] == ["the end"]
    seen["logs_agree"] = client.get_job_logs(chatty) == "".join(followed)

    endless = client.submit_job(entrypoint="sleep 3600", metadata={"purpose": "to be stopped"})
    wait_for(client, endless, JobStatus.RUNNING)
    seen["stop_accepted"] = client.stop_job(endless)
    seen["stopped_status"] = wait_for(client, endless, JobStatus.STOPPED, JobStatus.FAILED)
    seen["metadata_kept"] = client.get_job_info(endless).metadata == {"purpose": "to be stopped"}
    seen["listed"] = {chatty, endless} <= {job.submission_id for job in client.list_jobs()}

    seen["delete_accepted"] = client.delete_job(endless)
    seen["deleted"] = endless not in {job.submission_id for job in client.list_jobs()}
    try:
        client.get_job_status(endless)
    except RuntimeError as error:
        seen["missing_job"] = str(error)
    seen["chatty"] = chatty
    print(json.dumps(seen))


def refused():
    try:
        print(JobSubmissionClient().list_jobs())
    except AuthenticationError as error:
        print(error)


if __name__ == "__main__":
    {"jobs": jobs, "refused": refused}[sys.argv[1]]()
