#!/usr/bin/env python3
"""Count what a Redfish tree holds, independently of any client library.

The walker reads every resource of a recorded tree (or crawls a live service),
sorts the resources by `@odata.type`, and only then attributes them to servers.
It never relies on one preferred link path, so it can be compared with a client
that does.

Usage:
    walk.py TREE                    one JSON document about one tree
    walk.py --summary FOLDER        one line of counts per tree in a folder
    walk.py https://bmc --user U --password P [--insecure]

A TREE is a folder of index.json files (with or without the redfish/v1 prefix),
a JSON object that maps paths to documents (plain or gzip), or a URL.
"""

import argparse
import base64
import collections
import gzip
import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

import facts
from walk_index import ROOT, Tree, links_of, normal
from walk_servers import Relations


# ---------------------------------------------------------------- loading

def load(tree):
    """Return ({path: document}, [paths that are not JSON]) of a recorded tree."""
    for candidate in (tree, tree + ".json.gz", tree + ".json"):
        if os.path.isfile(candidate):
            with open(candidate, "rb") as handle:
                raw = handle.read()
            if raw[:2] == b"\x1f\x8b":
                raw = gzip.decompress(raw)
            return json.loads(raw), []
    if not os.path.isdir(tree):
        raise SystemExit(f"no such tree: {tree}")
    documents, broken = {}, []
    for folder, names, files in os.walk(tree):
        names.sort()
        for name in sorted(files):
            if not name.endswith(".json") or name == "headers.json":
                continue
            inside = os.path.relpath(os.path.join(folder, name), tree).replace(os.sep, "/")
            path = re.sub(r"(^|/)index\.json$", "", inside)
            if path.split("/")[0] != "redfish":
                path = f"redfish/v1/{path}" if path.split("/")[0] != "v1" else f"redfish/{path}"
            path = "/" + path.strip("/")
            try:
                with open(os.path.join(folder, name), encoding="utf-8-sig") as handle:
                    documents[path] = json.load(handle)
            except (ValueError, UnicodeDecodeError):
                broken.append(path)
    return documents, broken


def crawl(base, user, password, insecure, limit):
    """Read a live service by following every link of every document once."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        """Refuse redirects, so that credentials never leave the given host."""

        def redirect_request(self, *_):
            return None

    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), NoRedirect, urllib.request.HTTPSHandler(context=context))
    parts = urllib.parse.urlsplit(base)
    origin = f"{parts.scheme}://{parts.netloc}"
    headers = {"Accept": "application/json", "OData-Version": "4.0"}
    if user:
        pair = f"{user}:{password or ''}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
    documents, broken, queue, seen = {}, [], collections.deque([ROOT + "/"]), set()
    while queue and len(seen) < limit:
        path = queue.popleft()
        if normal(path, keep_query=True).lower() in seen:
            continue
        seen.add(normal(path, keep_query=True).lower())
        quoted = urllib.parse.quote(path, safe="/?&=$%:@#+,;()!*'~")
        request = urllib.request.Request(origin + quoted, headers=headers)
        try:
            with opener.open(request, timeout=60) as reply:
                raw = reply.read(64 << 20)
        except urllib.error.HTTPError as refused:
            if path.rstrip("/") == ROOT:
                raise SystemExit(f"{base}: status {refused.code}") from None
            continue  # the link stays dangling
        except OSError as broken_line:
            if path.rstrip("/") == ROOT:
                raise SystemExit(f"{base}: {broken_line}") from None
            continue
        key = normal(path, keep_query=True)
        try:
            documents[key] = json.loads(raw.decode("utf-8-sig"))
        except (ValueError, UnicodeDecodeError):
            broken.append(key)
            continue
        for _, name, target in links_of(documents[key], with_strings=True):
            if target.startswith("/redfish") and "/JsonSchemas" not in target and "$metadata" not in target:
                queue.append(target.split("#")[0])
    return documents, broken


# ---------------------------------------------------------------- command line

def walk(documents, broken=()):
    """The whole report about one tree."""
    tree = Tree(documents, broken)
    return facts.report(tree, Relations(tree))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tree", nargs="?", help="recorded tree or http(s) URL")
    parser.add_argument("--summary", metavar="FOLDER", help="one line of counts per tree in the folder")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--insecure", action="store_true", help="accept any TLS certificate")
    parser.add_argument("--limit", type=int, default=20000, help="most documents to read from a live service")
    options = parser.parse_args(argv)
    if options.summary:
        print(facts.SUMMARY_HEAD)
        for name in sorted(os.listdir(options.summary)):
            path = os.path.join(options.summary, name)
            if name.endswith((".json", ".json.gz")) or os.path.isdir(path):
                documents, broken = load(path)
                print(facts.summary(re.sub(r"\.json(\.gz)?$", "", name), walk(documents, broken)))
        return 0
    if not options.tree:
        parser.error("a tree or --summary is needed")
    if re.match(r"https?://", options.tree):
        documents, broken = crawl(options.tree, options.user, options.password, options.insecure, options.limit)
    else:
        documents, broken = load(options.tree)
    json.dump(walk(documents, broken), sys.stdout, indent=2, sort_keys=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
