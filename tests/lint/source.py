"""What the lint scripts share: the list of files, a C reader without comments, and reporting."""
import os
import re
import subprocess
import sys

ROOT = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else os.path.join(ROOT, "build")

_findings = []


def files(*suffixes):
    """Paths from the root of everything that is, or by .gitignore could be, committed."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=" + ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.decode()
    paths = sorted(set(path for path in listing.split("\0") if path))
    return [path for path in paths
            if path.endswith(suffixes or "") and os.path.isfile(os.path.join(ROOT, path))]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


_TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code(text, keep_strings=False):
    """The text with comments blanked, and strings too unless kept; every newline stays in its place."""
    def blank(match):
        token = match.group(0)
        if keep_strings and not token.startswith("/"):
            return token
        return re.sub(r"[^\n]", " ", token)
    return _TOKEN.sub(blank, text)


def found(path, line, message):
    _findings.append("%s:%d: %s" % (path, line, message) if line else "%s: %s" % (path, message))


def finish(what):
    """Prints the findings, or what was checked; the exit code of the script."""
    for finding in _findings:
        print(finding)
    print("%s: %s" % (what, "%d findings" % len(_findings) if _findings else "clean"))
    sys.exit(1 if _findings else 0)
