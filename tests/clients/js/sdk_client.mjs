// The client of the AWS SDK for JavaScript, with what the parts of sdk.mjs ask of it.

import * as sdk from '@aws-sdk/client-kinesis';
import { Wrong } from './records.mjs';

/** The SDK's client, and what was sent with it. */
export class Client {
    constructor(endpoint) {
        this.kinesis = new sdk.KinesisClient({
            endpoint,
            region: 'us-east-1',
            credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
            // A repeated put would double records: what is measured is the server, not the retries.
            maxAttempts: 1,
        });
        this.sent = new Set();
        const note = (next, context) => (call) => {
            this.sent.add(context.commandName);
            return next(call);
        };
        this.kinesis.middlewareStack.add(note, { step: 'initialize', name: 'noteSent' });
    }

    async send(operation, input = {}, options = {}) {
        return this.kinesis.send(new sdk[`${operation}Command`](input), options);
    }

    /** Expects a refusal of this class, with all an application may ask of it. */
    async refused(name, operation, input) {
        let error;
        try {
            await this.send(operation, input);
        } catch (thrown) {
            error = thrown;
        }
        expectError(name, error, operation);
        const { httpStatusCode, requestId, extendedRequestId } = error.$metadata;
        if (httpStatusCode !== 400 || !requestId || !extendedRequestId) {
            throw new Wrong(`${operation}: ${name} came with ${JSON.stringify(error.$metadata)}`);
        }
    }

    async summary(stream) {
        const answer = await this.send('DescribeStreamSummary', { StreamName: stream });
        return answer.StreamDescriptionSummary;
    }

    async openShards(stream) {
        const filter = { StreamName: stream, ShardFilter: { Type: 'AT_LATEST' } };
        const { Shards: shards } = await this.send('ListShards', filter);
        const start = (shard) => BigInt(shard.HashKeyRange.StartingHashKey);
        return shards.sort((a, b) => (start(a) < start(b) ? -1 : 1));
    }
}

export function expect(what, found, expected) {
    if (JSON.stringify(found) !== JSON.stringify(expected)) {
        throw new Wrong(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`);
    }
}

/** The SDK's own class for an error of this name, and its members. */
export function expectError(name, error, what) {
    if (!(error instanceof sdk[name]) || !(error instanceof sdk.KinesisServiceException)) {
        throw new Wrong(`${what}: ${error ? error.stack : 'no error'}, not ${name}`);
    }
    const members = [error.name, error.$fault, typeof error.message];
    expect(`${what}: the error`, members, [name, 'client', 'string']);
}
