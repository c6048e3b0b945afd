"""A worker of kcl-rs that does nothing with its records but count them, or say when each came.

    kcl_rs_worker.py STREAM APPLICATION WORKER fanout|polling count|trace

Endpoints and credentials come from the environment. Its fail-over time cannot be set. What it prints is what bench/kcl/worker.rs prints.
"""

import signal
import sys
import threading
import time

from kcl_rs import CheckpointError, RecordProcessorBase, Scheduler

STREAM, APPLICATION, WORKER, RETRIEVAL, MODE = sys.argv[1:]
lock = threading.Lock()
counts = [0, 0]


def now_us():
    return time.time_ns() // 1000


def say(text):
    with lock:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def checkpoint(given):
    try:
        given.checkpointer.checkpoint()
    except CheckpointError as error:
        print(f"checkpoint: {error}", file=sys.stderr)


class Processor(RecordProcessorBase):
    def initialize(self, given):
        self.shard = given.shard_id
        say(f"shard {self.shard} {now_us()}")

    def process_records(self, given):
        records = given.records
        if not records:
            return
        if MODE == "trace":
            now = now_us()
            lines = [
                f"record {self.shard} {r.sequence_number} {r.data[:16].decode()} {now}" for r in records
            ]
            say("\n".join(lines))
        else:
            with lock:
                counts[0] += len(records)
                counts[1] += sum(len(r.data) for r in records)
        checkpoint(given)

    def lease_lost(self, given):
        say(f"lost {self.shard} {now_us()}")

    def shard_ended(self, given):
        checkpoint(given)

    def shutdown_requested(self, given):
        checkpoint(given)


def tell_counts():
    before = 0
    while True:
        with lock:
            records, size = counts
        if records != before:
            before = records
            say(f"total {records} {size} {now_us()}")
        time.sleep(0.02)


def main():
    scheduler = Scheduler(
        stream_name=STREAM,
        application_name=APPLICATION,
        record_processor_factory=Processor,
        worker_identifier=WORKER,
        region="us-east-1",
        initial_position="TRIM_HORIZON",
        retrieval_mode=RETRIEVAL.upper(),
    )
    threading.Thread(target=tell_counts, daemon=True).start()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    scheduler.start()
    stopped.wait()
    scheduler.shutdown()


main()
