"""Opens a Delta table as a Python user does and reads all of it: how long each takes, as one line of JSON.

read_table.py TABLE            the table as it is
read_table.py TABLE --compact  compacts it with deltalake's own optimize first
"""

import json
import os
import sys
import time

from deltalake import DeltaTable


def main() -> None:
    location = sys.argv[1]
    if "--compact" in sys.argv[2:]:
        # Without statistics of a size to aim at, every file goes into as few as fit.
        DeltaTable(location).optimize.compact()
    times = {"open_seconds": [], "read_seconds": []}
    for _ in range(5):
        began = time.perf_counter()
        table = DeltaTable(location)
        opened = time.perf_counter()
        rows = table.to_pyarrow_table()
        read = time.perf_counter()
        times["open_seconds"].append(opened - began)
        times["read_seconds"].append(read - opened)
    report = {name: sorted(seconds)[len(seconds) // 2] for name, seconds in times.items()}
    report |= {"first_open_seconds": times["open_seconds"][0], "rows": rows.num_rows}
    report |= {"version": table.version(), "files": len(table.file_uris())}
    print(json.dumps(report), flush=True)
    # The threads of two libraries do not always agree on how to end; the report is out.
    os._exit(0)


main()
