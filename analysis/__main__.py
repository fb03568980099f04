"""`python -m analysis DIR [FILE.html]`: write a study's report without the rest of the product."""

from __future__ import annotations

import sys
from pathlib import Path

from analysis.bare import TableError
from analysis.report import write_report
from ganstudy.checksums import DamagedFile


def main(arguments: list[str]) -> int:
    """Write the report; return the exit code."""
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m analysis DIR [FILE.html]", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    target = Path(arguments[1]) if len(arguments) == 2 else folder / "report.html"
    try:
        write_report(folder, target)
    except (OSError, TableError, DamagedFile) as error:
        print(error, file=sys.stderr)
        return 2
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
