"""Breaks Lakegram's tables as another program might, for the tests of `lakegram audit`.

    spoil.py delete TABLE UPDATE_ID    takes the rows of an update out
    spoil.py repeat TABLE UPDATE_ID    appends them once more, with send + 1 where there is a send
"""

import sys

import pyarrow
import pyarrow.compute
from deltalake import DeltaTable, write_deltalake


def main(action, location, update_id):
    table = DeltaTable(location)
    if action == "delete":
        table.alter.set_table_properties({"delta.appendOnly": "false"})
        DeltaTable(location).delete(f"update_id = {update_id}")
    else:
        rows = pyarrow.table(table.to_pyarrow_table())
        rows = rows.filter(pyarrow.compute.equal(rows["update_id"], int(update_id)))
        if "send" in rows.column_names:
            later = pyarrow.compute.add(rows["send"], 1)
            rows = rows.set_column(rows.column_names.index("send"), "send", later)
        write_deltalake(location, rows, mode="append")
    print("{}")


if __name__ == "__main__":
    main(*sys.argv[1:])
