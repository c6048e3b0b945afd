// The unmodified npm package serverless-offline-kinesis: a function is called with every record of a stream.
//
//     node serverless_offline.mjs ENDPOINT STREAM
//
// Records are put before and while `serverless offline` runs (without an account or the network). Prints one
// line of JSON; exit code 1 and the reason if the function got a record not at all, twice, altered, under
// another shard or number, or out of its key's order, or if an event that it refused did not come again.
// Shards are not split: the package never looks for new ones, and reads a closed one over and over.
// Creates and deletes the stream STREAM.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import AWS from 'aws-sdk';
import { Wrong, binary, compare, number, range, run, sleep, until } from './records.mjs';

const RECORDS = 3_000;
const BATCH = 250;
const SHARDS = 3;
/** Seconds after which `serverless offline` ends even if nobody is left to end it. */
const SECONDS = 150;
const HERE = path.dirname(fileURLToPath(import.meta.url));

/** Starts `serverless offline`; it keeps its files in `directory`. */
function start(endpoint, stream, directory, received) {
    const program = path.join(HERE, 'node_modules/serverless/bin/serverless.js');
    const limit = ['--kill-after=5', String(SECONDS), process.execPath];
    const child = spawn('timeout', [...limit, program, 'offline', 'start'], {
        cwd: HERE,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: {
            PATH: process.env.PATH,
            HOME: directory,
            ENDPOINT: endpoint,
            STREAM: stream,
            RECEIVED: received,
            // Serverless 3 knows only the error that this Node.js gave before it could require such modules.
            NODE_OPTIONS: '--no-experimental-require-module',
            SLS_NOTIFICATIONS_MODE: 'off',
            SLS_TELEMETRY_DISABLED: '1',
        },
    });
    const serverless = { said: '', ended: undefined };
    const hear = (piece) => (serverless.said += piece);
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    const end = new Promise((resolve) => {
        child.once('error', resolve);
        child.once('exit', (code, signal) => resolve(new Error(`it ended with ${code ?? signal}`)));
    });
    end.then((reason) => (serverless.ended = reason));
    serverless.stop = async () => {
        child.kill('SIGTERM');
        const forced = setTimeout(() => child.kill('SIGKILL'), 10_000);
        await end;
        clearTimeout(forced);
    };
    return serverless;
}

/** Puts records; where each went is noted in `places`. */
async function put(aws, stream, records, places) {
    for (let begin = 0; begin < records.length; begin += BATCH) {
        const batch = records.slice(begin, begin + BATCH);
        const entries = batch.map(({ key, data }) => ({ PartitionKey: key, Data: data }));
        const answer = await aws.putRecords({ StreamName: stream, Records: entries }).promise();
        if (answer.FailedRecordCount !== 0) {
            throw new Wrong(`${answer.FailedRecordCount} records were refused`);
        }
        const at = ({ ShardId: shard, SequenceNumber: sequence }) => `${shard}:${sequence}`;
        answer.Records.forEach((place, i) => places.set(number(batch[i].data), at(place)));
    }
}

/** The events the function took, in their order. */
function events(received) {
    const lines = fs.existsSync(received) ? fs.readFileSync(received, 'utf8').split('\n') : [];
    // The last one is empty, or being written.
    return lines.slice(0, -1).map((line) => JSON.parse(line));
}

/** Counts the records the function took; reads them only if there are more. */
function counter(received) {
    let [bytes, count] = [0, 0];
    return () => {
        const size = fs.statSync(received, { throwIfNoEntry: false })?.size ?? 0;
        if (size !== bytes) {
            bytes = size;
            count = events(received).flat().length;
        }
        return count;
    };
}

function check(records, places, taken, refused) {
    const came = taken.flat().map(({ kinesis, eventID: place }) => {
        const data = Buffer.from(kinesis.data, 'base64');
        if (places.get(number(data)) !== place) {
            throw new Wrong(`record ${number(data)} is ${place}, not ${places.get(number(data))}`);
        }
        return { key: kinesis.partitionKey, data };
    });
    compare(records, came);
    if (!taken.some((event) => JSON.stringify(event) === refused)) {
        throw new Wrong('the refused event did not come again');
    }
}

await run(async (endpoint, stream) => {
    const access = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret', region: 'us-east-1' };
    const aws = new AWS.Kinesis({ endpoint, ...access, maxRetries: 0 });
    const records = range(0, RECORDS, binary);
    const places = new Map();
    await aws.createStream({ StreamName: stream, ShardCount: SHARDS }).promise();
    await put(aws, stream, records.slice(0, RECORDS / 3), places);
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'serverless-'));
    const received = path.join(directory, 'received');
    const count = counter(received);
    const serverless = start(endpoint, stream, directory, received);
    try {
        await until('first event', () => serverless.ended || count() > 0, 60);
        await put(aws, stream, records.slice(RECORDS / 3), places);
        await until('end of the records', () => serverless.ended || count() >= RECORDS, 60);
        // Anything doubled comes right behind.
        await sleep(2_000);
        if (serverless.ended) {
            throw serverless.ended;
        }
        check(records, places, events(received), fs.readFileSync(`${received}.refused`, 'utf8'));
    } catch (failure) {
        process.stderr.write(serverless.said);
        throw failure;
    } finally {
        await serverless.stop();
        fs.rmSync(directory, { recursive: true });
    }
    await aws.deleteStream({ StreamName: stream }).promise();
    return { records: places.size, shards: SHARDS };
});
