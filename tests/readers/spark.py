"""Reads Lakegram's tables with PySpark and Delta, as a notebook would.

spark.py --probe              exits 0 when PySpark, Java and the jars of Delta can be had
spark.py batch DATA           prints rows and types of the three tables as JSON
spark.py stream DATA TABLE N  streams TABLE until N rows were seen or two minutes have passed; prints the ids as JSON
"""

import json
import os
import sys
import tempfile

DELTA = "io.delta:delta-spark_2.12:3.3.2"
TABLES = {
    "bronze": "bronze/telegram_messages",
    "silver": "silver/telegram_responses",
    "replies": "silver/telegram_replies",
}


def session():
    from pyspark.sql import SparkSession

    scratch = tempfile.mkdtemp(prefix="lakegram-spark-")
    return (
        SparkSession.builder.master("local[1]")
        .appName("lakegram-readers")
        .config("spark.jars.packages", DELTA)
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.warehouse.dir", scratch)
        .getOrCreate()
    )


def probe():
    try:
        spark = session()
        assert spark.range(3).count() == 3
        spark.stop()
    except Exception as error:  # whatever is missing, the caller says that the group is skipped
        print(f"Spark cannot be had here: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


def batch(data):
    spark = session()
    found = {}
    for name, path in TABLES.items():
        frame = spark.read.format("delta").load(os.path.join(data, path))
        found[name] = {"rows": frame.count(), "types": dict(frame.dtypes)}
    spark.stop()
    print(json.dumps(found))


def stream(data, table, expected):
    spark = session()
    path = os.path.join(data, TABLES[table])
    scratch = tempfile.mkdtemp(prefix="lakegram-stream-")
    seen = []

    def take(frame, _batch):
        seen.extend(row.update_id for row in frame.select("update_id").collect())
        if len(seen) <= expected:
            print(f"seen {len(seen)}", flush=True)

    query = (
        spark.readStream.format("delta")
        .option("maxFilesPerTrigger", 5)
        .load(path)
        .writeStream.foreachBatch(take)
        .option("checkpointLocation", scratch)
        .trigger(processingTime="200 milliseconds")
        .start()
    )
    waited = 0
    while len(seen) < expected and waited < 120 and query.exception() is None:
        query.awaitTermination(1)
        waited += 1
    # Whatever compaction rewrites afterwards must not come again.
    query.awaitTermination(3)
    failure = query.exception()
    query.stop()
    spark.stop()
    print(json.dumps({"seen": seen, "failure": str(failure) if failure else None}))


if __name__ == "__main__":
    if sys.argv[1] == "--probe":
        sys.exit(probe())
    if sys.argv[1] == "batch":
        batch(sys.argv[2])
    else:
        stream(sys.argv[2], sys.argv[3], int(sys.argv[4]))
