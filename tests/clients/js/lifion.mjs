// The unmodified npm package lifion-kinesis, by polling and by enhanced fan-out, with its state in dynalite.
//
//     node lifion.mjs ENDPOINT STREAM
//
// For each way: a consumer reads a stream and is gone; two others of its group take its leases over, go on
// at its checkpoints, and follow splits and a merge. Prints one line of JSON for both ways; exit code 1 and
// the reason if a record is missing, doubled, altered or out of its key's order. Takes about a minute: so
// long the package waits before it believes that a consumer is gone. Creates and deletes the streams
// STREAM-polling and STREAM-fanout.

import { Worker } from 'node:worker_threads';
import AWS from 'aws-sdk';
import dynalite from 'dynalite';
import Lifion from 'lifion-kinesis';
import { Wrong, compare, range, run, sleep, text, until } from './records.mjs';

const BATCH = 100;
const SHARDS = 4;
/** Records in one step of the test. */
const STEP = 600;
const STEPS = 5;
const ACCESS = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret', region: 'us-east-1' };

/** A stream, the consumers of one group, and all they got. */
class Group {
    constructor(endpoint, dynamo, stream, useEnhancedFanOut) {
        Object.assign(this, { stream, came: [], put: [], perConsumer: [], shards: new Set() });
        this.aws = new AWS.Kinesis({ endpoint, ...ACCESS, maxRetries: 0 });
        this.options = {
            endpoint,
            ...ACCESS,
            maxRetries: 0,
            consumerGroup: 'group',
            dynamoDb: { endpoint: dynamo, ...ACCESS, tableName: stream },
            initialPositionInStream: 'TRIM_HORIZON',
            leaseAcquisitionInterval: 1_000,
            limit: 150,
            maxEnhancedConsumers: 3,
            noRecordsPollDelay: 250,
            pollDelay: 50,
            shardCount: SHARDS,
            shouldParseJson: false,
            streamName: stream,
            tags: { made: 'by a test' },
            useEnhancedFanOut,
        };
        this.producer = new Lifion(this.options);
    }

    /** Starts a consumer. */
    async consumer() {
        const program = new URL('lifion_consumer.mjs', import.meta.url);
        const thread = new Worker(program, { workerData: this.options });
        const index = this.perConsumer.push(0) - 1;
        let isReady = false;
        thread.on('error', (failure) => (this.failure ??= failure));
        thread.on('message', ({ ready, failure, shard, at, came = [] }) => {
            isReady ||= ready;
            if (failure) {
                this.failure ??= new Wrong(failure);
            }
            if (shard) {
                this.shards.add(shard);
            }
            this.perConsumer[index] += came.length;
            this.came.push(...came.map((record) => ({ ...record, at })));
        });
        await until('consumer', () => this.failure || isReady, 20);
        return thread;
    }

    /** Puts the next records: the first of each call alone, the others in batches. */
    async putStep() {
        const records = range(this.put.length, this.put.length + STEP, text);
        this.put.push(...records);
        const entries = records.map(({ key, data }) => ({ partitionKey: key, data: data.toString() }));
        const { sequenceNumber } = await this.producer.putRecord(entries[0]);
        if (!/^\d{56}$/.test(sequenceNumber)) {
            throw new Wrong(`a record was put at ${sequenceNumber}`);
        }
        for (let begin = 1; begin < entries.length; begin += BATCH) {
            const batch = entries.slice(begin, begin + BATCH);
            const { records: places } = await this.producer.putRecords({ records: batch });
            if (places.length !== batch.length) {
                throw new Wrong(`${places.length} of ${batch.length} records were put`);
            }
        }
    }

    async caughtUp(seconds) {
        const all = () => this.failure || this.came.length >= this.put.length;
        const late = await until(`${this.put.length} records`, all, seconds).catch((error) => error);
        if (this.failure) {
            throw this.failure;
        }
        // What is missing says more than how long it took.
        compare(this.put, this.came.toSorted((a, b) => a.at - b.at));
        if (late) {
            throw late;
        }
    }

    async openShards() {
        const filter = { StreamName: this.stream, ShardFilter: { Type: 'AT_LATEST' } };
        const { Shards: shards } = await this.aws.listShards(filter).promise();
        const start = (shard) => BigInt(shard.HashKeyRange.StartingHashKey);
        return shards.sort((a, b) => (start(a) < start(b) ? -1 : 1));
    }

    async split() {
        const [{ ShardId: id, HashKeyRange: range }] = await this.openShards();
        const middle = (BigInt(range.StartingHashKey) + BigInt(range.EndingHashKey)) / 2n;
        const input = { StreamName: this.stream, ShardToSplit: id, NewStartingHashKey: String(middle) };
        await this.aws.splitShard(input).promise();
    }

    async merge() {
        const [, , left, right] = (await this.openShards()).map((shard) => shard.ShardId);
        const input = { StreamName: this.stream, ShardToMerge: left, AdjacentShardToMerge: right };
        await this.aws.mergeShards(input).promise();
    }

    async delete() {
        const { Tags: tags } = await this.aws.listTagsForStream({ StreamName: this.stream }).promise();
        if (tags.length !== 1 || tags[0].Value !== 'by a test') {
            throw new Wrong(`the stream is tagged ${JSON.stringify(tags)}`);
        }
        const input = { StreamName: this.stream, EnforceConsumerDeletion: true };
        await this.aws.deleteStream(input).promise();
    }
}

async function readAsAGroup(group) {
    const first = await group.consumer();
    await group.putStep();
    await group.caughtUp(20);
    await first.terminate();
    // What nobody reads yet: the rest of a shard, its end, and what is in its children.
    await group.putStep();
    await group.split();
    await group.putStep();
    await Promise.all([group.consumer(), group.consumer()]);
    // Until the leases of the first one are taken.
    await group.caughtUp(70);
    if (group.perConsumer[0] !== STEP) {
        throw new Wrong(`the consumer that is gone got ${group.perConsumer[0]} records`);
    }
    const putting = group.putStep();
    await group.split();
    await putting;
    await group.caughtUp(20);
    // The package knows one parent of a shard: it keeps the order if nothing is left in the other.
    await group.merge();
    await group.putStep();
    await group.caughtUp(20);
    // Anything doubled comes right behind.
    await sleep(1_000);
    await group.caughtUp(0);
    if (group.put.length !== STEPS * STEP || group.shards.size !== SHARDS + 5) {
        throw new Wrong(`${group.put.length} records, shards ${[...group.shards]}`);
    }
    if (group.perConsumer.some((count) => count === 0)) {
        throw new Wrong(`a consumer got nothing: ${group.perConsumer}`);
    }
    await group.delete();
    return { records: group.came.length, perConsumer: group.perConsumer };
}

await run(async (endpoint, stream) => {
    const state = dynalite({ createTableMs: 0, updateTableMs: 0, deleteTableMs: 0 });
    await new Promise((resolve, reject) => {
        state.once('error', reject);
        state.listen(0, '127.0.0.1', resolve);
    });
    const dynamo = `http://127.0.0.1:${state.address().port}`;
    const [polling, fanout] = await Promise.all([
        readAsAGroup(new Group(endpoint, dynamo, `${stream}-polling`, false)),
        readAsAGroup(new Group(endpoint, dynamo, `${stream}-fanout`, true)),
    ]);
    return { polling, fanout };
});
