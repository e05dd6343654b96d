#!/usr/bin/env python3
"""Writes the table of values in docs/install.md from the comments in charts/rutter/values.yaml.

    charts/reference.py            writes it
    charts/reference.py --check    fails when the table is not what this program writes

A key's text is the comment that begins with `# --` above it; what the schema calls a map of many keys is one row.
"""
import pathlib
import re
import sys
import textwrap

import yaml

HERE = pathlib.Path(__file__).resolve().parent
VALUES, PAGE = HERE / "rutter" / "values.yaml", HERE.parent / "docs" / "install.md"
BEGIN, END = "<!-- values -->\n", "<!-- /values -->\n"
SECTION = re.compile(r"^# -{10,} (.+)$")
KEY = re.compile(r"^( *)([A-Za-z]\w*):(?: (.*))?$")


class Undocumented(Exception):
    """A key of values.yaml has no text."""


def main():
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    try:
        made = before + BEGIN + table(VALUES.read_text().splitlines()) + END + after
    except Undocumented as error:
        print(f"charts/reference.py: {error}", file=sys.stderr)
        return 1
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made)
    elif made != page:
        print("docs/install.md is not what charts/reference.py writes: run it again", file=sys.stderr)
        return 1
    return 0


def table(lines):
    out, parents, said, number = [], [], [], 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if section := SECTION.match(line):
            title = section[1][0].upper() + section[1][1:]
            out += ["", f"### {title}", "", "| key | default | |", "| --- | --- | --- |"]
        elif line.strip().startswith("#"):
            words = line.strip().lstrip("#").strip()
            said = [words.removeprefix("--").strip()] if words.startswith("--") else [*said, words] if said else []
        elif not line.strip():
            said = []
        elif found := KEY.match(line):
            indent, key, value = len(found[1]), found[2], found[3]
            parents = [parent for parent in parents if parent[0] < indent]
            path = ".".join([parent[1] for parent in parents] + [key])
            if not said and value is None:
                parents.append((indent, key))  # a group, whose keys have texts of their own
                continue
            if not said:
                raise Undocumented(f"{path} in values.yaml has no comment `# -- …` above it")
            default, taken = whole(value, lines[number:], indent)
            number += taken
            out.append(f"| `{path}` | {default} | {' '.join(said).replace('|', chr(92) + '|')} |")
            said = []
    return "\n".join(out).strip("\n") + "\n"


def below(lines, indent):
    """The lines that belong to a key: deeper ones, and the entries of its list."""
    for line in lines:
        deeper = len(line) - len(line.lstrip())
        if line.strip() and deeper <= indent and not line[deeper:].startswith("- "):
            return
        yield line


def whole(value, lines, indent):
    """A key's default in a cell, and how many further lines it took."""
    taken = [] if value not in (None, "|") else list(below(lines, indent))
    text = textwrap.dedent("\n".join(taken)) if taken else value
    default = text if value == "|" else yaml.safe_load(text)
    if default in ("", {}, []):
        return "", len(taken)
    if isinstance(default, str):
        shown = [line for line in default.splitlines() if line.strip()]
    else:
        shown = [yaml.safe_dump(default, default_flow_style=True, width=10**6, sort_keys=False).splitlines()[0]]
    return "<br>".join(f"`{line}`" for line in shown), len(taken)


if __name__ == "__main__":
    sys.exit(main())
