// One consumer of lifion-kinesis, a thread of lifion.mjs: what it gets is posted, with the time it came at.
//
// A thread of its own, because version 1.3.3 cannot be stopped: a poll that is under way when it stops
// begins the next one, and once a shard has ended, stopConsumer fails.

import dns from 'node:dns';
import { parentPort, workerData } from 'node:worker_threads';
import Lifion from 'lifion-kinesis';
import { relay } from './relay.mjs';

/** Where enhanced fan-out of version 1.3.3 goes, whatever its endpoint (lifion/lifion-kinesis, issue 746). */
const FANOUT_HOST = 'kinesis.us-east-1.amazonaws.com';

const { useEnhancedFanOut } = workerData;
const endpoint = useEnhancedFanOut ? await relay(workerData.endpoint) : workerData.endpoint;
// Makes that name the endpoint's, as a line in /etc/hosts would.
const { hostname } = new URL(endpoint);
const { lookup } = dns;
dns.lookup = (name, ...rest) => lookup(name === FANOUT_HOST ? hostname : name, ...rest);

const fail = (...what) => {
    const failure = what.map((part) => part?.stack ?? part).join(' ');
    parentPort.postMessage({ failure });
};
const consumer = new Lifion({ ...workerData, endpoint, logger: { error: fail } });
consumer.on('error', fail);
consumer.on('data', ({ records, shardId: shard }) => {
    const at = performance.timeOrigin + performance.now();
    const came = records.map(({ partitionKey: key, data }) => ({ key, data: Buffer.from(data) }));
    parentPort.postMessage({ shard, at, came });
});
await consumer.startConsumer();
parentPort.postMessage({ ready: true });
