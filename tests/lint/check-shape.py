#!/usr/bin/env -S python3 -B
"""A function has at most 70 lines and 6 parameters, a line at most 100 columns, a TODO an issue number,
and a silenced analyser the check it is about and the reason on its line (STYLE 3, 4, 10)."""
import re

import source

LINES_MAX, PARAMETERS_MAX, COLUMNS_MAX = 70, 6, 100

# clang-format puts both braces of a function, and only of functions, into column 0.
BODY = re.compile(r"\)\n\{\n.*?^\}", re.M | re.S)
TODO = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")
# NOLINT(bugprone-something): why; // cppcheck-suppress something ; why
SILENCED = re.compile(r"\bNOLINT(?!(NEXTLINE)?\([\w.,-]+\): \w)|cppcheck-suppress(?! \w+ ; \w)")
# Spelled apart so that this file does not find itself.
CONFLICT = re.compile(r"^(<{7}|>{7}|={7})( |$)", re.M)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def parameter_count(text):
    depth, count = 0, 1
    for character in text:
        depth += character in "([" or -(character in ")]")
        count += character == "," and depth == 0
    return 0 if text.strip() in ("", "void") else count


def opening(text, closing):
    """Where the parenthesis that ends at `closing` begins."""
    depth = 0
    for index in range(closing, -1, -1):
        depth += (text[index] == ")") - (text[index] == "(")
        if depth == 0:
            return index
    return 0


def check_functions(path, text):
    for match in BODY.finditer(text):
        closing = match.start()
        first = opening(text, closing)
        name = re.search(r"\w*$", text[:first].rstrip()).group(0)
        line = line_of(text, first)
        lines = line_of(text, match.end()) - line + 1
        if lines > LINES_MAX:
            source.found(path, line, "%s has %d lines, the limit is %d" % (name, lines, LINES_MAX))
        count = parameter_count(text[first + 1:closing])
        if count > PARAMETERS_MAX:
            source.found(path, line, "%s has %d parameters, the limit is %d" % (name, count, PARAMETERS_MAX))


def check_lines(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > COLUMNS_MAX:
            source.found(path, number, "%d columns, the limit is %d" % (len(line), COLUMNS_MAX))
        if line != line.rstrip():
            source.found(path, number, "space at the end of the line")
        if "\t" in line:
            source.found(path, number, "tab")


for path in source.files(".c", ".h"):
    text = source.read(path)
    check_lines(path, text)
    check_functions(path, source.code(text))
for path in source.files(".c", ".h", ".def", ".md", ".txt", ".cmake", "Dockerfile"):
    text = source.read(path)
    # Pages may speak of the word.
    for match in [] if path.endswith(".md") else TODO.finditer(text):
        source.found(path, line_of(text, match.start()), "%s without an issue number: write TODO(#123)" % match.group(1))
    for match in SILENCED.finditer(text):
        source.found(path, line_of(text, match.start()), "silences an analyser without naming its check and why")
    for match in CONFLICT.finditer(text):
        source.found(path, line_of(text, match.start()), "conflict marker")
source.finish("shape")
