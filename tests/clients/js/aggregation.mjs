// Records aggregated as the Kinesis Producer Library does it, by the unmodified npm package aws-kinesis-agg.
//
//     node aggregation.mjs ENDPOINT STREAM
//
// User records are packed into a few records, put and read by the AWS SDK for JavaScript 3, and unpacked
// with their checksums. Prints one line of JSON; exit code 1 and the reason if a user record is missing,
// doubled, altered or out of order. Creates and deletes the stream STREAM.

import aggregation from 'aws-kinesis-agg';
import { Wrong, binary, compare, range, run } from './records.mjs';
import { Client } from './sdk_client.mjs';

const USER_RECORDS = 6_000;
const SHARD = 'shardId-000000000000';

/** Packs user records and puts what comes of it; how many records that are. */
async function put(client, stream, records) {
    let count = 0;
    const one = ({ partitionKey, data }, done) => {
        count += 1;
        const input = { StreamName: stream, PartitionKey: partitionKey, Data: data };
        client.send('PutRecord', input).then(() => done(), done);
    };
    const entries = records.map(({ key, data }) => ({ partitionKey: key, data }));
    await new Promise((resolve, reject) => aggregation.aggregate(entries, one, resolve, reject));
    return count;
}

function unpack(record) {
    let unpacked;
    aggregation.deaggregateSync(record, true, (failure, records) => {
        if (failure) {
            throw failure;
        }
        unpacked = records;
    });
    return unpacked.map(({ PartitionKey: key, Data: data }) => ({ key, data: Buffer.from(data, 'base64') }));
}

await run(async (endpoint, stream) => {
    const client = new Client(endpoint);
    await client.send('CreateStream', { StreamName: stream, ShardCount: 1 });
    const users = range(0, USER_RECORDS, binary);
    const count = await put(client, stream, users);
    const start = { StreamName: stream, ShardId: SHARD, ShardIteratorType: 'TRIM_HORIZON' };
    const { ShardIterator: iterator } = await client.send('GetShardIterator', start);
    const { Records: records } = await client.send('GetRecords', { ShardIterator: iterator });
    if (records.length !== count || count < 2 || count > USER_RECORDS / 100) {
        throw new Wrong(`${count} records were put and ${records.length} came`);
    }
    compare(users, records.flatMap(unpack));
    await client.send('DeleteStream', { StreamName: stream });
    return { records: count, userRecords: users.length };
});
