"""Loads a folder of JSON lines, in the form that each library's own documentation shows.

load.py WAY SHAPE FOLDER TARGET; prints seconds, processor seconds and the most memory as JSON. SHAPE is `telegram` (updates)
or `events` (of GH Archive): the columns of the ways that are given them.
"""

import glob
import json
import os
import resource
import shutil
import sys
import time

way, shape, folder, target = sys.argv[1:]
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
COLUMNS = {
    "telegram": {
        "update_id": "BIGINT",
        "message": MESSAGE,
        "callback_query": {"id": "VARCHAR", "data": "VARCHAR", "from": PERSON},
    },
    "events": {
        "id": "VARCHAR",
        "type": "VARCHAR",
        "actor": {"id": "BIGINT", "login": "VARCHAR", "url": "VARCHAR"},
        "repo": {"id": "BIGINT", "name": "VARCHAR", "url": "VARCHAR"},
        "org": {"id": "BIGINT", "login": "VARCHAR"},
        "public": "BOOLEAN",
        "created_at": "VARCHAR",
    },
}[shape]


def duckdb_connection():
    import duckdb

    connection = duckdb.connect()
    connection.execute("set preserve_insertion_order = false")
    return connection


def duckdb_transform():
    """One json_transform for all columns, and the record itself beside them."""
    duckdb_connection().execute(
        f"""copy (
            select u.*, json as record, filename as _source_file, now() as _ingested_at
            from (
                select json_transform(json, '{json.dumps(COLUMNS)}') as u, json::varchar as json, filename
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

    read = pyarrow.json.ReadOptions(block_size=8 << 20)
    schema = pyarrow.json.read_json(files[0], read_options=read).schema
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    for file in files:
        rows = pyarrow.json.read_json(file, read_options=read, parse_options=options)
        write_deltalake(target, rows, mode="append")


def spark_ddl(columns):
    kinds = {"VARCHAR": "string", "BIGINT": "bigint", "BOOLEAN": "boolean"}
    kind = lambda value: f"struct<{spark_fields(value)}>" if isinstance(value, dict) else kinds[value]
    return ", ".join(f"`{name}` {kind(value)}" for name, value in columns.items())


def spark_fields(columns):
    return spark_ddl(columns).replace("` ", "`: ")


def spark():
    """The schema given and the record kept; the session is up before the clock starts, as on a cluster that runs."""
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import col, current_timestamp, from_json, input_file_name

    session = (
        SparkSession.builder.master("local[*]")
        .config("spark.jars.packages", "io.delta:delta-spark_2.12:3.3.2")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    session.range(1).write.format("delta").save(f"{target}.warm")
    process = session._jvm.java.lang.ProcessHandle.current().pid()
    began, used = time.monotonic(), processor_seconds(process)
    lines = session.read.text(folder).select(col("value").alias("record"), input_file_name().alias("_source_file"))
    rows = lines.withColumn("u", from_json(col("record"), spark_ddl(COLUMNS)))
    rows = rows.select("u.*", "record", "_source_file", current_timestamp().alias("_ingested_at"))
    rows.write.format("delta").save(target)
    cost = {
        "seconds": time.monotonic() - began,
        "cpu_seconds": processor_seconds(process) - used,
        "peak_megabytes": peak_kilobytes(process) / 1024,
    }
    session.stop()
    shutil.rmtree(f"{target}.warm")
    return cost


def processor_seconds(process):
    with open(f"/proc/{process}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_kilobytes(process):
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


ways = {
    "duckdb_transform": duckdb_transform,
    "duckdb_plain": duckdb_plain,
    "polars": polars,
    "pyarrow": pyarrow,
    "spark": spark,
}
began = time.monotonic()
cost = ways[way]()
seconds = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps(cost or {
    "seconds": seconds,
    "cpu_seconds": used.ru_utime + used.ru_stime,
    "peak_megabytes": used.ru_maxrss / 1024,
}))
shutil.rmtree(target) if os.path.isdir(target) else os.remove(target)
