"""Documents with tables that programs write."""
import pathlib
import sys


def put_between(path, marks, text):
    """Puts the text in the place of what stands between two marks of a document; ends the program when it has not both."""
    path = pathlib.Path(path)
    before, mark, rest = path.read_text().partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (mark and end):
        sys.exit(f"{path} has no {marks[0]} … {marks[1]} to write the tables between")
    path.write_text(f"{before}{mark}\n\n{text}\n{end}{after}")
