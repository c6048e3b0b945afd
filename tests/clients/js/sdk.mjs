// The unmodified AWS SDK for JavaScript 3: every operation it has, over HTTP/2.
//
//     node sdk.mjs http://127.0.0.1:PORT STREAM
//     NODE_EXTRA_CA_CERTS=DATA/tls-certificate.pem node sdk.mjs https://127.0.0.1:PORT STREAM
//
// To a plain endpoint the SDK speaks HTTP/2 by prior knowledge, over TLS by ALPN. Records are put while two
// consumers subscribe to every shard and a shard is split and two are merged; then all are read by
// GetRecords as well. Prints one line of JSON; exit code 1 and the reason if a record is missing, doubled,
// altered or out of its key's order, if an answer is wrong, or if an operation of the SDK was not tried.
// Creates and deletes STREAM and streams whose names begin with it; the account's commitment to a minimum
// of throughput stays on.

import tls from 'node:tls';
import * as sdk from '@aws-sdk/client-kinesis';
import { Wrong, binary, compare, number, range, run, sleep } from './records.mjs';
import { Client, expect } from './sdk_client.mjs';
import { follow, takeover } from './sdk_fanout.mjs';
import { errors, settings } from './sdk_settings.mjs';

const RECORDS = 3_000;
const BATCH = 100;
/** Put one by one, side by side, before the others. */
const SINGLE = 100;
const MEBIBYTE = 1_048_576;

/** HTTP/2 is chosen by ALPN, and nobody trusts the certificate who was not told to. */
async function checkTls(endpoint) {
    const { hostname: host, port } = new URL(endpoint);
    const attempt = (options) =>
        new Promise((resolve) => {
            const socket = tls.connect({ host, port, ALPNProtocols: ['h2', 'http/1.1'], ...options });
            socket.on('error', (error) => resolve(error.code));
            socket.once('secureConnect', () => {
                resolve(socket.alpnProtocol);
                socket.destroy();
            });
        });
    expect('the protocol', await attempt({}), 'h2');
    const stranger = await attempt({ ca: tls.rootCertificates });
    if (stranger === 'h2') {
        throw new Wrong('the certificate is trusted by those who were not told to');
    }
}

/** Puts records in batches; where each of them went is noted in `places`. */
async function put(client, stream, records, places) {
    for (let begin = 0; begin < records.length; begin += BATCH) {
        const batch = records.slice(begin, begin + BATCH);
        const entries = batch.map(({ key, data }) => ({ PartitionKey: key, Data: data }));
        const answer = await client.send('PutRecords', { StreamName: stream, Records: entries });
        expect('refused records', answer.FailedRecordCount, 0);
        expect('answers', answer.Records.length, batch.length);
        answer.Records.forEach((place, i) => places.set(number(batch[i].data), place));
        await sleep(20);
    }
}

/** Records of different keys, all at once on one connection. */
async function putSideBySide(client, stream, records, places) {
    const one = async ({ key, data }) => {
        const entry = { StreamName: stream, PartitionKey: key, Data: data };
        places.set(number(data), await client.send('PutRecord', entry));
    };
    for (let begin = 0; begin < records.length; begin += 20) {
        await Promise.all(records.slice(begin, begin + 20).map(one));
    }
}

/** Splits the first shard and merges the second with the third, between thirds of the records. */
async function putThroughResharding(client, stream, records, places) {
    const third = Math.floor(RECORDS / 3);
    await putSideBySide(client, stream, records.slice(0, SINGLE), places);
    await put(client, stream, records.slice(SINGLE, third), places);
    const [first] = await client.openShards(stream);
    const { StartingHashKey: start, EndingHashKey: end } = first.HashKeyRange;
    await client.send('SplitShard', {
        StreamName: stream,
        ShardToSplit: first.ShardId,
        NewStartingHashKey: String((BigInt(start) + BigInt(end)) / 2n),
    });
    await put(client, stream, records.slice(third, 2 * third), places);
    const [, left, right] = await client.openShards(stream);
    await client.send('MergeShards', {
        StreamName: stream,
        ShardToMerge: left.ShardId,
        AdjacentShardToMerge: right.ShardId,
    });
    await put(client, stream, records.slice(2 * third), places);
}

async function iterator(client, stream, shard, start) {
    const input = { StreamName: stream, ShardId: shard, ...start };
    return (await client.send('GetShardIterator', input)).ShardIterator;
}

/** The records of a shard and its children; an open shard is read to its tip. */
async function readShard(client, stream, shard) {
    const records = [];
    let next = await iterator(client, stream, shard, { ShardIteratorType: 'TRIM_HORIZON' });
    for (;;) {
        const page = await client.send('GetRecords', { ShardIterator: next, Limit: 333 });
        records.push(...page.Records);
        next = page.NextShardIterator;
        if (next === undefined) {
            if (!page.ChildShards?.length) {
                throw new Wrong(`closed shard ${shard} ends without ChildShards`);
            }
            return { records, children: page.ChildShards };
        }
        if (page.MillisBehindLatest === 0 && page.Records.length === 0) {
            return { records, children: [] };
        }
    }
}

/** The stream from the oldest shards on, a child after all its parents; a record knows its shard. */
async function readStream(client, stream) {
    const { Shards: listed } = await client.send('ListShards', { StreamName: stream });
    const ready = listed.filter((shard) => !shard.ParentShardId).map((shard) => shard.ShardId);
    const [done, waiting, records] = [new Set(), new Map(), []];
    while (ready.length > 0) {
        const shard = ready.shift();
        const read = await readShard(client, stream, shard);
        records.push(...read.records.map((record) => ({ ...record, ShardId: shard })));
        done.add(shard);
        read.children.forEach((child) => waiting.set(child.ShardId, child.ParentShards));
        for (const [child, parents] of waiting) {
            if (parents.every((parent) => done.has(parent))) {
                waiting.delete(child);
                ready.push(child);
            }
        }
    }
    expect('shards', [...done].sort(), listed.map((shard) => shard.ShardId).sort());
    return records;
}

/** Bytes, order and count, and each record where the put said it is, at a time within the test's. */
function check(records, places, came, began) {
    compare(records, came.map(({ PartitionKey: key, Data: data }) => ({ key, data })));
    for (const record of came) {
        const n = number(record.Data);
        const { ShardId: shard, SequenceNumber: sequence } = places.get(n);
        expect(`record ${n}`, [record.ShardId, record.SequenceNumber], [shard, sequence]);
        const arrival = record.ApproximateArrivalTimestamp;
        if (!(arrival instanceof Date) || arrival < began - 1 || arrival > Date.now() + 1) {
            throw new Wrong(`record ${n} arrived at ${arrival}`);
        }
    }
}

/** Each kind of iterator gives the record it names, or the one behind it. */
async function checkIterators(client, stream, came) {
    const shard = came[0].ShardId;
    const [, second, third] = came.filter((record) => record.ShardId === shard);
    const starts = [
        ['AT_SEQUENCE_NUMBER', second],
        ['AFTER_SEQUENCE_NUMBER', third],
    ];
    for (const [type, record] of starts) {
        const start = { ShardIteratorType: type, StartingSequenceNumber: second.SequenceNumber };
        const input = { ShardIterator: await iterator(client, stream, shard, start), Limit: 1 };
        const found = (await client.send('GetRecords', input)).Records;
        expect(type, found.map((r) => r.SequenceNumber), [record.SequenceNumber]);
    }
    const start = { ShardIteratorType: 'AT_TIMESTAMP', Timestamp: third.ApproximateArrivalTimestamp };
    const input = { ShardIterator: await iterator(client, stream, shard, start), Limit: 1 };
    const [found] = (await client.send('GetRecords', input)).Records;
    expect('AT_TIMESTAMP', found.ApproximateArrivalTimestamp, third.ApproximateArrivalTimestamp);
}

/** Requests and answers of some 13 MB: many times the windows of HTTP/2. */
async function large(client, stream) {
    await client.send('CreateStream', { StreamName: stream, ShardCount: 1 });
    const sized = (n) => {
        const start = Buffer.from(`${n},`);
        return { key: 'k', data: Buffer.concat([start, Buffer.alloc(MEBIBYTE - 1 - start.length, n)]) };
    };
    const records = range(0, 10, sized);
    const entries = records.map(({ key, data }) => ({ PartitionKey: key, Data: data }));
    const answer = await client.send('PutRecords', { StreamName: stream, Records: entries });
    expect('refused large records', answer.FailedRecordCount, 0);
    const tooLarge = { StreamName: stream, PartitionKey: 'kk', Data: records[0].data };
    await client.refused('ValidationException', 'PutRecord', tooLarge);
    const { records: came } = await readShard(client, stream, 'shardId-000000000000');
    compare(records, came.map(({ PartitionKey: key, Data: data }) => ({ key, data })));
    await client.send('DeleteStream', { StreamName: stream });
    return records.length;
}

async function records(client, stream) {
    const began = Date.now();
    await client.send('CreateStream', { StreamName: stream, ShardCount: 2 });
    const all = range(0, RECORDS, binary);
    const places = new Map();
    const act = () => putThroughResharding(client, stream, all, places);
    const subscribed = await follow(client, stream, all.length, act);
    subscribed.came.forEach((came) => check(all, places, came, began));
    const came = await readStream(client, stream);
    check(all, places, came, began);
    await checkIterators(client, stream, came);
    await client.send('DeleteStream', { StreamName: stream });
    await client.refused('ResourceNotFoundException', 'DescribeStream', { StreamName: stream });
    const shards = new Set(came.map((record) => record.ShardId)).size;
    return { records: came.length, shards, events: subscribed.events, resumed: subscribed.resumed };
}

async function listed(client) {
    const names = [];
    for await (const page of sdk.paginateListStreams({ client: client.kinesis, pageSize: 2 }, {})) {
        names.push(...page.StreamNames);
    }
    return names;
}

await run(async (endpoint, stream) => {
    if (new URL(endpoint).protocol === 'https:') {
        await checkTls(endpoint);
    }
    const client = new Client(endpoint);
    expect('protocol', client.kinesis.config.requestHandler.metadata.handlerProtocol, 'h2');
    const [read, taken, largest] = await Promise.all([
        records(client, stream),
        takeover(client, `${stream}-takeover`),
        large(client, `${stream}-large`),
        settings(client, `${stream}-settings`),
        errors(client, `${stream}-settings`),
    ]);
    const left = (await listed(client)).filter((name) => name.startsWith(stream));
    expect('streams left', left, []);
    const known = Object.keys(sdk).filter((name) => /^[A-Z]\w+Command$/.test(name));
    const untried = known.filter((name) => !client.sent.has(name));
    expect('operations not tried', untried, []);
    client.kinesis.destroy();
    return { operations: known.length, ...read, ...taken, large: largest };
});
