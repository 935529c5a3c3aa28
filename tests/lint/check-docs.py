#!/usr/bin/env -S python3 -B
"""Links of the Markdown pages lead somewhere, and the files and scripts they name exist. That the sections
made from tables are not stale is checked by `docgen --check`, once it is built (lint/reference)."""
import os
import re

import source

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
NAMED = re.compile(r"`(?:\./)?((?:tools|tests|broker|storage|client|\.ci)/[\w./-]+\w)")
PLACEHOLDER = re.compile(r"\b(NAME|STEP|FILE)\b|_NAME")


def anchors(text):
    """GitHub's anchors: lower case, punctuation dropped, spaces to hyphens."""
    heads = re.findall(r"^#{1,6} +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def exists(path):
    return os.path.exists(os.path.join(source.ROOT, path))


for path in source.files(".md"):
    text = source.read(path)
    for match in LINK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        name, anchor = match.group(1), match.group(2)
        to = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
        if not exists(to):
            source.found(path, line, "link to %s, which does not exist" % to)
        elif anchor and to.endswith(".md") and anchor[1:] not in anchors(source.read(to)):
            source.found(path, line, "link to %s%s, which has no such heading" % (to, anchor))
    for match in NAMED.finditer(text):
        if not PLACEHOLDER.search(match.group(1)) and not exists(match.group(1)):
            source.found(path, text.count("\n", 0, match.start()) + 1, "names %s, which does not exist" % match.group(1))

source.finish("docs")
