"""The record processor that the Java KCL's MultiLangDaemon starts for each shard.

    KCL_EVENTS=FILE java_kcl_processor.py

Speaks the MultiLang protocol (a JSON object a line, on standard input and output), checkpoints after every
batch, at the end of the shard and when asked to stop, and appends what it sees to the file before it answers:
one JSON object a line. All processors share the file, so its order is the order in which things happened.
"""

import json
import os
import sys
import time


class Processor:
    def __init__(self, events):
        self.events = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.shard = None

    def note(self, event, **details):
        seen = {"event": event, "shard": self.shard, "process": os.getpid(), "time": time.time(), **details}
        line = json.dumps(seen).encode() + b"\n"
        # Whole lines of several processes stay whole when each is one write.
        if os.write(self.events, line) != len(line):
            sys.exit("the file of events took a part of a line")

    def say(self, **message):
        # The blank line ends whatever else might have been written.
        sys.stdout.write(f"\n{json.dumps(message)}\n")
        sys.stdout.flush()

    def hear(self):
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def checkpoint(self):
        """Everything this processor was given is done with."""
        self.say(action="checkpoint", sequenceNumber=None, subSequenceNumber=None)
        answer = self.hear()
        if answer is None or answer["action"] != "checkpoint":
            sys.exit(f"{answer} where the answer to a checkpoint was expected")
        self.note("checkpoint", error=answer.get("error"))

    def handle(self, message):
        action = message["action"]
        if action == "initialize":
            self.shard = message["shardId"]
            self.note(action, sequence=message["sequenceNumber"])
        elif action == "processRecords":
            self.note(action, records=message["records"], behind=message["millisBehindLatest"])
        else:
            self.note(action)
        if action in ("processRecords", "shardEnded", "shutdownRequested"):
            self.checkpoint()
        self.say(action="status", responseFor=action)

    def run(self):
        while (message := self.hear()) is not None:
            self.handle(message)


if __name__ == "__main__":
    Processor(os.environ["KCL_EVENTS"]).run()
