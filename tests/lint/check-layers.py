#!/usr/bin/env -S python3 -B
"""Every include goes to a lower layer or stays in its folder (STYLE 2), and a library of the system is
seen only by the folders whose reason it is (DESIGN 9)."""
import os
import re

import source

# A folder's layer, and the headers of others it may see beyond the lower layers' ("only": nothing else).
LAYERS = {
    "broker/base": 0,
    "broker/wire": 1, "broker/config": 1, "broker/metrics": 1,
    "broker/core": 2, "storage": 2,
    "broker/volume": 3, "broker/net": 3,
    "broker/http": 4, "broker/session": 4, "broker/push": 4, "broker/console": 4, "client": 4,
    "broker": 5, "tools": 6, "tests": 7,
}
ALSO = {"broker/core": {"storage/store.h", "storage/tables.def"}}
ONLY = {"client": {"broker/wire", "broker/base"}}

# <header> -> folders that may include it; a header that is not here belongs to libc.
SYSTEM = {
    "uv.h": {"client", "broker/net", "broker/http", "broker/session", "broker/push", "broker"},
    "http_parser.h": {"broker/http"},
    "jansson.h": {"broker/http", "broker/push"},
    "lmdb.h": {"storage"},
    "msgpack.h": {"broker/wire", "broker/http", "client"},
    "xxhash.h": {"storage", "broker/core", "broker/volume", "client"},
    "curl/curl.h": {"broker/push"},
    "cmocka.h": set(),
}
# Headers a pure core can need: types and memory, nothing that reaches outside.
PURE = {"assert.h", "inttypes.h", "limits.h", "stdbool.h", "stddef.h", "stdint.h", "string.h", "xxhash.h"}
PURE_FOLDERS = {"broker/core"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.M)


def layer_folder(path):
    """The folder of the table that holds a file, or None for one outside of all."""
    folder = os.path.dirname(path)
    while folder and folder not in LAYERS:
        folder = os.path.dirname(folder)
    return folder or None


def target(path, name):
    """Where #include "name" in `path` leads: beside the file, or from the root."""
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    return beside if os.path.exists(os.path.join(source.ROOT, beside)) else os.path.normpath(name)


def check_own(path, folder, name, line):
    to = target(path, name)
    generated = os.path.exists(os.path.join(source.ROOT, to + ".in"))
    if not generated and not os.path.exists(os.path.join(source.ROOT, to)):
        source.found(path, line, 'no file for #include "%s"' % name)
        return
    to_folder = layer_folder(to)
    if to_folder is None:
        source.found(path, line, '"%s" is outside of all layers' % name)
    elif to_folder == folder or to in ALSO.get(folder, ()):
        return
    elif folder in ONLY and to_folder not in ONLY[folder]:
        source.found(path, line, '%s may see only %s, not "%s"' % (folder, ", ".join(sorted(ONLY[folder])), to))
    elif LAYERS[to_folder] >= LAYERS[folder]:
        source.found(path, line, '%s (layer %d) may not see "%s" (layer %d)' %
                     (folder, LAYERS[folder], to, LAYERS[to_folder]))


def check_system(path, folder, name, line):
    if folder in PURE_FOLDERS and name not in PURE:
        source.found(path, line, "%s is pure and may not include <%s>" % (folder, name))
    elif name in SYSTEM and LAYERS[folder] < LAYERS["tools"] and folder not in SYSTEM[name]:
        source.found(path, line, "%s may not include <%s>" % (folder, name))


for path in source.files(".c", ".h", ".def"):
    folder = layer_folder(path)
    if folder is None:
        source.found(path, 0, "C source outside of the folders that DESIGN 8 names")
        continue
    text = source.code(source.read(path), keep_strings=True)
    for match in INCLUDE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match.group(1):
            check_own(path, folder, match.group(1), line)
        else:
            check_system(path, folder, match.group(2), line)
source.finish("layers")
