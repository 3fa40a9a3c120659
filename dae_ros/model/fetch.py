"""Fetches the file of a manifest entry: resumes, checks the digest, renames. No torch."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from dae_ros.errors import WeightsError
from dae_ros.model.manifest import Entry

Report = Callable[[int, "int | None"], None]

_BLOCK_BYTES = 1 << 18
_TIMEOUT_S = 30.0


def _silent(done: int, total: int | None) -> None:
    """Report nothing."""


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(entry: Entry, folder: Path, report: Report = _silent) -> Path:
    """Bring the file of an entry here, going on where an earlier attempt was cut.

    Args:
        entry: with a `url`; others must be got by hand.
        folder: the models folder; the file lands at `folder / entry.file`, and until it is
            whole and its digest is right, at that name with `.part` added.
        report: called with the bytes that are here and the size of the file, None if unknown.

    Returns:
        The file.

    Raises:
        WeightsError: if it cannot be fetched, with what to do; what arrived is kept and the
            next call goes on from there, unless its digest is wrong.
    """
    target = folder / entry.file
    if entry.url is None or entry.sha256 is None:
        raise WeightsError(f"{entry.name} cannot be fetched. {entry.how_to_get()}", name=entry.name)
    if target.is_file():
        if digest_of(target) == entry.sha256:
            return target
        raise WeightsError(
            f"{target} is there, and is not {entry.name} (another sha256). Move it away and "
            "fetch again",
            path=str(target),
        )
    part = target.with_name(target.name + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _download(entry.url, part, report)
    except urllib.error.HTTPError as error:
        raise WeightsError(
            f"{entry.url} answers {error.code} {error.reason}. Look for the file at its source "
            f"({entry.source}) and put it at {target}",
            url=entry.url,
            status=error.code,
        ) from error
    except (http.client.HTTPException, OSError) as error:
        here = part.stat().st_size if part.is_file() else 0
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{entry.url} cannot be fetched: {reason}. {here} bytes are here; the same command "
            "goes on from there. Without a network, fetch the file on another machine and put "
            f"it at {target}",
            url=entry.url,
            bytes_here=here,
        ) from error
    digest = digest_of(part)
    if digest != entry.sha256:
        part.unlink()
        raise WeightsError(
            f"what came from {entry.url} is not {entry.name}: its sha256 is {digest}, expected "
            f"is {entry.sha256}. It was removed; fetch again, and if that happens again, the "
            "file at the source has changed",
            url=entry.url,
            digest=digest,
            expected=entry.sha256,
        )
    part.replace(target)
    return target


def _download(url: str, part: Path, report: Report) -> None:
    here = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "dae-ros"})
    if here:
        request.add_header("Range", f"bytes={here}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if here and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # The part is whole, or longer than the file; the digest tells.
            return
        raise
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            here = 0  # a server without ranges sends everything
        length = answer.headers.get("Content-Length")
        total = None if length is None else here + int(length)
        with part.open("ab" if here else "wb") as stream:
            done = _copy(answer, stream, here, total, report)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _copy(
    answer: BinaryIO | http.client.HTTPResponse,
    stream: BinaryIO,
    here: int,
    total: int | None,
    report: Report,
) -> int:
    done = here
    report(done, total)
    while block := answer.read(_BLOCK_BYTES):
        stream.write(block)
        done += len(block)
        report(done, total)
    stream.flush()
    os.fsync(stream.fileno())
    return done
