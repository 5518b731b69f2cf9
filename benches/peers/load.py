"""Loads a folder of Telegram updates as JSON lines, in the form that each library's own documentation shows.

load.py WAY FOLDER TARGET; prints seconds, processor seconds and the most memory as JSON.
"""

import glob
import json
import os
import resource
import shutil
import sys
import time

way, folder, target = sys.argv[1:]
files = sorted(glob.glob(os.path.join(folder, "*.jsonl")))
pattern = os.path.join(folder, "*.jsonl")

PERSON = {"id": "BIGINT", "username": "VARCHAR", "first_name": "VARCHAR", "last_name": "VARCHAR", "language_code": "VARCHAR"}
MESSAGE = {
    "message_id": "BIGINT",
    "date": "BIGINT",
    "text": "VARCHAR",
    "caption": "VARCHAR",
    "chat": {"id": "BIGINT", "type": "VARCHAR", "title": "VARCHAR"},
    "from": PERSON,
    "reply_to_message": {"message_id": "BIGINT"},
}
SHAPE = {"update_id": "BIGINT", "message": MESSAGE, "callback_query": {"id": "VARCHAR", "data": "VARCHAR", "from": PERSON}}


def duckdb_connection():
    import duckdb

    connection = duckdb.connect()
    connection.execute("set preserve_insertion_order = false")
    return connection


def duckdb_transform():
    """One json_transform for all columns, and the record itself beside them."""
    duckdb_connection().execute(
        f"""copy (
            select u.*, json as payload, filename as _source_file, now() as _ingested_at
            from (
                select json_transform(json, '{json.dumps(SHAPE)}') as u, json::varchar as json, filename
                from read_ndjson_objects('{pattern}', filename = true)
            )
        ) to '{target}' (format parquet, compression zstd)"""
    )


def duckdb_plain():
    duckdb_connection().execute(
        f"copy (select * from read_json('{pattern}', format = 'newline_delimited')) to '{target}' "
        "(format parquet, compression zstd)"
    )


def polars():
    import polars as pl

    pl.scan_ndjson(files).collect(engine="streaming").write_delta(target)


def pyarrow():
    """A file at a time, so that memory holds one; the columns are those of the first, for they must not change."""
    import pyarrow.json
    from deltalake import write_deltalake

    schema = pyarrow.json.read_json(files[0]).schema
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    for file in files:
        write_deltalake(target, pyarrow.json.read_json(file, parse_options=options), mode="append")


began = time.monotonic()
{"duckdb_transform": duckdb_transform, "duckdb_plain": duckdb_plain, "polars": polars, "pyarrow": pyarrow}[way]()
seconds = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": seconds,
    "cpu_seconds": used.ru_utime + used.ru_stime,
    "peak_megabytes": used.ru_maxrss / 1024,
}))
shutil.rmtree(target) if os.path.isdir(target) else os.remove(target)
