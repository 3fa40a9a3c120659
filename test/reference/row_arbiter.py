"""The read-out of a sensor, one decision at a time, in plain Python."""

from __future__ import annotations


def serve(requests, cost_us, row_cost_events, end_us=float("inf"), now=0.0):
    """Return (sent, waiting, now) for requests (time_us, row, column, polarity), sorted.

    `sent` is (time_us, row, column, polarity) in the order of leaving; a pixel that asks again
    while it waits loses that request.
    """
    requests = list(requests)
    pending = []  # in order of asking
    sent = []
    while True:
        if not pending:
            if not requests:
                break
            now = max(now, requests[0][0])
        if now >= end_us:
            break
        while requests and requests[0][0] <= now:
            request = requests.pop(0)
            if not any(waits[1:3] == request[1:3] for waits in pending):
                pending.append(request)
        if not pending:
            continue
        row = pending[0][1]
        served = sorted((request for request in pending if request[1] == row), key=lambda r: r[2])
        pending = [request for request in pending if request[1] != row]
        sent += [(int(now), row, column, polarity) for _, _, column, polarity in served]
        now += (row_cost_events + len(served)) * cost_us
    return sent, pending + requests, now
