"""Reads Lakegram's tables with the Python package deltalake and with Polars, and prints what it found as JSON."""

import json
import os
import sys

import polars
from deltalake import DeltaTable

TABLES = {
    "bronze": "bronze/telegram_messages",
    "silver": "silver/telegram_responses",
    "replies": "silver/telegram_replies",
}


def main(data):
    found = {}
    for name, path in TABLES.items():
        location = os.path.join(data, path)
        if not os.path.isdir(os.path.join(location, "_delta_log")):
            continue
        table = DeltaTable(location)
        rows = table.to_pyarrow_table()
        frame = polars.read_delta(location)
        found[name] = {
            "version": table.version(),
            "rows": rows.num_rows,
            "types": {field.name: str(field.type) for field in rows.schema},
            "polars_rows": frame.height,
            "ids": sorted(i for i in rows.column("update_id").to_pylist() if i is not None),
        }
        if "status" in rows.column_names:
            statuses = rows.column("status").to_pylist()
            found[name]["by_status"] = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
